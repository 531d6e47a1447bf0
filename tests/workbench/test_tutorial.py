"""`docs/plugin-tutorial.md`, as a reader would follow it: its commands, its files, a real gateway, a real socket."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.eventually import eventually
from fakes.process import PASSWORD, REPOSITORY, GatewayProcess
from made_plugins import require_toolchain

from gateway.cli.plugin_author import _LANGUAGES

PAGE = (REPOSITORY / "docs" / "plugin-tutorial.md").read_text()
_FOUND = re.findall(r"^```[a-z]+ ([a-z-]+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
BLOCKS: dict[str, str] = dict(_FOUND)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")


class Reader:
    """Somebody who follows the page in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}

    def text(self, block: str) -> str:
        """A block, with this gateway's ports and password in the place of the page's."""
        text = BLOCKS[block].replace("choose-a-long-one", PASSWORD)
        for said, port in self.ports.items():
            text = text.replace(said, str(port))
        return text

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
        return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, *blocks: str) -> str:
        script = "set -eu -o pipefail\n" + "".join(self.text(block) for block in blocks)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{blocks}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, block: str, log: Path) -> Iterator[None]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.text(block)}"], cwd=self.folder, env=self.environment(), stdout=output
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


def test_every_language_has_its_commands() -> None:
    assert set(_LANGUAGES) < set(BLOCKS)
    assert len(BLOCKS) == len(_FOUND), "two blocks have one name"
    assert BLOCKS["run"].endswith("gateway run\n")


@pytest.mark.parametrize("language", _LANGUAGES)
def test_a_reader_gets_from_nothing_to_live_frames(language: str, tmp_path: Path) -> None:
    require_toolchain(language)
    reader = Reader(tmp_path)
    of_language = f"-{language}"

    told = reader.run("place", language)
    for line in BLOCKS["decoded"].splitlines():
        assert line in told
    assert "vectors pass" in told
    assert re.search(r"^[1-9][\d,]* damaged inputs", told, re.MULTILINE)

    config = tmp_path / "config.toml"
    config.write_text(BLOCKS["config"] + BLOCKS.get(f"config{of_language}", ""))
    if f"install{of_language}" in BLOCKS:
        reader.run(f"install{of_language}")

    with GatewayProcess(tmp_path / "data", config, GATEWAY__LISTENERS__METER__PORT="0") as gateway:
        reader.ports = {"8080": gateway.ports["http"]["port"], "9100": gateway.ports["meter"]["port"]}
        (tmp_path / "sensor.py").write_text(reader.text(_for(language, "sensor", block="sensor-js")))
        received = tmp_path / "received"
        with reader.running("start-sensor", received):
            look = _for(language, "look", block="look-js")
            shown = eventually(lambda: "21.5" in (answer := reader.run("login", look)) and answer)
            assert '"temperature"' in shown
            assert "3012" in shown

            if language == "js":
                assert '"sent"' in reader.run("login", "tell-js")
                eventually(lambda: received.read_text().strip() == "70b3d57ed0061a020a0258")
                return
            eventually(lambda: received.read_text().startswith("0581000701"))  # acknowledged once it was stored
            reader.run("login", "tell")
            eventually(lambda: '"acknowledged"' in reader.run("login", "told"))
            assert re.search(r"^08820007....0258..$", received.read_text(), re.MULTILINE)


def _for(language: str, usual: str, *, block: str) -> str:
    return block if language == "js" else usual
