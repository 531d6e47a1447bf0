"""What the API shows of a plugin: its state, versions, grants, figures and troubles, as plain data. Changes nothing."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.wasm.fastcall import CallPath
from gateway.wasm.manifest import Limits
from gateway.wasm.stats import PluginStats
from gateway.wasm.strikes import QuarantineStatus

PluginState = Literal["running", "refused", "not_built", "waiting", "disabled", "quarantined"]
Source = Literal["folder", "installed"]


class KnownVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that lies ready, old to new.

    version: empty where a folder's manifest cannot be read. sha256, signed_by, trusted: of an installed package.
    refused: why it may not run, as the area says. in_use: it runs now.
    """

    version: str
    source: Source
    folder: str
    sha256: str = ""
    signed_by: str = ""
    trusted: bool = False
    refused: str = ""
    in_use: bool = False


class CapsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities: what the version in question asks for, what the plugin may have, and what is missing."""

    asked: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is meant to run and waits for a person to grant what it asks for."""

    version: str
    missing: tuple[str, ...]


class LoadFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The last version that was not taken, and why."""

    version: str
    reason: str
    at_ms: int


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the last version's state at the swap: `carried`, or `fresh` and why."""

    outcome: Literal["carried", "fresh"]
    reason: str = ""
    size: int = 0


class LifeCounters(msgspec.Struct, kw_only=True):
    """What happened to a plugin since the start.

    swaps: versions taken into use after the first. rollbacks: those of them that went back by themselves. refusals:
    versions that were not taken. quarantines: times it was held.
    """

    swaps: int = 0
    rollbacks: int = 0
    refusals: int = 0
    quarantines: int = 0


class VersionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the version in use has done so far. frames: decoded; calls: into the guest."""

    since_ms: int
    calls: int
    frames: int
    strikes: int


class ShadowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A version beside the live one, in short; `running` until its time is over or somebody stops it."""

    version: str
    running: bool
    frames: int
    different: int
    dropped: int


class PluginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin as the API shows it.

    version and what follows it are of the version in use, else of the one that was looked at last. reason: why it does
    not run, or why another version is not taken while this one runs. path: how the host calls it. strikes: within the
    window. sha256: of the module. previous: the version that a rollback goes back to.
    """

    id: str
    folder: str
    state: PluginState
    reason: str = ""
    version: str = ""
    kind: str = ""
    description: str = ""
    license: str = ""
    sha256: str = ""
    source: Source | None = None
    framing: dict[str, Any] | None = None
    limits: Limits | None = None
    path: CallPath | None = None
    vectors_passed: int = 0
    vectors_failed: int = 0
    memory_bytes: int = 0
    strikes: int = 0
    log_lines_dropped: int = 0
    stats: PluginStats | None = None
    this_version: VersionFigures | None = None
    life: LifeCounters = msgspec.field(default_factory=LifeCounters)
    versions: tuple[KnownVersion, ...] = ()
    previous: str | None = None
    caps: CapsStatus = CapsStatus()
    waiting: Waiting | None = None
    quarantine: QuarantineStatus | None = None
    last_failure: LoadFailure | None = None
    handover: Handover | None = None
    shadow: ShadowSummary | None = None
