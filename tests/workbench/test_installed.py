"""The wheel, installed away from any checkout: everything an author needs is in it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_plugins import require_toolchain

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="needs hatchling to build the wheel: make setup"
)


def python(*arguments: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_new_build_and_test_work_from_the_wheel_where_there_is_no_configuration(tmp_path: Path) -> None:
    require_toolchain("c")
    quiet = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    alone = ("--no-deps", "--no-index", "--no-cache-dir")
    wheels, site, work = tmp_path / "wheels", tmp_path / "site", tmp_path / "work"
    work.mkdir()
    python(*quiet, "wheel", *alone, "--no-build-isolation", "--wheel-dir", str(wheels), ".", cwd=REPOSITORY)
    (wheel,) = wheels.glob("flux_gateway-*.whl")
    python(*quiet, "install", *alone, "--target", str(site), str(wheel), cwd=tmp_path)

    def gateway(*arguments: str) -> str:
        return python("-m", "gateway", *arguments, cwd=work, PYTHONPATH=str(site))

    where = python("-c", "import gateway; print(gateway.__file__)", cwd=work, PYTHONPATH=str(site)).strip()
    assert Path(where) == site / "gateway" / "__init__.py"
    assert (site / "gateway" / "shipped" / "plugins" / "jt808" / "plugin.toml").is_file()

    for language in ("c", "zig", "as", "go", "rust", "js"):
        assert "made " in gateway("plugin", "new", "--lang", language, f"sensor-{language}")
    assert gateway("plugin", "build", "sensor-c") == f"built {work / 'sensor-c' / 'sensor-c.wasm'}\n"
    assert "85 of 85 vectors pass" in gateway("plugin", "test", "sensor-c", "--seconds", "0.2")
    # A shipped plugin is built where it lies, from the headers that came with it.
    shipped = site / "gateway" / "shipped" / "plugins" / "sm3" / "sm3.wasm"
    shipped.unlink(missing_ok=True)
    assert gateway("plugin", "build", shipped.stem) == f"built {shipped}\n"
