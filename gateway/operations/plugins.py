"""Installed plugins from the command line, whether the gateway runs or not: a running one follows the area's files.

A version is proved here before it is decided for, with the grants that it will have; nothing is started for good.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import wasmtime

from gateway.app.gateway import private
from gateway.config import Loaded
from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError, Conflict, GatewayError, NotFound
from gateway.wasm.area import Decisions, Installed, PluginArea
from gateway.wasm.manifest import Capability, load_manifest
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox


class InstallReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation did. `missing` are capabilities that a person must grant before the version runs."""

    installed: Installed
    active: bool
    missing: tuple[str, ...] = ()


def plugin_area(loaded: Loaded) -> PluginArea:
    """The configuration's area. Raises ConfigError."""
    return PluginArea.open(loaded.config.plugins, private(loaded.path(loaded.config.server.data_dir)))


def install(loaded: Loaded, package: Path, *, activate: bool = True) -> InstallReport:
    """Install a package and decide for it, if it keeps its promises; one that does not is not kept.

    Raises Rejected, Conflict, StorageFailed, and ConfigError or CodecError saying what fails.
    """
    area = plugin_area(loaded)
    known = _all_versions(area)
    installed = area.install(package)
    if not activate:
        return InstallReport(installed=installed, active=area.decisions(installed.id).active == installed.version)
    missing = _missing(loaded, area, installed)
    if not missing:
        try:
            prove(loaded, area, installed)
        except GatewayError:
            if (installed.id, installed.version) not in known:
                area.remove(installed.id, installed.version)
            raise
    _decide_for(area, installed.id, installed.version)
    return InstallReport(installed=installed, active=not missing, missing=missing)


def grant(loaded: Loaded, plugin_id: str, caps: tuple[Capability, ...]) -> Decisions:
    """Let an installed plugin use capabilities beyond the default ones. Raises NotFound, Conflict, StorageFailed."""
    area = plugin_area(loaded)
    if plugin_id in loaded.config.wasm.grants:
        raise Conflict(f"[wasm.grants] says what {plugin_id} may use; change it there, or take the entry out")
    decided = area.decisions(plugin_id)
    granted = tuple(sorted({*(decided.granted or ()), *caps}))
    after = msgspec.structs.replace(decided, granted=granted)
    area.decide(plugin_id, after)
    return after


def roll_back(loaded: Loaded, plugin_id: str) -> Decisions:
    """Decide for the version before. Raises NotFound where there is none, StorageFailed."""
    area = plugin_area(loaded)
    decided = area.decisions(plugin_id)
    if decided.previous is None:
        raise NotFound(f"plugin {plugin_id!r} has no version to go back to; see: gateway plugin list")
    after = msgspec.structs.replace(decided, active=decided.previous, previous=decided.active, disabled=False)
    area.decide(plugin_id, after)
    return after


def remove(loaded: Loaded, plugin_id: str, version: str | None) -> None:
    """Remove a version, or the whole installed plugin. Raises NotFound, Conflict for what is in use, StorageFailed."""
    area = plugin_area(loaded)
    if version is None:
        users = [name for name, product in loaded.config.products.items() if product.plugin == plugin_id]
        if users and plugin_id not in _in_folders(loaded):
            raise Conflict(f"plugin {plugin_id} is used by product {', '.join(sorted(users))}; change [products] first")
        area.forget(plugin_id)
    elif area.decisions(plugin_id).active == version:
        raise Conflict(f"{plugin_id} {version} is the active version; roll back or install another one first")
    else:
        area.remove(plugin_id, version)


def prove(loaded: Loaded, area: PluginArea, installed: Installed) -> None:
    """Start an installed version and run its vectors. Raises ConfigError, CodecError, saying what fails."""
    wasm = loaded.config.wasm

    def runtime(plugin_id: str) -> Release:
        return read_release(_runtime_folder(loaded, area, plugin_id), wasm, _no_runtime)

    granted = _granted(loaded, area, installed.id)
    starter = Starter(wasm, SystemClock(), lambda _id: granted)
    sandbox = Sandbox(wasm)
    try:
        results = starter.prove(read_release(installed.folder, wasm, runtime), sandbox)
    except wasmtime.WasmtimeError as error:
        raise ConfigError(f"{installed.id} {installed.version}: the module is not valid") from error
    finally:
        sandbox.close()
    failed = [result for result in results if not result.ok]
    if failed:
        raise ConfigError(f"{len(failed)} test vectors fail; {failed[0].name}: {failed[0].detail}")


def _decide_for(area: PluginArea, plugin_id: str, version: str) -> None:
    decided = area.decisions(plugin_id)
    previous = decided.previous if decided.active == version else decided.active
    area.decide(plugin_id, msgspec.structs.replace(decided, active=version, previous=previous, disabled=False))


def _missing(loaded: Loaded, area: PluginArea, installed: Installed) -> tuple[str, ...]:
    asked = load_manifest(installed.folder).caps.asked()
    return tuple(sorted(asked - _granted(loaded, area, installed.id)))


def _granted(loaded: Loaded, area: PluginArea, plugin_id: str) -> frozenset[str]:
    wasm = loaded.config.wasm
    if plugin_id in wasm.grants:
        return frozenset(wasm.grants[plugin_id])
    return frozenset({*wasm.default_grants, *(area.decisions(plugin_id).granted or ())})


def _all_versions(area: PluginArea) -> set[tuple[str, str]]:
    return {(plugin_id, found.version) for plugin_id in area.ids() for found in area.versions(plugin_id)}


def _in_folders(loaded: Loaded) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for root in loaded.config.plugins.dirs:
        for path in loaded.path(root).glob("*/plugin.toml"):
            folders.setdefault(path.parent.name, path.parent)
    return folders


def _runtime_folder(loaded: Loaded, area: PluginArea, plugin_id: str) -> Path:
    active = area.decisions(plugin_id).active
    versions = {found.version: found.folder for found in area.versions(plugin_id)}
    newest = next(reversed(versions.values()), None)
    folder = versions.get(active or "") or _in_folders(loaded).get(plugin_id) or newest
    if folder is None:
        raise ConfigError(f"its runtime {plugin_id!r} is not among the plugins; install it first")
    return folder


def _no_runtime(plugin_id: str) -> Release:
    raise ConfigError(f"a runtime cannot have a runtime of its own ({plugin_id!r})")
