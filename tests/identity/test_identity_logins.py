import asyncio

import pytest
from fakes.identity_fakes import CHEAP, IdentityRoom
from msgspec.structs import replace

from gateway.core.errors import AuthFailed, NotReady, Rejected, StorageFailed, Throttled
from gateway.core.scope import system_scope
from gateway.identity.passwords import Passwords
from gateway.identity.throttle import LoginThrottle

HOME = "192.0.2.1"


async def failing(room: IdentityRoom, username: str, address: str = HOME) -> None:
    with pytest.raises(AuthFailed):
        await room.logins.login(username, "wrong", address)


async def test_a_login_gives_a_token_and_is_audited() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    token, claims = await room.logins.login("ann", "right horse", HOME)
    assert (await room.access.authenticate(token)).claims == claims
    assert room.actions()[-1] == "auth.login"
    assert "right horse" not in repr(room.store.audit)


async def test_every_cause_of_a_failed_login_reads_the_same_and_is_audited() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    user = await room.add_user("bob")
    await room.users.update(system_scope(), user.id, enabled=False)
    texts = set()
    for username, password in (("ann", "wrong"), ("nobody", "wrong"), ("bob", "right horse")):
        with pytest.raises(AuthFailed) as refusal:
            await room.logins.login(username, password, HOME)
        texts.add(str(refusal.value))
    assert len(texts) == 1
    assert room.actions()[-3:] == ["auth.login_failed"] * 3


async def test_an_unknown_user_costs_a_hash_as_a_wrong_password_does() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    computed: list[str] = []
    verify = room.passwords._verify
    room.passwords._verify = lambda known, given: computed.append(known) or verify(known, given)  # type: ignore[func-returns-value,method-assign]
    await failing(room, "ann")
    await failing(room, "nobody")
    assert len(computed) == 2
    known, unknown = computed
    assert known.rsplit("$", 2)[0] == unknown.rsplit("$", 2)[0], "the same kind of hash with the same costs"


async def test_a_login_that_cannot_be_audited_does_not_succeed() -> None:
    room = IdentityRoom()
    await room.add_user("ann")

    async def broken(*_: object) -> None:
        raise StorageFailed("disk full")

    room.audit.record = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(StorageFailed):
        await room.logins.login("ann", "right horse", HOME)


async def test_failures_cost_an_exponential_wait_that_a_right_password_cannot_skip() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    for _ in range(room.config.free_attempts):
        await failing(room, "ann")
    waits = []
    for _ in range(8):
        await failing(room, "ann")
        with pytest.raises(Throttled) as refusal:
            await room.logins.login("ann", "right horse", "192.0.2.77")
        waits.append(refusal.value.retry_after_s)
        room.clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    await room.logins.login("ann", "right horse", HOME)


async def test_one_address_that_tries_many_names_has_to_wait_and_others_need_not() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    for at in range(room.config.free_attempts + 1):
        await failing(room, f"user{at}")
    with pytest.raises(Throttled):
        await room.logins.login("ann", "right horse", HOME)
    await room.logins.login("ann", "right horse", "198.51.100.9")


async def test_one_valid_account_does_not_buy_guesses_at_another() -> None:
    room = IdentityRoom()
    await room.add_user("mallory")
    for at in range(room.config.free_attempts):
        await failing(room, f"user{at}")
        await room.logins.login("mallory", "right horse", HOME)
    await failing(room, "one more")
    with pytest.raises(Throttled):
        await room.logins.login("mallory", "right horse", HOME)


async def test_attempts_made_at_once_count_at_once() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    tries = [room.logins.login("ann", "wrong", HOME) for _ in range(20)]
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(end, AuthFailed) for end in ends) == room.config.free_attempts + 1
    assert sum(isinstance(end, Throttled) for end in ends) == 20 - room.config.free_attempts - 1


async def test_an_ipv6_site_counts_as_one_address() -> None:
    throttle = LoginThrottle(CHEAP, IdentityRoom().clock)
    for at in range(CHEAP.free_attempts + 1):
        throttle.attempt(f"u{at}", f"2001:db8:1:2::{at:x}")
    with pytest.raises(Throttled):
        throttle.attempt("ann", "2001:db8:1:2::ffff")
    throttle.attempt("other", "2001:db8:1:3::1")


