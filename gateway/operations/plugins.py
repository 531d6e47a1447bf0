"""Installed plugins from the command line, whether the gateway runs or not: a running one follows the area's files.

A version is judged here before it is decided for, with the grants that it will have; nothing is started for good.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from gateway.app.desk import configured_users
from gateway.app.gateway import private
from gateway.config import Loaded
from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError, Conflict, NotFound
from gateway.wasm.area import Decisions, Installed, PluginArea
from gateway.wasm.loader import Loader, Refusal, Verdict
from gateway.wasm.manifest import Capability, load_manifest
from gateway.wasm.plugins import PluginHost
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.status import PluginStatus
from gateway.wasm.versions import PluginSources


class InstallReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation did. `missing` are capabilities that a person must grant before the version runs."""

    installed: Installed
    active: bool
    missing: tuple[str, ...] = ()


def plugin_area(loaded: Loaded) -> PluginArea:
    """The configuration's area. Raises ConfigError."""
    return PluginArea.open(loaded.config.plugins, private(loaded.path(loaded.config.server.data_dir)))


def list_plugins(loaded: Loaded) -> list[PluginStatus]:
    """Every plugin as a start would find it; all are loaded, and let go again."""
    host = PluginHost(loaded.config.wasm, _dirs(loaded), None, area=plugin_area(loaded))
    try:
        return host.load_all()
    finally:
        host.close()


def install(loaded: Loaded, package: Path, *, activate: bool = True) -> InstallReport:
    """Install a package and decide for it, if it keeps its promises; one that does not is not kept.

    Raises Rejected, Conflict, StorageFailed, or ConfigError saying what fails.
    """
    area = plugin_area(loaded)
    before = {(plugin_id, one.version) for plugin_id in area.ids() for one in area.versions(plugin_id)}
    ran = {survey.id: survey.preferred() for survey in PluginSources(_dirs(loaded), area).survey_all()}
    installed = area.install(package)
    plugin_id, version = installed.id, installed.version
    decided = area.decisions(plugin_id)
    if not activate:
        _leave_as_it_is(loaded, area, installed, decided)
        return InstallReport(installed=installed, active=decided.active == version)
    verdict = _judge(loaded, area, installed)
    if isinstance(verdict, Refusal) and verdict.state != "waiting":
        if (plugin_id, version) not in before:
            area.remove(plugin_id, version)
        raise ConfigError(f"{plugin_id} {version} is not installed: {verdict.reason}")
    last = next((one.version for one in ran.get(plugin_id, ())), None)  # a folder's version is a way back, too
    previous = decided.previous if last in {None, version} else last
    area.decide(plugin_id, msgspec.structs.replace(decided, active=version, previous=previous, disabled=False))
    missing = verdict.missing if isinstance(verdict, Refusal) else ()
    return InstallReport(installed=installed, active=not missing, missing=missing)


def grant(loaded: Loaded, plugin_id: str, caps: tuple[Capability, ...], *, only: bool = False) -> Decisions:
    """Let a plugin use capabilities beyond the default ones; `only`: these, and none that were granted before.

    Raises Conflict where the configuration decides, NotFound for what cannot be an id, StorageFailed.
    """
    area = plugin_area(loaded)
    if plugin_id in loaded.config.wasm.grants:
        raise Conflict(f"[wasm.grants] says what {plugin_id} may use; change it there, or take the entry out")
    if not PluginSources(_dirs(loaded), area).survey(plugin_id).found:
        raise NotFound(f"no plugin {plugin_id!r}; see: gateway plugin list")
    decided = area.decisions(plugin_id)
    granted = {*caps} if only else {*(decided.granted or ()), *caps}
    after = msgspec.structs.replace(decided, granted=tuple(sorted(granted)) or None)
    area.decide(plugin_id, after)
    return after


