"""Identifiers: UUIDv7 strings, which sort by the time they were made."""

from __future__ import annotations

import secrets
import uuid

from gateway.core.clock import Clock


def new_id(clock: Clock) -> str:
    """Make a UUIDv7 string. Source: RFC 9562, 5.7."""
    value = (clock.now_ms() & 0xFFFF_FFFF_FFFF) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
