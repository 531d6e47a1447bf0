"""New plugins of every language, for tests that build them; a compiler is fetched where it is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from gateway.core.errors import ConfigError
from gateway.workbench import toolchains
from gateway.workbench.templates import Template

TOOLCHAINS: dict[str, Callable[[toolchains.Tell], toolchains.Toolchain]] = {
    "c": toolchains.zig,
    "zig": toolchains.zig,
    "as": toolchains.assemblyscript,
    "go": toolchains.go,
    "rust": toolchains.rust,
    "js": toolchains.zig,  # of its runtime
}

Made: TypeAlias = Callable[[Template], Path]


def require_toolchain(language: str) -> None:
    """Skip, saying what to run, where a compiler is missing and cannot be fetched; in CI that is a failure."""
    try:
        TOOLCHAINS[language](lambda _line: None)
    except ConfigError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