def roll_back(loaded: Loaded, plugin_id: str) -> Decisions:
    """Decide for the version before. Raises NotFound where there is none, StorageFailed."""
    area = plugin_area(loaded)
    decided = area.decisions(plugin_id)
    sources = PluginSources(_dirs(loaded), area).survey(plugin_id)
    found = None if decided.previous is None else sources.version(decided.previous)
    if found is None:
        raise NotFound(f"plugin {plugin_id!r} has no version to go back to; see: gateway plugin list")
    active = found.version if found.source == "installed" else None
    leaving = sources.preferred()[0].version  # also where none was named: the folder's
    after = msgspec.structs.replace(decided, active=active, previous=leaving, disabled=False)
    area.decide(plugin_id, after)
    return after


def remove(loaded: Loaded, plugin_id: str, version: str | None) -> None:
    """Remove a version, or the whole installed plugin. Raises NotFound, Conflict for what is in use, StorageFailed."""
    area = plugin_area(loaded)
    if version is None:
        sources = PluginSources(_dirs(loaded), area)
        users = _users(loaded, sources, plugin_id)
        if users and sources.survey(plugin_id).in_folder is None:
            raise Conflict(f"plugin {plugin_id} is used by {', '.join(users)}; change that first")
        area.forget(plugin_id)
    elif area.decisions(plugin_id).active == version:
        raise Conflict(f"{plugin_id} {version} is the active version; roll back or install another one first")
    else:
        area.remove(plugin_id, version)


def _users(loaded: Loaded, sources: PluginSources, plugin_id: str) -> list[str]:
    """Products, stages and channels of the configuration, and scripts, that need the plugin."""
    products = sorted(name for name, product in loaded.config.products.items() if product.plugin == plugin_id)
    users = [f"product {name}" for name in products] + configured_users(loaded.config).get(plugin_id, [])
    for survey in sources.survey_all():
        with suppress(ConfigError):  # one that cannot be read runs nothing
            runs = survey.preferred()[:1]
            users += [f"plugin {one.id}" for one in runs if load_manifest(one.folder).runtime == plugin_id]
    return users


def _leave_as_it_is(loaded: Loaded, area: PluginArea, installed: Installed, decided: Decisions) -> None:
    """Let a version that is only kept not run by itself: name the one that does, or let none."""
    if decided.active is not None:
        return
    survey = PluginSources(_dirs(loaded), area).survey(installed.id)
    others = [one for one in survey.found if one.version != installed.version]
    if survey.in_folder is None and others:
        area.decide(installed.id, msgspec.structs.replace(decided, active=others[-1].version))
    elif survey.in_folder is None:
        area.decide(installed.id, msgspec.structs.replace(decided, disabled=True))


def _judge(loaded: Loaded, area: PluginArea, installed: Installed) -> Verdict:
    """Read, compile and prove an installed version, as the gateway would."""
    wasm, sources = loaded.config.wasm, PluginSources(_dirs(loaded), area)

    def granted(plugin_id: str) -> frozenset[str]:
        if plugin_id in wasm.grants:
            return frozenset(wasm.grants[plugin_id])
        return frozenset({*wasm.default_grants, *(area.decisions(plugin_id).granted or ())})

    def runtime(plugin_id: str) -> Release:
        preferred = sources.survey(plugin_id).preferred()
        if not preferred:
            raise ConfigError(f"its runtime {plugin_id!r} is not among the plugins; install it first")
        return read_release(preferred[0].folder, wasm, _no_runtime)

    found = sources.survey(installed.id).version(installed.version)
    if found is None:
        raise NotFound(f"{installed.id} {installed.version} was removed meanwhile")
    sandbox = Sandbox(wasm)
    starter = Starter(wasm, SystemClock(), granted)
    loader = Loader(wasm, starter, sandbox, lambda: Sandbox(wasm), runtime=runtime, granted=granted)
    try:
        return loader.judge(found)
    finally:
        loader.close()
        sandbox.close()


def _dirs(loaded: Loaded) -> list[Path]:
    return [loaded.path(path) for path in loaded.config.plugins.dirs]


def _no_runtime(plugin_id: str) -> Release:
    raise ConfigError(f"a runtime cannot have a runtime of its own ({plugin_id!r})")
