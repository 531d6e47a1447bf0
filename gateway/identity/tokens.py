"""Bearer tokens: JWT, HS256, one key per installation. Knows claims, not permissions.

A token names the version of its user (`ver`, the user's `updated_at_ms`): any change of the user, a new password or
a disabling included, ends the tokens made before it, whatever the clocks say.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import AuthFailed, ConfigError
from gateway.core.ids import new_id
from gateway.identity.config import IdentityConfig
from gateway.identity.model import TokenRepository, User

ISSUER: Final = "flux-gateway"
AUDIENCE: Final = "flux-gateway/api"
MAX_TOKEN_CHARS: Final = 2048
"""Ours have about 400; what is longer is not parsed."""
CLOCK_SLACK_S: Final = 60
"""How far the machine's clock may be set back before tokens look as if they came from the future."""
_KEY_BYTES: Final = 32
_REFUSED: Final = "the token is not valid; log in again"


class Claims(msgspec.Struct, frozen=True):
    """What a token says. `sub` is the user's id, `ver` his version; `iat` and `exp` are epoch seconds."""

    iss: str
    aud: str
    sub: str
    tenant: str
    ver: int
    iat: int
    exp: int
    jti: str


class Tokens:
    """Issues, checks and revokes tokens. Call `load` before the first `verify`."""

    def __init__(self, key: bytes, config: IdentityConfig, clock: Clock, repository: TokenRepository) -> None:
        self._key = key
        self._ttl_s = int(config.token_ttl_s)
        self._clock = clock
        self._repository = repository
        self._revoked: dict[str, int] = {}

    async def load(self) -> None:
        """Read what was revoked before the restart."""
        self._revoked = await self._repository.revoked(self._clock.now_ms())

    def issue(self, user: User) -> tuple[str, Claims]:
        """Make a token for a user who proved himself."""
        now_s = self._clock.now_ms() // 1000
        claims = Claims(
            iss=ISSUER,
            aud=AUDIENCE,
            sub=user.id,
            tenant=user.tenant_id,
            ver=user.updated_at_ms,
            iat=now_s,
            exp=now_s + self._ttl_s,
            jti=new_id(self._clock),
        )
        import jwt  # noqa: PLC0415 - with its cryptography it weighs 10 MB, which a gateway that nobody asks can spare

        return jwt.encode(msgspec.to_builtins(claims), self._key, algorithm="HS256"), claims

    def verify(self, token: str) -> Claims:
        """Check signature, issuer, audience, times and revocation. Raises AuthFailed, never saying which."""
        if len(token) > MAX_TOKEN_CHARS:
            raise AuthFailed(_REFUSED)
        import jwt  # noqa: PLC0415 - as in `issue`

        try:
            payload = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                issuer=ISSUER,
                audience=AUDIENCE,
                # Times are checked below, against the clock port.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            claims = msgspec.convert(payload, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError, RecursionError) as refusal:
            raise AuthFailed(_REFUSED) from refusal
        self.check_alive(claims)
        return claims

    def check_alive(self, claims: Claims) -> None:
        """Raise AuthFailed when a token that was good has expired or was revoked since."""
        now_s = self._clock.now_ms() / 1000
        if now_s >= claims.exp:
            raise AuthFailed("the token has expired; log in again")
        if claims.iat > now_s + CLOCK_SLACK_S or claims.jti in self._revoked:
            raise AuthFailed(_REFUSED)

    async def revoke(self, claims: Claims) -> None:
        """End a token before its time, for good. Returns once that is stored."""
        now_ms = self._clock.now_ms()
        await self._repository.revoke(claims.jti, claims.exp * 1000)
        self._revoked = {jti: end_ms for jti, end_ms in self._revoked.items() if end_ms > now_ms}
        self._revoked[claims.jti] = claims.exp * 1000


def load_or_make_key(path: Path) -> bytes:
    """Read the installation's signing key, making it (mode 0600) at the first start. Raises ConfigError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    with os.fdopen(descriptor, "wb") as file:
        key = secrets.token_bytes(_KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_key(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            f"{path.name}: others can read the token key; run: chmod 600 {path}, or delete it for a new one"
        )
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"{path.name}: the token key is damaged; delete {path} for a new one (everybody logs in again)"
        )
    return key