async def test_refused_attempts_leave_no_trace_and_push_nobody_out() -> None:
    throttle = LoginThrottle(CHEAP, IdentityRoom().clock)
    for _ in range(CHEAP.free_attempts + 1):
        throttle.attempt("ann", HOME)
    remembered = len(throttle)
    for at in range(CHEAP.max_throttled + 10):
        with pytest.raises(Throttled):
            throttle.attempt(f"made-up-{at}", HOME)
    assert len(throttle) == remembered
    with pytest.raises(Throttled):
        throttle.attempt("ann", "198.51.100.9")


async def test_a_wait_longer_than_the_memory_of_failures_is_kept() -> None:
    room = IdentityRoom()
    throttle = LoginThrottle(
        replace(CHEAP, free_attempts=1, first_wait_s=100.0, most_wait_s=100.0, forget_after_s=10.0), room.clock
    )
    throttle.attempt("ann", HOME)
    throttle.attempt("ann", HOME)
    room.clock.advance(50)
    with pytest.raises(Throttled):
        throttle.attempt("ann", HOME)
    room.clock.advance(61)
    throttle.attempt("ann", HOME)
    throttle.attempt("ann", HOME)


async def test_the_throttle_remembers_a_bounded_number() -> None:
    throttle = LoginThrottle(replace(CHEAP, max_throttled=100), IdentityRoom().clock)
    for at in range(1000):
        throttle.attempt(f"user{at}", f"10.0.{at // 250}.{at % 250}")
    assert len(throttle) == 100


async def test_failures_are_forgotten_after_a_while() -> None:
    room = IdentityRoom()
    for _ in range(room.config.free_attempts):
        await failing(room, "ann")
    room.clock.advance(room.config.forget_after_s + 1)
    for _ in range(room.config.free_attempts):
        await failing(room, "ann")


async def test_a_hash_with_older_costs_is_renewed_at_login_and_open_sessions_live_on() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    before = await room.token_of("ann")
    old = user.password_hash
    stronger = Passwords(replace(CHEAP, argon2_passes=2))
    room.passwords = stronger
    room.restart()
    await room.logins.login("ann", "right horse", HOME)
    renewed = room.rows.users["default", user.id].password_hash
    assert renewed != old
    assert not stronger.outdated(renewed)
    await room.access.authenticate(before)


async def test_more_logins_than_may_wait_are_told_to_come_back() -> None:
    passwords = Passwords(replace(CHEAP, max_waiting_hashes=1, max_parallel_hashes=1))
    ends = await asyncio.gather(*(passwords.matches(None, "x") for _ in range(5)), return_exceptions=True)
    assert ends.count(False) == 2
    assert sum(isinstance(end, NotReady) for end in ends) == 3


@pytest.mark.parametrize("password", ["short", "x" * 1025, "é" * 513])
async def test_a_password_that_is_too_short_or_too_long_is_refused(password: str) -> None:
    with pytest.raises(Rejected, match="password"):
        Passwords(CHEAP).check_choice(password)


async def test_a_password_is_the_same_however_its_letters_are_composed() -> None:
    passwords = Passwords(CHEAP)
    assert await passwords.matches(await passwords.digest("caf\u00e9 au lait"), "cafe\u0301 au lait")
    assert not await passwords.matches(await passwords.digest("caf\u00e9 au lait"), "cafe au lait")


async def test_a_damaged_hash_lets_nobody_in() -> None:
    assert not await Passwords(CHEAP).matches("not a hash", "anything")


async def test_the_name_of_an_unknown_user_is_made_safe_for_log_and_audit() -> None:
    room = IdentityRoom()
    await failing(room, "evil\n2026 login ok")
    assert "\n" not in room.store.audit[0].actor


async def test_proving_the_present_password_is_throttled_like_a_login() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    session = await room.access.authenticate(await room.token_of("ann"))
    await room.logins.prove(session, "right horse", HOME)
    for _ in range(room.config.free_attempts + 1):
        with pytest.raises(AuthFailed):
            await room.logins.prove(session, "wrong", HOME)
    with pytest.raises(Throttled):
        await room.logins.prove(session, "right horse", HOME)
    assert room.store.audit[-1].actor == "ann"
