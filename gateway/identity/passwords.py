"""Password hashing: argon2id, off the loop. Knows no user and no storage."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from typing import Any, Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.core.errors import NotReady, Rejected
from gateway.identity.config import IdentityConfig

T = TypeVar("T")

MAX_PASSWORD_BYTES: Final = 1024
"""A password's bytes are hashed whole; more than any passphrase has is only work for us."""


class Passwords:
    """Makes and checks password hashes, a bounded number at a time."""

    def __init__(self, config: IdentityConfig) -> None:
        self._hasher = PasswordHasher(
            time_cost=config.argon2_passes, memory_cost=config.argon2_memory_kib, parallelism=1, type=Type.ID
        )
        self._min_chars = config.password_min_chars
        self._turn = asyncio.Semaphore(config.max_parallel_hashes)
        self._most_waiting = config.max_parallel_hashes + config.max_waiting_hashes
        self._waiting = 0
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    def check_choice(self, password: str) -> None:
        """Raise Rejected when a person may not choose this password."""
        if len(password) < self._min_chars:
            raise Rejected(f"password: choose at least {self._min_chars} characters")
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            raise Rejected(f"password: choose at most {MAX_PASSWORD_BYTES} bytes")

    async def digest(self, password: str) -> str:
        """Hash a password with a fresh salt. Raises NotReady when too many wait."""
        return await self._in_turn(self._hasher.hash, _canonical(password))

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Compare; no hash (an unknown user) takes as long as a wrong password. Raises NotReady when too many wait."""
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        same = await self._in_turn(self._verify, password_hash or self._nobody, _canonical(password))
        return same and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other costs than the present ones."""
        return self._hasher.check_needs_rehash(password_hash)

    def _verify(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_turn(self, call: Callable[..., T], *args: Any) -> T:
        if self._waiting >= self._most_waiting:
            raise NotReady("too many logins at once; try again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(call, *args)
        finally:
            self._waiting -= 1


def _canonical(password: str) -> bytes:
    """One byte string for one password, whatever way the keyboard composes its letters."""
    return unicodedata.normalize("NFC", password).encode()
