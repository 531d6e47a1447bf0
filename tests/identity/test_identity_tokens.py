import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from fakes.identity_fakes import KEY, IdentityRoom
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import AuthFailed, ConfigError
from gateway.identity.tokens import AUDIENCE, ISSUER, load_or_make_key


def claims_of(room: IdentityRoom, **changes: Any) -> dict[str, Any]:
    now_s = room.clock.ms // 1000
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "id-ann",
        "tenant": "default",
        "ver": room.clock.ms,
        "iat": now_s,
        "exp": now_s + 60,
        "jti": "j",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(room: IdentityRoom, key: bytes = KEY, **changes: Any) -> str:
    return jwt.encode(claims_of(room, **changes), key, algorithm="HS256")


async def test_an_issued_token_stands_for_its_user_with_the_permissions_of_his_roles() -> None:
    room = IdentityRoom()
    await room.add_user("ann", "things.device.list")
    session = await room.access.authenticate(await room.token_of("ann"))
    assert (session.scope.tenant_id, session.scope.actor) == ("default", "ann")
    assert session.scope.permissions == {"things.device.list"}


async def test_a_token_made_by_the_test_passes_so_that_the_refusals_below_mean_something() -> None:
    room = IdentityRoom()
    assert room.tokens.verify(signed(room)).sub == "id-ann"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": [AUDIENCE, "other"]},
        {"exp": None},
        {"exp": "never"},
        {"exp": 0},
        {"iat": 1_790_000_000 + 3600},
        {"sub": None},
        {"sub": 7},
        {"tenant": None},
        {"ver": None},
        {"jti": None},
    ],
)
async def test_a_token_with_a_wrong_or_missing_claim_is_refused(changes: dict[str, Any]) -> None:
    room = IdentityRoom()
    with pytest.raises(AuthFailed):
        room.tokens.verify(signed(room, **changes))


async def test_an_unsigned_token_is_refused() -> None:
    room = IdentityRoom()
    with pytest.raises(AuthFailed):
        room.tokens.verify(jwt.encode(claims_of(room), None, algorithm="none"))


async def test_a_token_of_another_key_or_algorithm_is_refused() -> None:
    room = IdentityRoom()
    with pytest.raises(AuthFailed):
        room.tokens.verify(signed(room, key=b"x" * 32))
    with pytest.raises(AuthFailed):
        room.tokens.verify(jwt.encode(claims_of(room), KEY + KEY, algorithm="HS512"))


async def test_a_tampered_payload_is_refused() -> None:
    room = IdentityRoom()
    head, _, signature = signed(room).split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims_of(room, tenant="other")).encode()).rstrip(b"=").decode()
    with pytest.raises(AuthFailed):
        room.tokens.verify(f"{head}.{forged}.{signature}")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(AuthFailed):
        IdentityRoom().tokens.verify(text)


async def test_an_enormous_token_is_refused_unread() -> None:
    with pytest.raises(AuthFailed):
        IdentityRoom().tokens.verify("a." * 1_000_000)


async def test_a_token_ends_with_its_time() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    token = await room.token_of("ann")
    room.clock.advance(24 * 3600 - 1)
    await room.access.authenticate(token)
    room.clock.advance(1)
    with pytest.raises(AuthFailed, match="expired"):
        await room.access.authenticate(token)


async def test_a_revoked_token_stays_revoked_after_a_restart() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    token, other = await room.token_of("ann"), await room.token_of("ann")
    await room.logins.logout(await room.access.authenticate(token))
    for _ in range(2):
        with pytest.raises(AuthFailed):
            await room.access.authenticate(token)
        await room.access.authenticate(other)
        room.restart()
        await room.tokens.load()


async def test_revocations_are_forgotten_once_their_tokens_have_expired() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    for _ in range(3):
        await room.logins.logout(await room.access.authenticate(await room.token_of("ann")))
    room.clock.advance(25 * 3600)
    await room.logins.logout(await room.access.authenticate(await room.token_of("ann")))
    assert len(room.tokens._revoked) == 1


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "token.key"
    key = load_or_make_key(path)
    assert len(key) == 32
    assert load_or_make_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_key_that_others_can_read_or_that_is_damaged_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    load_or_make_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_make_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="damaged"):
        load_or_make_key(path)
