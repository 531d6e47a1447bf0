"""The plugins as the API shows, changes and tries them: the host and the installed area behind one port.

Owns the order of an installation: kept first, then run, taken away again where it fails. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

import msgspec
from typing_extensions import override

from gateway.api.plugin_port import (
    InstalledPackage,
    PluginDetail,
    Plugins,
    PluginStatus,
    ShadowStatus,
    TriedFrame,
    TriedInput,
    TriedTimings,
    TriedWhole,
)
from gateway.app.desk_views import detail_view, outcome_view, shadow_view, status_view, tried_view
from gateway.config import GatewayConfig
from gateway.core.errors import ConfigError, Conflict, NotFound, Rejected
from gateway.core.metrics import Sample
from gateway.core.scope import DEFAULT_TENANT
from gateway.things.catalog import Catalog
from gateway.things.normalise import Normaliser
from gateway.wasm.area import Installed, PluginArea
from gateway.wasm.manifest import Capability
from gateway.wasm.plugins import PluginHost
from gateway.wasm.trial import Trial

_SLICE_FRAMES: Final = 256
"""Frames whose results are held at the same time."""
_MOST_ANSWER_BYTES: Final = 1 << 20
"""What a called plugin may answer to a person; it becomes JSON on the loop."""


class PluginDesk(Plugins):
    """Adapts the plugin host to the API's port."""

    def __init__(
        self,
        host: PluginHost,
        area: PluginArea,
        catalog: Catalog,
        configured: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Wire the host, where its packages lie, and who uses plugins.

        configured: what the configuration makes of plugins beside products, by the plugin's id.
        """
        self._configured = configured or {}
        self.max_package_bytes = area.limits.max_package_bytes
        self._host = host
        self._area = area
        self._catalog = catalog
        self._installing = asyncio.Lock()

    def samples(self) -> Iterator[Sample]:
        """Figures of every plugin for `/metrics`."""
        yield from self._host.samples()

    @override
    def plugins(self) -> list[PluginStatus]:
        return [status_view(status) for status in self._host.plugins()]

    @override
    def plugin(self, plugin_id: str) -> PluginDetail:
        return detail_view(self._host.status(plugin_id), self._users(plugin_id, DEFAULT_TENANT))

    # -- trying ---------------------------------------------------------------------------------------------------

    @override
    async def try_decode(self, plugin_id: str, inputs: list[bytes]) -> list[TriedInput]:
        def work(trial: Trial) -> list[TriedInput]:
            return [_decoded(trial, data) for data in inputs]

        with _refusing():
            return await self._host.on_trial(plugin_id, work)

    @override
    async def try_encode(self, plugin_id: str, request: dict[str, Any]) -> bytes:
        packed = msgspec.msgpack.encode(request)
        with _refusing():
            return await self._host.on_trial(plugin_id, lambda trial: trial.encode(packed))

    @override
    async def try_whole(
        self, plugin_id: str, inputs: list[bytes], aux: int, normaliser: Normaliser | None
    ) -> list[TriedWhole]:
        def work(trial: Trial) -> list[TriedWhole]:
            return [_whole(trial, data, aux, normaliser) for data in inputs]

        with _refusing():
            return await self._host.on_trial(plugin_id, work)

    @override
    async def call(self, plugin_id: str, args: dict[str, Any], timeout_s: float) -> Any:
        return await self._host.call(plugin_id, args, timeout_s=timeout_s, most_bytes=_MOST_ANSWER_BYTES)

    # -- packages -------------------------------------------------------------------------------------------------

    @override
    async def install(self, package: bytes, *, activate: bool) -> InstalledPackage:
        async with self._installing:
            installed, is_new = await asyncio.to_thread(self._keep, package)
            plugin_id, version = installed.id, installed.version
            waiting = done = False
            try:
                await self._host.discover(plugin_id)
                if activate:
                    status = await self._host.activate(plugin_id, version)
                    waiting = status.waiting is not None and status.waiting.version == version
                else:
                    await self._leave_as_it_is(plugin_id, version)
                done = True
            except ConfigError as failure:
                raise Rejected(str(failure)) from failure
            finally:  # also where the client went away: what nobody was told of is not kept
                if is_new and not done:
                    await self._take_back(plugin_id, version)
        return InstalledPackage(
            id=plugin_id, version=version, sha256=installed.sha256, signed_by=installed.signed_by, waiting=waiting
        )

    def _keep(self, package: bytes) -> tuple[Installed, bool]:
        """Put a package into the area; whether its version was not there before. Waits for the disk."""
        before = {(plugin_id, one.version) for plugin_id in self._area.ids() for one in self._area.versions(plugin_id)}
        installed = self._area.install(package)
        return installed, (installed.id, installed.version) not in before

    async def _take_back(self, plugin_id: str, version: str) -> None:
        """Remove a version that was kept just now, whether the host got to know of it or not."""
        try:
            await self._host.remove(plugin_id, version)
        except NotFound:
            await asyncio.to_thread(self._area.remove, plugin_id, version)

    async def _leave_as_it_is(self, plugin_id: str, version: str) -> None:
        """Let a version that was only kept not run by itself, now or after a restart."""
        status = self._host.status(plugin_id)
        others = [one for one in status.versions if one.version != version or one.source == "folder"]
        if not others and status.state != "running":
            await self._host.disable(plugin_id)
        elif status.source == "installed" and status.state == "running" and status.version != version:
            await self._host.activate(plugin_id, status.version)

    @override
    async def remove(self, plugin_id: str) -> None:
        status = self._host.status(plugin_id)
        if not any(one.source == "folder" for one in status.versions):
            self._check_unused(plugin_id)
        await self._host.remove(plugin_id)

    @override
    async def remove_version(self, plugin_id: str, version: str) -> None:
        await self._host.remove(plugin_id, version)

    # -- decisions ------------------------------------------------------------------------------------------------

    @override
    async def grant(self, plugin_id: str, caps: Sequence[Capability]) -> PluginDetail:
        await self._host.grant(plugin_id, caps)
        return self.plugin(plugin_id)

    @override
    async def revoke(self, plugin_id: str) -> PluginDetail:
        await self._host.revoke(plugin_id)
        return self.plugin(plugin_id)

    @override
    async def activate(self, plugin_id: str, version: str) -> PluginDetail:
        with _refusing():
            await self._host.activate(plugin_id, version)
        return self.plugin(plugin_id)

    @override
    async def roll_back(self, plugin_id: str) -> PluginDetail:
        with _refusing():
            await self._host.rollback(plugin_id)
        return self.plugin(plugin_id)

    @override
    async def disable(self, plugin_id: str) -> PluginDetail:
        await self._host.disable(plugin_id)
        return self.plugin(plugin_id)

    @override
    async def enable(self, plugin_id: str) -> PluginDetail:
        await self._host.enable(plugin_id)
        return self.plugin(plugin_id)

    @override
    async def shadow(self, plugin_id: str, version: str, minutes: float) -> PluginDetail:
        with _refusing():
            await self._host.shadow(plugin_id, version, minutes)
        return self.plugin(plugin_id)

    @override
    async def stop_shadow(self, plugin_id: str) -> PluginDetail:
        self._host.stop_shadow(plugin_id)
        return self.plugin(plugin_id)

    @override
    def shadow_report(self, plugin_id: str) -> ShadowStatus:
        report = self._host.shadow_report(plugin_id)
        if report is None:
            raise NotFound(f"plugin {plugin_id} had no version in shadow; start one with POST")
        return shadow_view(report)

    @override
    async def promote(self, plugin_id: str) -> PluginDetail:
        with _refusing():
            await self._host.promote(plugin_id)
        return self.plugin(plugin_id)

    # -- who uses it ----------------------------------------------------------------------------------------------

    def _users(self, plugin_id: str, tenant_id: str) -> list[str]:
        products = self._catalog.products_of_plugin(plugin_id)
        return sorted(product.id for product in products if product.tenant_id == tenant_id)

    def _check_unused(self, plugin_id: str) -> None:
        """Raise Conflict while a product, a stage, a channel or another plugin's script needs the plugin."""
        users = [f"product {name}" for name in self._users(plugin_id, DEFAULT_TENANT)]
        if not users and self._catalog.products_of_plugin(plugin_id):
            users = ["a product of another tenant"]
        users += self._configured.get(plugin_id, ())
        users += [f"plugin {one.id}" for one in self._host.plugins() if self._runtime_of(one.id) == plugin_id]
        if users:
            raise Conflict(
                f"plugin {plugin_id} is used by {', '.join(users)}; change that first, or disable the plugin"
            )

    def _runtime_of(self, plugin_id: str) -> str | None:
        try:
            return self._host.manifest(plugin_id).runtime
        except ConfigError:
            return None


def configured_users(config: GatewayConfig) -> dict[str, list[str]]:
    """Stages and notification channels by the plugin that they name."""
    users: dict[str, list[str]] = {}
    for name, stage in config.stages.items():
        users.setdefault(stage.plugin, []).append(f"stage {name}")
    for name, channel in config.notify.items():
        if channel.get("type") == "plugin":
            users.setdefault(str(channel.get("plugin")), []).append(f"notification channel {name}")
    return users


@contextmanager
def _refusing() -> Iterator[None]:
    """Restate what is wrong with a plugin as a refusal of what was asked."""
    try:
        yield
    except ConfigError as failure:
        raise Rejected(str(failure)) from failure


def _decoded(trial: Trial, data: bytes) -> TriedInput:
    """One input's frames and what the codec makes of them."""
    frames = [outcome_view(one) for part in trial.decode(data, _SLICE_FRAMES) for one in part]
    return TriedInput(frames, trial.skipped)


def _whole(trial: Trial, data: bytes, aux: int, normaliser: Normaliser | None) -> TriedWhole:
    """One input's whole way, in slices: the results of one are held at a time."""
    began = perf_counter()
    frames, rest = trial.framed(data)
    framing_s, decode_s, normalise_s = perf_counter() - began, 0.0, 0.0
    shown: list[TriedFrame] = []
    for at in range(0, len(frames), _SLICE_FRAMES):
        part = frames[at : at + _SLICE_FRAMES]
        began = perf_counter()
        results = trial.results(part, aux)
        decode_s += perf_counter() - began
        for frame, result in zip(part, results, strict=True):
            one, took_s = tried_view(frame, result, normaliser)
            normalise_s += took_s
            shown.append(one)
    return TriedWhole(
        frames=shown,
        timings=TriedTimings(*(round(seconds * 1e6, 1) for seconds in (framing_s, decode_s, normalise_s))),
        rest="" if rest is None else outcome_view(rest).error,
        skipped=trial.skipped,
    )
