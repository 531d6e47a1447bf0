"""A whole gateway whose rules call plugins, whose frames pass a cipher, and whose history becomes a report."""

from __future__ import annotations

import csv
import io
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from fakes.eventually import eventually
from fakes.jt808_frames import frame, location_body
from fakes.process import REPOSITORY, GatewayProcess

from gateway.workbench.build import build_plugin

KEY = "0123456789abcdeffedcba9876543210"
PHONE = "013812340001"
SEALED_PHONE = "013812340002"
RULE = """
on.message { property = "speed_km_h" } (function(msg, state)
  local speed, why = plugin.call("kalman", {
    key = msg.device, value = msg.values.speed_km_h, process_noise = 0, measurement_noise = 1,
  })
  state.n = (state.n or 0) + 1
  if state.n == 3 then
    alarm.raise { message = "smoothed", data = { estimate = speed and speed.estimate, error = why } }
  end
  local nothing, refused = plugin.call("dingtalk", {})
  if state.n == 3 then log.info("refused: " .. tostring(nothing) .. " " .. refused) end
end)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    for plugin in ("jt808", "kalman", "sm4", "shift-report", "dingtalk"):
        build_plugin(REPOSITORY / "plugins" / plugin)
    folder = tmp_path_factory.mktemp("calls")
    (folder / "rules").mkdir()
    (folder / "rules" / "smooth.lua").write_text(RULE)
    settings = {
        "RULES__DIRECTORY": str(folder / "rules"),
        "STAGES__WIRE__PLUGIN": "sm4",
        "STAGES__WIRE__ARGS": '{ mode = "ecb" }',
        "STAGES__WIRE__SECRETS__KEY": KEY,
        "PRODUCTS__SEALED__PLUGIN": "jt808",
        "PRODUCTS__SEALED__MODEL": "plugins/jt808/thing-model.json",
        "PRODUCTS__SEALED__REGISTRATION": "auto",
        "PRODUCTS__SEALED__STAGES": '["wire"]',
        "LISTENERS__SEALED__TYPE": "tcp",
        "LISTENERS__SEALED__PORT": "0",
        "LISTENERS__SEALED__PRODUCT": "sealed",
    }
    with GatewayProcess(folder / "data", **{f"GATEWAY__{name}": value for name, value in settings.items()}) as running:
        yield running


def escaped(content: bytes) -> bytes:
    """As it travels. Source: JT/T 808-2019, 4.4.2."""
    return b"\x7e" + content.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02") + b"\x7e"


def answer_on(peer: socket.socket) -> bytes:
    """The next frame from the gateway, without flags and escapes."""
    data = b""
    while data.count(b"\x7e") < 2:
        piece = peer.recv(4096)
        assert piece, "the gateway closed the connection"
        data += piece
    return data.split(b"\x7e")[1].replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d")


def location(phone: str, serial: int, minute: int) -> bytes:
    return frame(0x0200, location_body(bcd=f"26030108{minute:02d}00"), phone=phone, serial=serial)


def sm4(data: bytes, *, decrypt: bool = False) -> bytes:
    cipher = Cipher(algorithms.SM4(bytes.fromhex(KEY)), modes.ECB())  # noqa: S305 - the mode is not what is tested
    if decrypt:
        context, unpadder = cipher.decryptor(), padding.PKCS7(128).unpadder()
        return unpadder.update(context.update(data) + context.finalize()) + unpadder.finalize()
    padder, encryptor = padding.PKCS7(128).padder(), cipher.encryptor()
    return encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()


def history(gateway: GatewayProcess, phone: str) -> int:
    answer = gateway.call("GET", f"/api/v1/devices/{phone}/history?property=speed_km_h")
    return int(answer.get("data", {}).get("total", 0))


def test_a_rule_calls_a_plugin_and_a_report_is_made_of_what_was_stored(gateway: GatewayProcess) -> None:
    gateway.login()
    with socket.create_connection(("127.0.0.1", gateway.ports["jt808"]["port"]), 30) as peer:
        for number in range(4):
            peer.sendall(escaped(location(PHONE, number, 10 * number)))
            answer_on(peer)
    (alarm,) = eventually(lambda: gateway.items(f"/api/v1/alarms?device_id={PHONE}"))
    assert alarm["data"] == {"estimate": 80.0}
    assert "refused: nil plugin dingtalk is of kind notify" in gateway.log.read_text()
    (rule,) = gateway.items("/api/v1/rules")
    assert (rule["strikes"], rule["errors"]) == (0, 0)

    wanted: dict[str, Any] = {
        "plugin": "shift-report",
        "device": PHONE,
        "property": "speed_km_h",
        "from": "2026-03-01T08:00:00+08:00",
        "to": "2026-03-01T16:00:00+08:00",
        "args": {"timezone_offset_min": 480, "shifts": [{"name": "=day", "start": "08:00", "end": "16:00"}]},
    }
    made = gateway.call("POST", "/api/v1/reports", wanted)
    assert made["http"] == 201, made
    report = made["data"]
    line = dict(zip(report["columns"], report["rows"][0], strict=True))
    assert (report["points"], line["day"], line["shift"], line["count"], line["mean"]) == (
        4,
        "2026-03-01",
        "=day",
        4,
        80.0,
    )
    request = urllib.request.Request(gateway.url + f"/api/v1/reports/{report['id']}/csv")  # noqa: S310 - our own URL
    request.add_header("Authorization", f"Bearer {gateway.token}")
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        assert answer.headers["Content-Type"].startswith("text/csv")
        header, cells = csv.reader(io.StringIO(answer.read().decode(), newline=""))
    assert header == report["columns"]
    assert dict(zip(header, cells, strict=True))["shift"] == "'=day"
    refused = gateway.call("POST", "/api/v1/reports", {**wanted, "args": {"timezone_offset_min": 0, "shifts": 1}})
    assert (refused["http"], refused["code"]) == (422, "codec.failed")
    assert "shifts" in refused["error"]


def test_a_device_that_encrypts_talks_through_a_stage_and_its_key_is_nowhere(gateway: GatewayProcess) -> None:
    gateway.login()
    with socket.create_connection(("127.0.0.1", gateway.ports["sealed"]["port"]), 30) as peer:
        peer.sendall(escaped(sm4(location(SEALED_PHONE, 1, 0))))
        reply = sm4(answer_on(peer), decrypt=True)
        assert reply[:2] == b"\x80\x01", "the platform's general reply, encrypted"
        assert reply[12:17] == b"\x00\x01\x02\x00\x00", "serial 1, message 0200, taken"
        before = gateway.metrics()
        peer.sendall(escaped(b"not encrypted at all"))
        peer.sendall(escaped(sm4(location(SEALED_PHONE, 2, 1))))
        answer_on(peer)
    eventually(lambda: history(gateway, SEALED_PHONE) == 2)
    name = 'gateway_stage_refused_total{reason="truncated",stage="wire"}'
    assert gateway.metrics()[name] == before.get(name, 0) + 1
    shown = gateway.get("/api/v1/products/sealed")
    assert shown["stages"] == ["wire"]
    metrics = urllib.request.urlopen(gateway.url + "/metrics", timeout=30).read().decode()  # noqa: S310 - our own URL
    everywhere = [gateway.log.read_text(), str(shown), str(gateway.get("/api/v1/plugins/sm4")), metrics]
    everywhere.append(str(gateway.items("/api/v1/dead-letters")))
    raw = bytes.fromhex(KEY)
    assert not [text for text in everywhere if KEY in text or raw.hex(" ") in text or repr(raw) in text]


def test_products_made_over_the_api_name_stages_that_are_there(gateway: GatewayProcess) -> None:
    gateway.login()
    body = {"id": "more", "plugin_id": "jt808", "stages": ["wire"]}
    assert gateway.call("POST", "/api/v1/products", body)["data"]["stages"] == ["wire"]
    refused = gateway.call("POST", "/api/v1/products", {**body, "id": "wrong", "stages": ["gone"]})
    assert refused["http"] == 422
    assert "[stages.gone]" in refused["error"]


def test_the_shipped_scenes_load_and_the_report_of_a_shift_runs_by_hand(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    gateway.login()
    scenes = {scene["name"]: scene["state"] for scene in gateway.items("/api/v1/scenes")}
    assert scenes["shift_report"] == "ready"
    args = {"devices": [PHONE], "property": "speed_km_h"}
    run = gateway.call("POST", "/api/v1/scenes/shift_report/runs", {"args": args})["data"]

    def ended() -> Any:
        shown = gateway.get(f"/api/v1/scenes/shift_report/runs/{run['id']}")
        return shown if shown["status"] not in {"running", "sleeping"} else None

    assert eventually(ended)["status"] == "succeeded"
    newest = gateway.get("/api/v1/reports?limit=1")["items"][0]
    assert (newest["requested_by"], newest["plugin_id"], newest["row_count"]) == (
        "scene:shift_report",
        "shift-report",
        3,
    )
