"""Where shipped plugins, SDKs and templates lie: in a checkout, or inside the installed package. Reads none."""

from __future__ import annotations

from pathlib import Path

import gateway


def shipped_plugins() -> Path:
    """The folder of the shipped plugins, with `sdk/` in it."""
    package = Path(gateway.__file__).resolve().parent
    installed = package / "shipped" / "plugins"
    return installed if installed.is_dir() else package.parent / "plugins"
