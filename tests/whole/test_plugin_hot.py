"""A plugin's folder changes under a real gateway with a device that stays connected."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

from fakes.eventually import eventually
from fakes.nursery import LIMITS, counting
from fakes.process import GatewayProcess

CONFIG = """
[plugins]
dirs = ["plugins"]
poll_s = 0.1

[rules]
directory = "none"

[scenes]
directory = "none"

[products.meter]
plugin = "meter"
registration = "auto"

[listeners.meters]
type = "tcp"
product = "meter"
port = 0
"""


def put(root: Path, version: str, mark: str, more: str = "", frame_bytes: int = 1) -> None:
    """Write the plugin's folder as an editor would: file by file, in place."""
    folder = root / "plugins" / "meter"
    folder.mkdir(parents=True, exist_ok=True)
    framing = f'[framing]\ntype = "fixed"\nframe_bytes = {frame_bytes}\n'
    head = f'id = "meter"\nversion = "{version}"\nlicense = "MIT"\n'
    (folder / "plugin.toml").write_text(head + LIMITS + framing + more)
    (folder / "meter.wasm").write_bytes(counting(mark, ack=True))


def answer(line: socket.socket, frame: bytes = b"x") -> bytes:
    """Send a frame and wait for its acknowledgement, which is the mark of the version that decoded it."""
    line.sendall(frame)
    return line.recv(1)


def test_a_device_stays_connected_while_its_plugin_changes(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    put(tmp_path, "1.0", "a")
    with GatewayProcess(tmp_path / "data", config) as gateway:
        gateway.login()
        where = gateway.ports["meters"]
        with socket.create_connection((where["host"], where["port"]), timeout=30) as line:
            assert answer(line) == b"a"
            put(tmp_path, "1.1", "b")
            marks = bytearray()
            while not marks.endswith(b"b"):
                marks += answer(line)
            assert set(marks) <= set(b"ab")
            assert bytes(marks).count(b"b") == 1  # never back

            put(tmp_path, "1.2", "c", '[[test]]\nframe = "78"\nitem = { device = "nobody" }\n')
            status = eventually(lambda: refused(gateway))
            assert "1 test vectors fail" in status["detail"]
            assert (status["state"], status["version"]) == ("running", "1.1")
            assert answer(line) == b"b"
            figures = gateway.metrics()
            assert figures['gateway_plugin_swaps_total{plugin="meter"}'] == 1
            assert figures['gateway_plugin_call_seconds_count{plugin="meter"}'] >= 2
            assert event_types(gateway, 2) == ["plugin.swapped", "plugin.refused"]

            put(tmp_path, "2.0", "d", frame_bytes=2)
            eventually(lambda: gateway.get("/api/v1/plugins/meter")["version"] == "2.0")
            assert line.recv(1) == b""  # frames are cut in another way now: the listener began anew
        assert gateway.metrics()["gateway_messages_accepted_total"] == len(marks) + 2
        with eventually(lambda: reached(where)) as line:
            assert answer(line, b"xy") == b"d"


def refused(gateway: GatewayProcess) -> dict[str, str] | None:
    status: dict[str, str] = gateway.get("/api/v1/plugins/meter")
    return status if "1.2" in status["detail"] else None


def reached(where: dict[str, object]) -> socket.socket | None:
    try:
        return socket.create_connection((where["host"], where["port"]), timeout=30)  # type: ignore[arg-type]
    except ConnectionRefusedError:
        return None


def event_types(gateway: GatewayProcess, count: int) -> list[str]:
    """Types of the first events of plugins, from the live stream."""
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{gateway.url}/api/v1/stream?types=plugin.&last_event_id=0",
        headers={"Authorization": f"Bearer {gateway.token}"},
    )
    types: list[str] = []
    with urllib.request.urlopen(request, timeout=30) as stream:  # noqa: S310 - our own URL
        for line in stream:
            if line.startswith(b"event: "):
                types.append(line.decode().strip().removeprefix("event: "))
                if len(types) == count:
                    break
    return types
