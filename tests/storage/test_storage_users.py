"""The contracts of UserRepository and TokenRepository, on the database and in memory."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa
from fakes.rooms import OTHER, SCOPE, Rooms

from gateway.core.errors import Conflict, Forbidden, NotFound, Rejected
from gateway.identity.model import Role, User
from gateway.storage import tables
from gateway.storage.database import Database
from gateway.things.ports import PageRequest

ANN = User(id="u1", tenant_id="default", username="ann", password_hash="canary-hash", roles=("operator",))


async def test_a_user_is_found_by_name_and_by_id(rooms: Rooms) -> None:
    await rooms.users.save_user(SCOPE, ANN)
    assert await rooms.users.find_user("ann") == ANN
    assert await rooms.users.get_user(SCOPE, "u1") == ANN
    assert await rooms.users.find_user("ann' OR 1=1 --") is None
    with pytest.raises(NotFound):
        await rooms.users.get_user(OTHER, "u1")


async def test_a_name_belongs_to_one_user_over_all_tenants(rooms: Rooms) -> None:
    await rooms.users.save_user(SCOPE, ANN)
    with pytest.raises(Conflict, match="ann"):
        await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, id="u2"))
    with pytest.raises(Conflict):
        await rooms.users.save_user(OTHER, msgspec.structs.replace(ANN, tenant_id="other"))
    await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, enabled=False))
    page = await rooms.users.list_users(SCOPE, PageRequest())
    assert ([user.enabled for user in page.items], page.total) == ([False], 1)


async def test_names_that_differ_in_capitals_alone_are_one_name(rooms: Rooms) -> None:
    await rooms.users.save_user(SCOPE, ANN)
    assert await rooms.users.find_user("ANN") == ANN
    with pytest.raises(Conflict, match="Ann"):
        await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, id="u2", username="Ann"))
    with pytest.raises(Conflict):
        await rooms.users.save_user(OTHER, msgspec.structs.replace(ANN, tenant_id="other", username="ANN"))
    await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, username="Ann"))
    assert (await rooms.users.list_users(SCOPE, PageRequest())).total == 1


async def test_users_are_listed_by_name_and_only_by_white_listed_fields(rooms: Rooms) -> None:
    for name in ("carol", "bob", "dave"):
        await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, id=name, username=name))
    page = await rooms.users.list_users(SCOPE, PageRequest(1, 2))
    assert ([user.username for user in page.items], page.total) == (["bob", "carol"], 3)
    assert (await rooms.users.list_users(OTHER, PageRequest())).total == 0
    with pytest.raises(Rejected):
        await rooms.users.list_users(SCOPE, PageRequest(sort="password_hash"))


async def test_deleting_a_user_frees_the_name(rooms: Rooms) -> None:
    await rooms.users.save_user(SCOPE, ANN)
    with pytest.raises(NotFound):
        await rooms.users.delete_user(OTHER, "u1")
    await rooms.users.delete_user(SCOPE, "u1")
    with pytest.raises(NotFound):
        await rooms.users.delete_user(SCOPE, "u1")
    await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, id="u2"))


async def test_no_password_hash_reaches_the_audit_log(rooms: Rooms) -> None:
    await rooms.users.save_user(SCOPE, ANN)
    await rooms.users.save_user(SCOPE, msgspec.structs.replace(ANN, password_hash="canary-2"))
    await rooms.users.delete_user(SCOPE, "u1")
    entries = (await rooms.audit.list_audit(SCOPE, PageRequest(sort="seq"), entity="user")).items
    assert [entry.action for entry in entries] == ["create", "update", "delete"]
    assert b"canary" not in msgspec.json.encode(entries)


async def test_a_role_comes_back_and_stays_while_a_user_has_it(rooms: Rooms) -> None:
    operator = Role(tenant_id="default", id="operator", permissions=("alarms.alarm.list",))
    await rooms.users.save_role(SCOPE, Role(tenant_id="default", id="operator"))
    await rooms.users.save_role(SCOPE, operator)
    await rooms.users.save_role(OTHER, Role(tenant_id="other", id="operator", permissions=("*",)))
    assert await rooms.users.list_roles(SCOPE) == [operator]
    await rooms.users.save_user(SCOPE, ANN)
    with pytest.raises(Conflict):
        await rooms.users.delete_role(SCOPE, "operator")
    await rooms.users.delete_role(OTHER, "operator")
    await rooms.users.delete_user(SCOPE, "u1")
    await rooms.users.delete_role(SCOPE, "operator")
    with pytest.raises(NotFound):
        await rooms.users.delete_role(SCOPE, "operator")
    with pytest.raises(Forbidden):
        await rooms.users.save_role(OTHER, operator)


async def test_a_revoked_token_is_remembered_until_it_expires(rooms: Rooms) -> None:
    await rooms.tokens.revoke("a", 100)
    await rooms.tokens.revoke("a", 100)
    await rooms.tokens.revoke("b", 200)
    assert await rooms.tokens.revoked(50) == {"a": 100, "b": 200}
    assert await rooms.tokens.revoked(100) == {"b": 200}
    assert await rooms.tokens.revoked(50) == {"b": 200}


async def test_a_statement_that_fails_says_nothing_of_its_parameters(database: Database) -> None:
    """Error texts go to the log, and parameters may be hashes of secrets."""
    row = {"id": "u9", "tenant_id": "nowhere", "username": "eve", "password_hash": "canary-hash", "roles": []}
    with pytest.raises(sa.exc.IntegrityError) as failed:
        async with database.write(SCOPE) as transaction:
            await transaction.execute(sa.insert(tables.user_account).values(**row, created_at_ms=1, updated_at_ms=1))
    assert "canary-hash" not in str(failed.value)
