"""What the API needs of the plugin host, and how plugins look to its clients. Knows no host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from gateway.things.normalise import Normaliser
from gateway.wasm.manifest import Capability


class PluginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin. `state` is a stable word (`running`, `refused`, ...), `detail` says why and what to do.

    source: `folder` for one of `[plugins] dirs`, `installed` for a package. signed_by: a trusted key's name,
    `unknown key <id>`, or empty.
    """

    id: str
    version: str
    kind: str
    state: str
    detail: str = ""
    description: str = ""
    source: str = ""
    signed_by: str = ""
    counters: dict[str, float] = {}


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A version that lies ready. `refused` says why it may not run; `sha256` is that of its package."""

    version: str
    source: Literal["folder", "installed"]
    in_use: bool = False
    sha256: str = ""
    signed_by: str = ""
    trusted: bool = False
    refused: str = ""


class CapsStatus(msgspec.Struct, frozen=True):
    """Capabilities that the manifest asks for, those that the operator allows, and those that are asked in vain."""

    asked: list[str]
    granted: list[str]
    missing: list[str]


class WaitingStatus(msgspec.Struct, frozen=True):
    """A version that runs as soon as what it misses is granted."""

    version: str
    missing: list[str]


class QuarantineStatus(msgspec.Struct, frozen=True):
    """A plugin that failed too often; it is tried again at `until`."""

    until: str
    reason: str
    times: int


class FailureStatus(msgspec.Struct, frozen=True):
    """The last version that was not taken; the one before it went on."""

    version: str
    reason: str
    at: str


class HandoverStatus(msgspec.Struct, frozen=True):
    """What became of the state of the version before: `carried`, or `fresh` and why."""

    outcome: Literal["carried", "fresh"]
    reason: str = ""


class ShadowSummary(msgspec.Struct, frozen=True):
    """A version beside the active one, in short."""

    version: str
    running: bool
    frames: int
    different: int
    dropped: int


class ShadowDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A frame on which the versions disagree: items, or error codes. `kinds` are the fields that differ."""

    at: str
    frame: str
    aux: int
    kinds: list[str]
    live: Any
    candidate: Any


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a version that decodes copies of live frames, so far or at its end.

    against: the version in use. ended: why, empty while it runs. dropped: frames that the candidate was too slow for;
    live traffic waits for none. failed: frames that it could not be asked. kinds: what differed, how often. live_us,
    candidate_us: microseconds for a frame.
    """

    version: str
    against: str
    running: bool
    ended: str
    started_at: str
    ends_at: str
    frames: int
    same: int
    different: int
    dropped: int
    failed: int
    traps: int
    kills: int
    live_us: float
    candidate_us: float
    kinds: dict[str, int]
    differences: list[ShadowDifference]


class PluginDetail(PluginStatus, frozen=True, kw_only=True):
    """One plugin with all that is known of it.

    path: how it is called, `fast` or `public`. previous: the version that a rollback goes back to. sha256: of the
    module. products: those of the first tenant that use it.
    """

    license: str = ""
    sha256: str = ""
    framing: dict[str, Any] | None = None
    limits: dict[str, int] = {}
    path: str = ""
    caps: CapsStatus = CapsStatus([], [], [])
    versions: list[VersionStatus] = []
    previous: str | None = None
    waiting: WaitingStatus | None = None
    quarantine: QuarantineStatus | None = None
    last_failure: FailureStatus | None = None
    handover: HandoverStatus | None = None
    shadow: ShadowSummary | None = None
    products: list[str] = []


class InstalledPackage(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a package. `waiting`: it runs as soon as a person grants what it asks for."""

    id: str
    version: str
    sha256: str
    signed_by: str
    waiting: bool = False


class FrameOutcome(msgspec.Struct, frozen=True):
    """One tried frame. `code` is None when it decoded; `value` is None when the plugin dropped it on purpose."""

    value: Any = None
    code: int | None = None
    error: str = ""


class TriedInput(msgspec.Struct, frozen=True):
    """One tried input. `skipped` counts bytes or frames that the framing passed over as none of its own."""

    frames: list[FrameOutcome]
    skipped: int = 0


