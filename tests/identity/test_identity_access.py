import pytest
from fakes.identity_fakes import IdentityRoom

from gateway.core.errors import AuthFailed
from gateway.core.scope import system_scope
from gateway.identity.model import Role


async def test_a_new_password_ends_the_tokens_made_before_it_even_when_the_clock_stands_still() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    before = await room.token_of("ann")
    await room.users.update(system_scope(), user.id, password="another horse")
    with pytest.raises(AuthFailed):
        await room.access.authenticate(before)
    await room.access.authenticate(await room.token_of("ann"))


async def test_a_new_password_ends_older_tokens_when_the_clock_was_set_back() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    before = await room.token_of("ann")
    room.clock.ms -= 30_000
    await room.users.update(system_scope(), user.id, password="another horse")
    with pytest.raises(AuthFailed):
        await room.access.authenticate(before)
    await room.access.authenticate(await room.token_of("ann"))


async def test_disabling_ends_a_users_tokens_and_enabling_does_not_bring_them_back() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    token = await room.token_of("ann")
    await room.users.update(system_scope(), user.id, enabled=False)
    with pytest.raises(AuthFailed):
        await room.access.authenticate(token)
    await room.users.update(system_scope(), user.id, enabled=True)
    with pytest.raises(AuthFailed):
        await room.access.authenticate(token)


async def test_a_deleted_users_token_is_refused() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    token = await room.token_of("ann")
    await room.users.delete(system_scope(), user.id)
    with pytest.raises(AuthFailed):
        await room.access.authenticate(token)


async def test_a_changed_role_holds_for_tokens_that_are_out_already() -> None:
    room = IdentityRoom()
    await room.add_user("ann", "things.device.list")
    token = await room.token_of("ann")
    await room.access.authenticate(token)
    await room.users.replace_role(system_scope(), "role-ann", ("alarms.alarm.list",))
    assert (await room.access.authenticate(token)).scope.permissions == {"alarms.alarm.list"}


async def test_requests_in_a_row_cost_one_query_and_a_foreign_change_is_seen_soon() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    token = await room.token_of("ann")
    for _ in range(10):
        await room.access.authenticate(token)
    assert room.rows.reads == 1
    # As the command line does it, from another process.
    room.rows.users["default", user.id].updated_at_ms += 1
    room.clock.advance(room.config.user_cache_s)
    with pytest.raises(AuthFailed):
        await room.access.authenticate(token)


async def test_a_role_of_the_same_name_in_another_tenant_grants_nothing() -> None:
    room = IdentityRoom()
    await room.add_user("ann", "things.device.list")
    room.rows.roles["other", "role-ann"] = Role(tenant_id="other", id="role-ann", permissions=("*",))
    session = await room.access.authenticate(await room.token_of("ann"))
    assert session.scope.permissions == {"things.device.list"}
