"""The API port to plugins over memory: one codec in a folder, and packages that say what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from gateway.api.plugin_port import (
    CapsStatus,
    FrameOutcome,
    InstalledPackage,
    PluginDetail,
    Plugins,
    PluginStatus,
    ShadowDifference,
    ShadowStatus,
    ShadowSummary,
    TriedFrame,
    TriedInput,
    TriedPoint,
    TriedTimings,
    TriedWhole,
    VersionStatus,
    WaitingStatus,
)
from gateway.core.errors import CodecError, Conflict, NotFound, Rejected
from gateway.things.normalise import Normaliser

BYTES = PluginDetail(id="bytes", version="1.0.0", kind="codec", state="running", counters={"frames": 3})


class FakePlugins(Plugins):
    """`bytes`: every byte is a frame, zero is dropped, 0xff is a checksum fault, and 0x7e is skipped.

    A package is text: `<id> <version> [waiting|refused|conflict]`.
    """

    def __init__(self) -> None:
        self.max_package_bytes = 1 << 20
        self.known: dict[str, PluginDetail] = {"bytes": BYTES}
        self.activated: list[bool] = []
        self.granted: list[str] = []
        self.reports: dict[str, ShadowStatus] = {}

    def plugins(self) -> list[PluginStatus]:
        return [
            PluginStatus(id=one.id, version=one.version, kind=one.kind, state=one.state, counters=one.counters)
            for one in self.known.values()
        ]

    def plugin(self, plugin_id: str) -> PluginDetail:
        if plugin_id not in self.known:
            raise NotFound(f"no plugin {plugin_id!r}")
        return self.known[plugin_id]

    async def try_decode(self, plugin_id: str, inputs: list[bytes]) -> list[TriedInput]:
        self.plugin(plugin_id)
        return [TriedInput([self._outcome(byte) for byte in data if byte != 0x7E], data.count(0x7E)) for data in inputs]

    async def try_encode(self, plugin_id: str, request: dict[str, Any]) -> bytes:
        if request["command"] != "beep":
            raise CodecError(5, "unsupported")
        return b"\x01\x02"

    async def try_whole(
        self, plugin_id: str, inputs: list[bytes], aux: int, normaliser: Normaliser | None
    ) -> list[TriedWhole]:
        self.plugin(plugin_id)
        point = TriedPoint(None, {"aux": aux}, {}, 0)
        frame = TriedFrame(frame="01", ok=True, item={"kind": "report"})
        shown = frame if normaliser is None else replace(frame, normalised=[point])
        return [TriedWhole(frames=[shown], timings=TriedTimings(1.0, 2.0, 3.0)) for _ in inputs]

    async def call(self, plugin_id: str, args: dict[str, Any], timeout_s: float) -> Any:
        self.plugin(plugin_id)
        return {"args": args, "bytes": b"\xab"}

    async def install(self, package: bytes, *, activate: bool) -> InstalledPackage:
        plugin_id, version, *fate = package.decode().split()
        if fate == ["refused"]:
            raise Rejected("2 test vectors fail")
        if fate == ["conflict"]:
            raise Conflict("installed with other content")
        self.activated.append(activate)
        waiting = WaitingStatus(version, ["wasi"]) if fate == ["waiting"] else None
        kept = VersionStatus(version=version, source="installed", in_use=activate and waiting is None)
        self.known[plugin_id] = replace(
            BYTES, id=plugin_id, version=version, versions=[kept], waiting=waiting, caps=CapsStatus([], [], [])
        )
        return InstalledPackage(
            id=plugin_id, version=version, sha256="00", signed_by="", waiting=activate and waiting is not None
        )

    async def remove(self, plugin_id: str) -> None:
        self.plugin(plugin_id)
        if plugin_id == "bytes":
            raise Conflict("product meter uses it")
        del self.known[plugin_id]

    async def remove_version(self, plugin_id: str, version: str) -> None:
        if self.plugin(plugin_id).version == version:
            raise Conflict("it is the version in use")

    async def grant(self, plugin_id: str, caps: Sequence[str]) -> PluginDetail:
        self.granted += caps
        return self.plugin(plugin_id)

    async def revoke(self, plugin_id: str) -> PluginDetail:
        self.granted.clear()
        return self.plugin(plugin_id)

    async def activate(self, plugin_id: str, version: str) -> PluginDetail:
        return self._now(plugin_id, version=version)

    async def roll_back(self, plugin_id: str) -> PluginDetail:
        if self.plugin(plugin_id).previous is None:
            raise Conflict("no version to go back to")
        return self._now(plugin_id, version=self.plugin(plugin_id).previous)

    async def disable(self, plugin_id: str) -> PluginDetail:
        return self._now(plugin_id, state="disabled")

    async def enable(self, plugin_id: str) -> PluginDetail:
        return self._now(plugin_id, state="running")

    async def shadow(self, plugin_id: str, version: str, minutes: float) -> PluginDetail:
        self.plugin(plugin_id)
        difference = ShadowDifference(
            at="2026-01-01T00:00:01Z", frame="01", aux=0, kinds=["value"], live={"a": 1}, candidate=3
        )
        self.reports[plugin_id] = ShadowStatus(
            version=version,
            against="1.0.0",
            running=True,
            ended="",
            started_at="2026-01-01T00:00:00Z",
            ends_at="2026-01-01T00:10:00Z",
            frames=2,
            same=1,
            different=1,
            dropped=0,
            failed=0,
            traps=0,
            kills=0,
            live_us=1.0,
            candidate_us=2.0,
            kinds={"value": 1},
            differences=[difference],
        )
        return self._now(plugin_id, shadow=ShadowSummary(version, running=True, frames=2, different=1, dropped=0))

    async def stop_shadow(self, plugin_id: str) -> PluginDetail:
        report = self.shadow_report(plugin_id)
        self.reports[plugin_id] = replace(report, running=False, ended="somebody stopped it")
        return self._now(plugin_id, shadow=ShadowSummary(report.version, False, 2, 1, 0))

    def shadow_report(self, plugin_id: str) -> ShadowStatus:
        if self.plugin(plugin_id).id not in self.reports:
            raise NotFound(f"plugin {plugin_id} has no shadow")
        return self.reports[plugin_id]

    async def promote(self, plugin_id: str) -> PluginDetail:
        return self._now(plugin_id, version=self.shadow_report(plugin_id).version)

    def _now(self, plugin_id: str, **changes: Any) -> PluginDetail:
        self.known[plugin_id] = replace(self.plugin(plugin_id), **changes)
        return self.known[plugin_id]

    def _outcome(self, byte: int) -> FrameOutcome:
        if byte == 0:
            return FrameOutcome()
        if byte == 0xFF:
            return FrameOutcome(code=3)
        return FrameOutcome(value={"byte": byte, "raw": b"\xaa", "nan": float("nan"), 7: [b"\xbb"]})
