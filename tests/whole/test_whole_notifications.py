"""A whole gateway tells people: rule, scene or API, through a real plugin, to a server on loopback, over a kill -9."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fakes.eventually import eventually
from fakes.process import REPOSITORY, GatewayProcess

from gateway.simulate import jt808
from gateway.workbench.build import build_plugin

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs the plugin compiler: pip install ziglang"
)

KEY = "canary-key-0123456789"


class Receiver:
    """A webhook's server: answers what it is told to, and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.reply = b"{}"
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", str(len(receiver.reply)))
                self.end_headers()
                self.wfile.write(receiver.reply)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    @property
    def titles(self) -> list[str]:
        return [json.loads(body)["title"] for _, _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def configured(folder: Path, receiver: Receiver, *, allow: bool = True, plugin: str = "webhook") -> GatewayProcess:
    for shipped in ("jt808", plugin):
        build_plugin(REPOSITORY / "plugins" / shipped)
    allowed = f'allow = ["127.0.0.1:{receiver.port}"]' if allow else ""
    (folder / "rules").mkdir()
    (folder / "scenes").mkdir()
    (folder / "gateway.toml").write_text(
        f"""
[http]
port = 0
[plugins]
dirs = ["plugins"]
[listeners.jt808]
type = "tcp"
port = 0
product = "jt808-terminal"
[products.jt808-terminal]
plugin = "jt808"
model = "plugins/jt808/thing-model.json"
registration = "auto"
[rules]
directory = "rules"
[scenes]
directory = "scenes"
[outbound]
{allowed}
[wasm.grants]
{plugin} = ["emit"]
[notify.ops]
type = "plugin"
plugin = "{plugin}"
first_retry_s = 0.05
most_retry_s = 0.2
rate_per_min = 6000
[notify.ops.secrets]
url = {{ env = "HOOK_URL" }}
key = {{ env = "HOOK_KEY" }}
"""
    )
    (folder / "plugins").symlink_to(REPOSITORY / "plugins")
    url = f"http://127.0.0.1:{receiver.port}/hook/canary-0123456789"
    return GatewayProcess(folder / "data", folder / "gateway.toml", HOOK_URL=url, HOOK_KEY=KEY)


def tell(gateway: GatewayProcess, title: str) -> dict[str, Any]:
    answer = gateway.call("POST", "/api/v1/notifications", {"channel": "ops", "title": title, "text": "it works"})
    assert answer["http"] == 201, answer
    return dict(answer["data"])


def test_what_is_told_arrives_signed_and_no_secret_shows(tmp_path: Path, receiver: Receiver) -> None:
    with configured(tmp_path, receiver) as gateway:
        gateway.login()
        queued = tell(gateway, "热")
        eventually(lambda: gateway.get(f"/api/v1/notifications/{queued['id']}")["status"] == "sent")
        ((path, headers, body),) = receiver.got
        assert path == "/hook/canary-0123456789"
        assert headers["x-signature"] == hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
        assert json.loads(body) | {"at": ""} == {
            "id": queued["id"],
            "channel": "ops",
            "title": "热",
            "text": "it works",
            "severity": "info",
            "device": None,
            "at": "",
            "link": None,
        }
        (channel,) = gateway.items("/api/v1/notifications/channels")
        assert (channel["state"], channel["sent"]) == ("ready", 1)
        receiver.status, receiver.reply = 400, b"you sent hook/canary-0123456789 with " + KEY.encode()
        bad = tell(gateway, "bad")
        eventually(lambda: gateway.get(f"/api/v1/notifications/{bad['id']}")["status"] == "failed")
        shown = json.dumps(
            [
                gateway.items("/api/v1/notifications"),
                gateway.items("/api/v1/notifications/channels"),
                gateway.get("/health"),
                gateway.items("/api/v1/audit"),
                sorted(gateway.metrics()),
            ]
        )
        assert "canary" not in shown
    assert "canary" not in gateway.log.read_text()


def test_rules_and_scenes_notify_and_what_is_refused_shows(tmp_path: Path, receiver: Receiver) -> None:
    with configured(tmp_path, receiver) as gateway:
        (tmp_path / "scenes" / "tell.lua").write_text(
            """function run(args)
              local told = notify("ops", { title = "scene", text = args.what, severity = "minor" })
              log(told.status, notify("nobody", { title = "x" }).error)
            end"""
        )
        (tmp_path / "rules" / "watch.lua").write_text(
            """on.message { product = "jt808-terminal" } (function(msg, state)
              if state.told then return end
              state.told = true
              notify { channel = "ops", title = msg.device, severity = "major" }
              notify { channel = "nobody", title = "x" }
            end)"""
        )
        gateway.login()
        eventually(lambda: [one["state"] for one in gateway.items("/api/v1/scenes")] == ["ready"])
        eventually(lambda: [one["state"] for one in gateway.items("/api/v1/rules")] == ["running"])
        run = gateway.call("POST", "/api/v1/scenes/tell/runs", {"args": {"what": "lamp"}})["data"]
        ended = eventually(
            lambda: next(
                (
                    found
                    for found in [gateway.get(f"/api/v1/scenes/tell/runs/{run['id']}")]
                    if found["status"] == "succeeded"
                ),
                None,
            )
        )
        assert ended["log"][0].startswith("queued no channel nobody")
        eventually(lambda: receiver.titles == ["scene"])
        (shown,) = gateway.items("/api/v1/notifications?status=sent")
        assert (shown["requested_by"], shown["severity"]) == ("scene:tell", "minor")
        receiver.got.clear()
        options = jt808.Options(port=gateway.ports["jt808"]["port"], devices=2, rate=4, seconds=2)
        assert uvloop.run(jt808.run(options)).clean
        eventually(lambda: len(receiver.got) == 2)
        devices = {json.loads(body)["device"] for _, _, body in receiver.got}
        assert devices == {device["id"] for device in gateway.items("/api/v1/devices")} == set(receiver.titles)
        (rule,) = gateway.items("/api/v1/rules")
        assert rule["last_error"].startswith("notify nobody: no channel nobody")
        assert gateway.metrics()["gateway_rules_notifications_refused_total"] == 2


def test_after_kill_9_what_was_accepted_is_sent(tmp_path: Path, receiver: Receiver) -> None:
    receiver.status = 503
    gateway = configured(tmp_path, receiver)
    gateway.start()
    gateway.login()
    accepted = [tell(gateway, f"n{number}")["id"] for number in range(20)]
    eventually(lambda: len(receiver.got) >= 2)
    gateway.kill()
    receiver.status = 200
    receiver.got.clear()
    with gateway:
        gateway.login()
        eventually(lambda: len(gateway.items("/api/v1/notifications?status=sent")) == 20)
        assert [json.loads(body)["id"] for _, _, body in receiver.got] == accepted
        waiting = gateway.metrics()['gateway_notifications_waiting{channel="ops"}']
        assert waiting == 0


def test_a_host_that_is_not_listed_is_not_asked_and_the_channel_says_what_to_set(
    tmp_path: Path, receiver: Receiver
) -> None:
    with configured(tmp_path, receiver, allow=False) as gateway:
        gateway.login()
        (channel,) = gateway.items("/api/v1/notifications/channels")
        assert channel["state"] == "blocked"
        assert f'add "127.0.0.1:{receiver.port}" to [outbound] allow' in channel["detail"]
        queued = tell(gateway, "no way out")
        eventually(lambda: "a channel holds what waits" in gateway.log.read_text())
        shown = gateway.get(f"/api/v1/notifications/{queued['id']}")
        assert (shown["status"], shown["attempts"]) == ("queued", 0)
    assert receiver.got == []
    config = tmp_path / "gateway.toml"
    config.write_text(config.read_text().replace("[outbound]", f'[outbound]\nallow = ["127.0.0.1:{receiver.port}"]'))
    with gateway:
        gateway.login()
        eventually(lambda: gateway.get(f"/api/v1/notifications/{queued['id']}")["status"] == "sent")
    assert receiver.titles == ["no way out"]


def test_a_service_that_refuses_with_200_is_no_success(tmp_path: Path, receiver: Receiver) -> None:
    receiver.reply = b'{"errcode":310000,"errmsg":"sign not match"}'
    with configured(tmp_path, receiver, plugin="dingtalk") as gateway:
        gateway.login()
        queued = tell(gateway, "signed")
        eventually(lambda: gateway.get(f"/api/v1/notifications/{queued['id']}")["status"] == "failed")
        shown = gateway.get(f"/api/v1/notifications/{queued['id']}")
        assert shown["last_error"] == "errcode 310000: sign not match"
        ((path, _, body),) = receiver.got
        assert "sign=" in path
        assert json.loads(body)["msgtype"] == "markdown"
