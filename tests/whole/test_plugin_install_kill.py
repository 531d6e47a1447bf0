"""kill -9 at any moment of an upload: what was acknowledged is installed after the restart, nothing is half there."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from pathlib import Path

from fakes.eventually import eventually
from fakes.packages import members, package
from fakes.process import GatewayProcess

CONFIG = """
[plugins]
dirs = []
max_versions = 1000

[rules]
directory = "none"

[scenes]
directory = "none"
"""
PLUGINS = ("meter", "pump", "valve")


def test_every_acknowledged_package_is_installed_whole_after_kill_9(tmp_path: Path) -> None:
    """Three plugins get a new version as fast as they are taken; killed at a random moment, restarted, killed again."""
    moments = random.Random(7)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    uploads = _Uploads(tmp_path)
    gateway = GatewayProcess(tmp_path / "data", config)
    for _ in range(3):
        gateway.start()
        _check(gateway, uploads)
        taken = len(uploads.acknowledged)
        uploads.begin(gateway)
        eventually(lambda least=taken: len(uploads.acknowledged) > least + 3, 30)
        time.sleep(moments.uniform(0, 0.2))
        gateway.kill()
        uploads.end()
    with gateway:
        _check(gateway, uploads)
        assert len(uploads.acknowledged) > 10


def _check(gateway: GatewayProcess, uploads: _Uploads) -> None:
    area = gateway.data_dir / "plugins"
    assert not list(area.glob(".coming-*")) + list(area.glob(".going-*")) + list(area.glob("*/.coming-*"))
    shown = {plugin_id: gateway.get(f"/api/v1/plugins/{plugin_id}") for plugin_id in _running(gateway)}
    for plugin_id, version in uploads.acknowledged:
        (found,) = (one for one in shown[plugin_id]["versions"] if one["version"] == version)
        assert found["refused"] == ""
        files = area / plugin_id / version / plugin_id
        kept = {path.name: path.read_bytes() for path in files.iterdir()}
        assert kept == members(uploads.packages[plugin_id, version])
    for plugin_id, detail in shown.items():
        newest = max((int(version) for name, version in uploads.acknowledged if name == plugin_id), default=0)
        assert detail["state"] == "running"
        assert int(detail["version"]) >= newest, "a version that was taken into use is in use after a restart"
        assert {(plugin_id, one["version"]) for one in detail["versions"]} <= uploads.packages.keys()


def _running(gateway: GatewayProcess) -> list[str]:
    return [plugin["id"] for plugin in gateway.items("/api/v1/plugins")]


class _Uploads:
    """Sends new versions, one after the other, from a thread, until the gateway is gone."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions = iter(range(1, 10_000))
        self.packages: dict[tuple[str, str], bytes] = {}
        self.acknowledged: list[tuple[str, str]] = []
        self._threads: list[threading.Thread] = []

    def begin(self, gateway: GatewayProcess) -> None:
        gateway.login()
        where, token = gateway.ports["http"], gateway.token
        self._threads = [threading.Thread(target=self._run, args=(where, token, name)) for name in PLUGINS]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, where: dict[str, int], token: str, plugin_id: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/zip"}
        link = http.client.HTTPConnection(str(where["host"]), where["port"], timeout=30)
        try:
            while True:
                version = str(next(self._versions))
                data = package(self._root / plugin_id, version, plugin_id=plugin_id, files={"README.md": b"x" * 99_000})
                self.packages[plugin_id, version] = data
                link.request("POST", "/api/v1/plugins", body=data, headers=headers)
                answer = link.getresponse()
                text = json.loads(answer.read())
                assert answer.status == 201, text
                self.acknowledged.append((plugin_id, version))
        except (OSError, http.client.HTTPException):
            return  # killed
        finally:
            link.close()
