"""What an operator may set of identity: token life, password rules, login throttle."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=315_360_000)]
"""At most ten years: longer is a slip, and infinity no number of seconds."""


class IdentityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Identity's limits; times in seconds.

    token_ttl_s: life of a bearer token; a day, so that a stolen one dies by itself.
    password_min_chars: shortest password a person may choose; the first administrator's comes from the operator and
        is taken as given.
    argon2_memory_kib, argon2_passes: cost of one hash (about 20 ms); OWASP's least for argon2id. Raising them
        re-hashes each password at its next login.
    max_parallel_hashes: hashes computed at once, each holding `argon2_memory_kib`.
    max_waiting_hashes: logins that may queue for a hash before more are told to come back.
    free_attempts: failures that cost nothing, for people who mistype.
    first_wait_s, most_wait_s: the wait after the next failure, doubled from the first to the most. The most is short
        enough that nobody can lock a user out for long by failing in his name.
    forget_after_s: a name or address without failure for so long starts afresh.
    max_throttled: names and addresses remembered at once (about 200 bytes each); over it the quietest is forgotten.
    user_cache_s: how long a change made by another process (`gateway user passwd`) may go unseen by open sessions.
    """

    token_ttl_s: Annotated[float, msgspec.Meta(ge=1, le=315_360_000)] = 24 * 3600.0
    password_min_chars: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    argon2_memory_kib: Annotated[int, msgspec.Meta(ge=8 * 1024, le=4 * 1024 * 1024)] = 19_456
    argon2_passes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    max_parallel_hashes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    max_waiting_hashes: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    free_attempts: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 5
    first_wait_s: _Seconds = 1.0
    most_wait_s: _Seconds = 60.0
    forget_after_s: _Seconds = 900.0
    max_throttled: Annotated[int, msgspec.Meta(ge=100, le=100_000_000)] = 10_000
    user_cache_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 2.0
