"""A slot as people see it. Reads, and changes nothing."""

from __future__ import annotations

from gateway.wasm.slot import Slot
from gateway.wasm.status import CapsStatus, KnownVersion, PluginStatus
from gateway.wasm.versions import Survey


def status_of(slot: Slot, may_use: frozenset[str]) -> PluginStatus:
    """Everything known of one plugin; `may_use` are the capabilities that the operator allows it."""
    release, running, current = slot.release, slot.running, slot.current
    manifest = None if release is None else release.manifest
    codec = None if running is None else running.codec
    lane = None if running is None else running.lane
    passed = sum(result.ok for result in slot.vectors)
    folder = "" if release is None else str(release.folder)
    if not folder and slot.survey is not None and slot.survey.found:
        folder = str(slot.survey.found[0].folder)
    asked = frozenset[str]() if manifest is None else manifest.caps.asked()
    return PluginStatus(
        id=slot.id,
        folder=folder,
        state=slot.state,
        reason=slot.reason,
        version="" if manifest is None else manifest.version,
        kind="" if manifest is None else manifest.kind,
        description="" if manifest is None else manifest.description,
        license="" if manifest is None else manifest.license,
        sha256="" if release is None else release.sha256,
        source=None if current is None else current.found.source,
        framing=None if manifest is None else manifest.framing,
        limits=None if manifest is None else manifest.limits,
        path=None if running is None else slot.path,
        vectors_passed=passed,
        vectors_failed=len(slot.vectors) - passed,
        memory_bytes=codec.memory_bytes if codec is not None else lane.memory_bytes if lane is not None else 0,
        strikes=slot.strikes(),
        log_lines_dropped=0 if running is None else running.services.log_lines_dropped,
        stats=slot.stats() if current is not None else None,
        this_version=slot.figures(),
        life=slot.life,
        versions=() if slot.survey is None else tuple(_known(slot, slot.survey)),
        previous=_previous(slot),
        caps=CapsStatus(asked=_words(asked), granted=_words(asked & may_use), missing=_words(asked - may_use)),
        waiting=slot.waiting,
        quarantine=slot.quarantine.status,
        last_failure=slot.last_failure,
        handover=slot.handover,
        shadow=None if slot.shadow is None else slot.shadow.summary(),
    )


def _known(slot: Slot, survey: Survey) -> list[KnownVersion]:
    current = None if slot.running is None else slot.running.proven.found
    known = [
        KnownVersion(
            version=found.version,
            source=found.source,
            folder=str(found.folder),
            sha256=found.sha256,
            signed_by=found.signed_by,
            trusted=found.trusted,
            in_use=current is not None and (found.source, found.version) == (current.source, current.version),
        )
        for found in survey.found
    ]
    refused = [
        KnownVersion(
            version=version,
            source="folder" if version == survey.refused_folder else "installed",
            folder="",
            refused=reason,
        )
        for version, reason in survey.refused.items()
    ]
    return [*known, *refused]


def _previous(slot: Slot) -> str | None:
    if slot.before is not None:
        return slot.before.proven.release.version
    return None if slot.survey is None else slot.survey.decisions.previous


def _words(caps: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(caps))