class TriedPoint(msgspec.Struct, frozen=True):
    """Values of one moment as they would be stored. `quality` names those that are not good; `shed` are not kept."""

    at: int | None
    values: dict[str, Any]
    quality: dict[str, str]
    shed: int


class TriedFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One frame that the framing cut, in hex. `item` is what the codec made of it, null for one that it dropped."""

    frame: str
    ok: bool
    item: Any = msgspec.UNSET
    normalised: list[TriedPoint] | msgspec.UnsetType = msgspec.UNSET
    code: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class TriedTimings(msgspec.Struct, frozen=True):
    """Microseconds of the whole input: cutting frames, the codec's calls, checking against the thing model."""

    framing_us: float
    decode_us: float
    normalise_us: float


class TriedWhole(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input on its whole way. `rest` says what became of bytes that are no frame."""

    frames: list[TriedFrame]
    timings: TriedTimings
    rest: str = ""
    skipped: int = 0


class Plugins(Protocol):
    """Wasm plugins. Changes return the plugin as it stands after them, and raise NotFound for one that is not there."""

    max_package_bytes: int

    def plugins(self) -> list[PluginStatus]:
        """Every plugin found."""
        ...

    def plugin(self, plugin_id: str) -> PluginDetail:
        """Raises NotFound."""
        ...

    async def try_decode(self, plugin_id: str, inputs: list[bytes]) -> list[TriedInput]:
        """Frame and decode each input by itself; a rest that is no whole frame gives code 6. Raises NotFound.

        Leaves the loop to others; what is not tried in time, or is too much to show, gives a code of its own.
        """
        ...

    async def try_encode(self, plugin_id: str, request: dict[str, Any]) -> bytes:
        """Bytes for the device. Raises NotFound, CodecError."""
        ...

    async def try_whole(
        self, plugin_id: str, inputs: list[bytes], aux: int, normaliser: Normaliser | None
    ) -> list[TriedWhole]:
        """Frame, decode and normalise each input by itself; as `try_decode`."""
        ...

    async def call(self, plugin_id: str, args: dict[str, Any], timeout_s: float) -> Any:
        """The plugin's answer, plain data. Raises NotFound, NotReady, CodecError."""
        ...

    async def install(self, package: bytes, *, activate: bool) -> InstalledPackage:
        """Keep a package and run it, or let it wait for a grant. Raises Rejected, Conflict, StorageFailed.

        A version that fails is not kept, and the one before it goes on.
        """
        ...

    async def remove(self, plugin_id: str) -> None:
        """Remove all installed versions and grants. Raises NotFound, Conflict while a product uses the plugin."""
        ...

    async def remove_version(self, plugin_id: str, version: str) -> None:
        """Raises NotFound, Conflict for the one that is in use."""
        ...

    async def grant(self, plugin_id: str, caps: Sequence[Capability]) -> PluginDetail:
        """Allow the plugin more than the default grants. Raises Conflict where the configuration decides."""
        ...

    async def revoke(self, plugin_id: str) -> PluginDetail:
        """Take back every grant beyond the default ones. Raises Conflict where the configuration decides."""
        ...

    async def activate(self, plugin_id: str, version: str) -> PluginDetail:
        """Raises Rejected for a version that fails: the one before it goes on."""
        ...

    async def roll_back(self, plugin_id: str) -> PluginDetail:
        """Raises Conflict where there is no version to go back to."""
        ...

    async def disable(self, plugin_id: str) -> PluginDetail:
        """Stop it for good: its products' frames are shed."""
        ...

    async def enable(self, plugin_id: str) -> PluginDetail:
        """Let it run again. Raises Rejected."""
        ...

    async def shadow(self, plugin_id: str, version: str, minutes: float) -> PluginDetail:
        """Let a version decode copies of live frames. Raises Rejected, Conflict."""
        ...

    async def stop_shadow(self, plugin_id: str) -> PluginDetail:
        """The report stays until the next one."""
        ...

    def shadow_report(self, plugin_id: str) -> ShadowStatus:
        """With differences. Raises NotFound where there was no shadow."""
        ...

    async def promote(self, plugin_id: str) -> PluginDetail:
        """Activate the version that is or was in the shadow. Raises Conflict where there is none, Rejected."""
        ...
