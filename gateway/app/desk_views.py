"""How plugins, their shadows and tried frames look to the API: the host's words turned into the port's."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import msgspec

from gateway.api.plugin_port import (
    CapsStatus,
    FailureStatus,
    FrameOutcome,
    HandoverStatus,
    PluginDetail,
    PluginStatus,
    QuarantineStatus,
    ShadowDifference,
    ShadowStatus,
    ShadowSummary,
    TriedFrame,
    TriedPoint,
    VersionStatus,
    WaitingStatus,
)
from gateway.core.clock import rfc3339
from gateway.core.errors import ConfigError
from gateway.core.flow import Decoded
from gateway.things.normalise import Normaliser
from gateway.wasm.codec import MALFORMED, DecodeResult, code_text
from gateway.wasm.shadow import ShadowReport
from gateway.wasm.shown import to_shown
from gateway.wasm.status import PluginStatus as HostStatus
from gateway.wasm.trial import FrameOutcome as HostOutcome
from gateway.wasm.vectors import shown_item


def status_view(status: HostStatus) -> PluginStatus:
    """A plugin in a list."""
    return PluginStatus(**_summary(status))


def detail_view(status: HostStatus, products: list[str]) -> PluginDetail:
    """A plugin with all that is known of it; `products` use it."""
    caps, waiting, quarantine = status.caps, status.waiting, status.quarantine
    failure, handover, shadow = status.last_failure, status.handover, status.shadow
    return PluginDetail(
        **_summary(status),
        license=status.license,
        sha256=status.sha256,
        framing=status.framing,
        limits={} if status.limits is None else msgspec.structs.asdict(status.limits),
        path=status.path or "",
        caps=CapsStatus(list(caps.asked), list(caps.granted), list(caps.missing)),
        versions=[
            VersionStatus(
                version=one.version,
                source=one.source,
                in_use=one.in_use,
                sha256=one.sha256,
                signed_by=one.signed_by,
                trusted=one.trusted,
                refused=one.refused,
            )
            for one in status.versions
        ],
        previous=status.previous,
        waiting=None if waiting is None else WaitingStatus(waiting.version, list(waiting.missing)),
        quarantine=None
        if quarantine is None
        else QuarantineStatus(rfc3339(quarantine.until_ms), quarantine.reason, quarantine.times),
        last_failure=None
        if failure is None
        else FailureStatus(failure.version, failure.reason, rfc3339(failure.at_ms)),
        handover=None if handover is None else HandoverStatus(handover.outcome, handover.reason),
        shadow=None if shadow is None else ShadowSummary(**msgspec.structs.asdict(shadow)),
        products=products,
    )


def shadow_view(report: ShadowReport) -> ShadowStatus:
    """What came of a shadow, with the frames on which the versions differ."""
    return ShadowStatus(
        version=report.version,
        against=report.against,
        running=not report.ended,
        ended=report.ended,
        started_at=rfc3339(report.started_at_ms),
        ends_at=rfc3339(report.ends_at_ms),
        frames=report.frames,
        same=report.same,
        different=report.different,
        dropped=report.dropped,
        failed=report.failed,
        traps=report.traps,
        kills=report.kills,
        live_us=report.live_us,
        candidate_us=report.candidate_us,
        kinds=report.kinds,
        differences=[
            ShadowDifference(
                at=rfc3339(one.at_ms),
                frame=one.frame,
                aux=one.aux,
                kinds=list(one.kinds),
                live=one.live,
                candidate=one.candidate,
            )
            for one in report.differences
        ],
    )


def outcome_view(outcome: HostOutcome) -> FrameOutcome:
    """A frame of try-decode."""
    if outcome.ok:
        return FrameOutcome(value=outcome.value)
    return FrameOutcome(code=_given(outcome.code, 0), error=_given(outcome.error, ""))


def tried_view(frame: bytes, result: DecodeResult, normaliser: Normaliser | None) -> tuple[TriedFrame, float]:
    """A frame on its whole way, and the seconds that normalising it took."""
    if result is None:
        return TriedFrame(frame=frame.hex(), ok=True, item=None), 0.0
    if not isinstance(result, Decoded):
        return TriedFrame(frame=frame.hex(), ok=False, code=result, error=code_text(result)), 0.0
    try:
        item = to_shown(shown_item(result))
    except (ConfigError, RecursionError) as error:
        return TriedFrame(frame=frame.hex(), ok=False, code=MALFORMED, error=str(error)), 0.0
    if normaliser is None:
        return TriedFrame(frame=frame.hex(), ok=True, item=item), 0.0
    began = perf_counter()
    checked = [normaliser.normalise(dict(point.values)) for point in result.points]
    took_s = perf_counter() - began
    points = [
        TriedPoint(point.at, values, {name: str(verdict) for name, verdict in (quality or {}).items()}, shed)
        for point, (values, quality, shed) in zip(result.points, checked, strict=True)
    ]
    return TriedFrame(frame=frame.hex(), ok=True, item=item, normalised=points), took_s


def _summary(status: HostStatus) -> dict[str, Any]:
    signed = next((one.signed_by for one in status.versions if one.in_use), "")
    return {
        "id": status.id,
        "version": status.version,
        "kind": status.kind,
        "state": status.state,
        "detail": status.reason,
        "description": status.description,
        "source": status.source or "",
        "signed_by": signed,
        "counters": _counters(status),
    }


def _counters(status: HostStatus) -> dict[str, float]:
    counters: dict[str, float] = {
        "vectors_passed": status.vectors_passed,
        "vectors_failed": status.vectors_failed,
        "memory_bytes": status.memory_bytes,
        "strikes": status.strikes,
        **msgspec.structs.asdict(status.life),
    }
    if status.stats is not None:
        stats = status.stats
        counters |= {
            "calls": stats.calls,
            "frames": stats.frames,
            "decoded": stats.decoded,
            "traps": stats.traps,
            "kills": stats.kills,
            "respawns": stats.respawns,
            "busy_s": stats.busy_s,
        }
    return counters


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is msgspec.UNSET else value
