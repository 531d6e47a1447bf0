import pytest
from fakes.identity_fakes import IdentityRoom

from gateway.core.errors import Conflict, Forbidden, NotFound, Rejected
from gateway.core.scope import Scope, system_scope
from gateway.identity.permissions import Permission, check_codes


def scope_of(actor: str, *permissions: str, tenant_id: str = "default") -> Scope:
    return Scope(tenant_id, actor, frozenset(permissions))


async def test_the_first_start_makes_an_administrator_with_the_operators_password() -> None:
    room = IdentityRoom()
    assert await room.users.first_start("pw") is None
    token, _ = await room.logins.login("admin", "pw", "")
    assert (await room.access.authenticate(token)).scope.permissions == {"*"}


async def test_the_first_start_without_a_password_makes_a_random_one_and_tells_it_once() -> None:
    room = IdentityRoom()
    password = await room.users.first_start(None)
    assert password is not None
    assert len(password) >= 20
    await room.logins.login("admin", password, "")
    assert await room.users.first_start(None) is None
    other = await IdentityRoom().users.first_start(None)
    assert other != password


async def test_a_later_start_does_not_touch_the_administrators_password() -> None:
    room = IdentityRoom()
    await room.users.first_start("first password")
    await room.users.first_start("second password")
    await room.logins.login("admin", "first password", "")


async def test_nobody_gives_roles_or_permissions_beyond_his_own() -> None:
    room = IdentityRoom()
    await room.users.first_start("x")
    await room.add_user("reader", "things.device.list")
    manager = scope_of("manager", "identity.user.manage", "identity.role.manage", "things.device.list")
    await room.users.create(manager, "bob", "long enough", ("role-reader",))
    with pytest.raises(Forbidden):
        await room.users.create(manager, "eve", "long enough", ("administrator",))
    with pytest.raises(Forbidden):
        await room.users.create_role(manager, "all", ("*",))
    with pytest.raises(Forbidden):
        await room.users.replace_role(manager, "role-reader", ("things.device.manage",))
    assert {user.username for user in room.rows.users.values()} == {"admin", "reader", "bob"}


async def test_nobody_takes_over_somebody_with_more_rights() -> None:
    room = IdentityRoom()
    await room.users.first_start("operators password")
    admin = await room.rows.find_user("admin")
    assert admin is not None
    manager = scope_of("manager", "identity.user.manage")
    for change in ({"password": "mine from now on"}, {"enabled": False}, {"roles": ()}):
        with pytest.raises(Forbidden):
            await room.users.update(manager, admin.id, **change)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        await room.users.delete(manager, admin.id)
    await room.logins.login("admin", "operators password", "")


async def test_nobody_locks_himself_out() -> None:
    room = IdentityRoom()
    await room.users.first_start("x")
    admin = await room.rows.find_user("admin")
    assert admin is not None
    me = scope_of("admin", "*")
    for act in (
        room.users.update(me, admin.id, enabled=False),
        room.users.update(me, admin.id, roles=()),
        room.users.delete(me, admin.id),
        room.users.replace_role(me, "administrator", ()),
        room.users.delete_role(me, "administrator"),
    ):
        with pytest.raises(Conflict):
            await act
    await room.users.update(me, admin.id, password="a new password")


async def test_another_tenants_user_is_not_found() -> None:
    room = IdentityRoom()
    user = await room.add_user("ann")
    stranger = scope_of("root", "*", tenant_id="other")
    for act in (
        room.users.get(stranger, user.id),
        room.users.update(stranger, user.id, enabled=False),
        room.users.delete(stranger, user.id),
        room.users.role(stranger, "role-ann"),
    ):
        with pytest.raises(NotFound):
            await act


@pytest.mark.parametrize(
    "username", ["", " ann", "a b", "ann\n", "a" * 65, "-ann", "änn", "a'; DROP TABLE user_account"]
)
async def test_a_user_name_is_plain(username: str) -> None:
    with pytest.raises(Rejected, match="username"):
        await IdentityRoom().users.create(system_scope(), username, "long enough", ())


async def test_a_taken_name_and_an_unknown_role_are_refused() -> None:
    room = IdentityRoom()
    await room.add_user("ann", tenant_id="other")
    with pytest.raises(Conflict):
        await room.users.create(system_scope(), "ann", "long enough", ())
    with pytest.raises(Conflict):
        await room.users.create(system_scope(), "ANN", "long enough", ())
    with pytest.raises(Rejected, match="no role 'ghost'"):
        await room.users.create(system_scope(), "bob", "long enough", ("ghost",))


async def test_a_role_in_use_stays() -> None:
    room = IdentityRoom()
    await room.add_user("ann")
    with pytest.raises(Conflict):
        await room.users.delete_role(system_scope(), "role-ann")
    await room.users.create_role(system_scope(), "spare", (Permission.ALARM_LIST,))
    with pytest.raises(Conflict):
        await room.users.create_role(system_scope(), "spare", ())
    await room.users.delete_role(system_scope(), "spare")
    with pytest.raises(NotFound):
        await room.users.role(system_scope(), "spare")


async def test_the_command_line_sets_a_password_of_any_tenants_user() -> None:
    room = IdentityRoom()
    await room.add_user("ann", tenant_id="other")
    await room.users.set_password("ann", "from the console")
    await room.logins.login("ann", "from the console", "")
    with pytest.raises(NotFound):
        await room.users.set_password("nobody", "from the console")


def test_every_permission_code_reads_area_entity_verb_and_others_do_not_exist() -> None:
    for code in Permission:
        area, entity, verb = code.split(".")
        assert area.isidentifier()
        assert entity.isidentifier()
        assert verb in ("list", "manage")
    check_codes(("*", Permission.ALARM_LIST))
    with pytest.raises(Rejected, match="there is no permission"):
        check_codes(("alarms.alarm.lst",))
