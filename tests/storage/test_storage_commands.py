"""The contract of CommandRepository, on the database and in memory."""

from __future__ import annotations

import msgspec
import pytest
from fakes.rooms import OTHER, SCOPE, Rooms

from gateway.core.errors import Forbidden, NotFound, Rejected
from gateway.things.model import Command
from gateway.things.ports import PageRequest

QUEUED = Command(
    id="c1",
    tenant_id="default",
    device_id="d",
    name="locate",
    args={"deep": [1, {"a": None}], "flag": True},
    requested_by="ann",
    timeout_s=2.5,
    created_at_ms=10,
)


async def test_a_command_comes_back_as_it_was_saved_and_changes_by_saving_again(rooms: Rooms) -> None:
    await rooms.commands.save_command(SCOPE, QUEUED)
    assert await rooms.commands.get_command(SCOPE, "c1") == QUEUED
    ended = msgspec.structs.replace(
        QUEUED, status="acknowledged", result={"lat": 1.5}, sent_at_ms=11, ended_at_ms=12, error="no"
    )
    await rooms.commands.save_command(SCOPE, ended)
    assert await rooms.commands.get_command(SCOPE, "c1") == ended


async def test_another_tenants_command_is_not_found_and_not_replaced(rooms: Rooms) -> None:
    await rooms.commands.save_command(SCOPE, QUEUED)
    with pytest.raises(NotFound):
        await rooms.commands.get_command(OTHER, "c1")
    with pytest.raises(Forbidden):
        await rooms.commands.save_command(OTHER, QUEUED)
    await rooms.commands.save_command(OTHER, msgspec.structs.replace(QUEUED, tenant_id="other", name="theirs"))
    assert (await rooms.commands.get_command(SCOPE, "c1")).name == "locate"
    assert (await rooms.commands.list_commands(OTHER, "d", PageRequest())).total == 1


async def test_a_list_has_one_devices_commands_newest_first(rooms: Rooms) -> None:
    for number, device in enumerate(("d", "e", "d", "d")):
        command = msgspec.structs.replace(QUEUED, id=f"c{number}", device_id=device, created_at_ms=number)
        await rooms.commands.save_command(SCOPE, command)
    page = await rooms.commands.list_commands(SCOPE, "d", PageRequest(1, 2))
    assert ([command.id for command in page.items], page.total) == (["c3", "c2"], 3)
    oldest = await rooms.commands.list_commands(SCOPE, "d", PageRequest(1, 1, "created_at"))
    assert [command.id for command in oldest.items] == ["c0"]
    with pytest.raises(Rejected):
        await rooms.commands.list_commands(SCOPE, "d", PageRequest(sort="args"))


async def test_open_commands_are_those_queued_or_sent_of_all_tenants(rooms: Rooms) -> None:
    for number, status in enumerate(("sent", "queued", "acknowledged", "failed", "timeout", "expired")):
        command = msgspec.structs.replace(QUEUED, id=status, status=status, created_at_ms=9 - number)
        await rooms.commands.save_command(SCOPE, command)
    await rooms.commands.save_command(OTHER, msgspec.structs.replace(QUEUED, tenant_id="other", created_at_ms=0))
    assert [command.id for command in await rooms.commands.open_commands()] == ["c1", "queued", "sent"]
