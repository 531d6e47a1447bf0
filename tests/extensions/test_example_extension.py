"""The worked example: installed by pip as a stranger's package, found by its entry point, and serving."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.eventually import eventually
from fakes.process import REPOSITORY, GatewayProcess

from gateway.workbench.build import build_plugin

EXAMPLE = Path(__file__).parent / "example"
PLUGINS = REPOSITORY / "bench" / "plugins"
READING = bytes.fromhex(
    "003e646576303030303700000199c82cc00740350000000000004044400000000000"
    "405954cccccccccd406c7222222222223fc0000000000000000000078c89"
)
CONFIG = """
[plugins]
dirs = ["{plugins}"]

[listeners.udp]
type = "datagram"
port = 0
product = "echo"

[sinks.tally]
type = "tally"

[products.echo]
plugin = "telemetry5"
registration = "auto"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *install, str(EXAMPLE)], check=True)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    build_plugin(PLUGINS / "telemetry5")
    path = tmp_path / "example.toml"
    path.write_text(CONFIG.format(plugins=PLUGINS))
    return path


def test_the_worked_example_installs_and_serves(tmp_path: Path, site: Path, config: Path) -> None:
    notes = tmp_path / "notes"
    with GatewayProcess(tmp_path / "data", config, PYTHONPATH=str(site), FLUX_EXAMPLE_NOTES=str(notes)) as gateway:
        assert notes.read_text().startswith("started ")
        (listener,) = gateway.items("/api/v1/listeners")
        assert (listener["type"], listener["product_id"]) == ("datagram", "echo")
        address = ("127.0.0.1", gateway.ports["udp"]["port"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            for _ in range(3):
                device.sendto(READING, address)
            device.sendto(b"no reading", address)
        route = "/api/v1/extensions/example/tally/dev00007"
        eventually(lambda: gateway.call("GET", route).get("data", {}).get("messages") == 3)
        values = {
            item["property"]: item["value"] for item in gateway.get("/api/v1/devices/dev00007/properties")["items"]
        }
        assert values["pressure"] == 101.325

        assert gateway.call("GET", "/api/v1/extensions/example/tally/nobody")["code"] == "not_found"
        (installed,) = gateway.items("/api/v1/extensions")
        assert installed == {"name": "example", "failure": "", "routes": ["GET tally/{device}", "DELETE tally"]}
        assert gateway.metrics()["gateway_extensions_left_out"] == 0
        assert gateway.call("DELETE", "/api/v1/extensions/example/tally")["http"] == 200
        assert gateway.call("GET", route)["http"] == 404
    assert notes.read_text().splitlines()[1:] == ["stopping"]


def test_without_the_package_its_types_are_unknown_and_the_start_says_so(tmp_path: Path, config: Path) -> None:
    with pytest.raises(AssertionError, match=r"sinks\.tally: unknown type `tally`; known are: jsonl"):
        GatewayProcess(tmp_path / "data", config).start()
