"""The audit log's hash chain: each entry's digest covers its content and the digest of the entry before.

Owns what is hashed and how; knows no caller. Changing an entry, or taking one out, breaks every digest after it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.core.scope import Scope
from gateway.storage.tables import audit

_COVERED = ("seq", "tenant_id", "at_ms", "actor", "action", "entity", "entity_id", "before", "after")
_encode = msgspec.json.Encoder(order="sorted").encode


def digest(before_digest: str, entry: dict[str, Any]) -> str:
    """SHA-256, in hex, of the previous digest and the entry as JSON with sorted keys."""
    covered = {name: entry[name] for name in _COVERED}
    return hashlib.sha256(before_digest.encode() + b"\n" + _encode(covered)).hexdigest()


LAST_ENTRY = sa.select(audit.c.seq, audit.c.digest).order_by(audit.c.seq.desc()).limit(1)
"""The chain's end, to be read under the write lock."""


def next_entry(
    last: dict[str, Any] | None,
    scope: Scope,
    now_ms: int,
    action: str,
    entity: str,
    entity_id: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> dict[str, Any]:
    """The row that follows the chain's end (None where the log is empty)."""
    entry: dict[str, Any] = {
        "seq": 1 if last is None else last["seq"] + 1,
        "tenant_id": scope.tenant_id,
        "at_ms": now_ms,
        "actor": scope.actor,
        "action": action,
        "entity": entity,
        "entity_id": entity_id,
        "before": before,
        "after": after,
    }
    # Hashed as it will be read back: a float that JSON writes shorter must not look like tampering.
    entry = msgspec.json.decode(_encode(entry))
    entry["digest"] = digest("" if last is None else last["digest"], entry)
    return entry
