"""Where plugins, SDKs and templates lie: in a checkout, inside the installed package, or where the author says."""

from __future__ import annotations

from pathlib import Path

import gateway
from gateway.core.errors import ConfigError
from gateway.wasm.manifest import MANIFEST_NAME


def shipped_plugins() -> Path:
    """The folder of the shipped plugins, with `sdk/` in it."""
    package = Path(gateway.__file__).resolve().parent
    installed = package / "shipped" / "plugins"
    return installed if installed.is_dir() else package.parent / "plugins"


def plugin_folder(target: str, root: Path) -> Path:
    """The folder of a plugin by its path, or by its id below `root` or among the shipped ones. Raises ConfigError."""
    for place in (Path(target), root / target, shipped_plugins() / target):
        if (place / MANIFEST_NAME).is_file():
            return place.resolve()
    raise ConfigError(
        f"no plugin {target!r}: it is neither a folder with a {MANIFEST_NAME}, nor one below {root}, nor shipped"
    )
