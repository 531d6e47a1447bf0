"""The contract of DeviceRepository, on the database and in memory."""

from __future__ import annotations

import msgspec
import pytest
from fakes.rooms import OTHER, SCOPE, Rooms

from gateway.alarms.model import AlarmFilter
from gateway.core.errors import Conflict, Forbidden, NotFound, Rejected
from gateway.core.flow import AlarmChange, StateDelta
from gateway.things.model import Command, Device, Product
from gateway.things.ports import DeviceFilter, PageRequest

pytestmark = pytest.mark.usefixtures("product")

ANY = DeviceFilter()
HOSTILE = ["'; DROP TABLE device; --", '"', "%", "_", "\\", "d1' OR '1'='1", "$.a", "é"]


def a_device(key: int, device_id: str, **fields: object) -> Device:
    return msgspec.structs.replace(
        Device(key=key, tenant_id="default", id=device_id, product_id="p", name=f"Device {key}"), **fields
    )


async def ids(rooms: Rooms, which: DeviceFilter = ANY, page: PageRequest | None = None) -> list[str]:
    found = await rooms.devices.list_devices(SCOPE, which, page or PageRequest())
    return [device.id for device in found.items]


async def test_a_device_comes_back_as_it_was_saved(rooms: Rooms) -> None:
    device = a_device(
        7,
        "d",
        tags={"site": "北京", "empty": ""},
        enabled=False,
        credential_digest="0f",
        credential_source="issued",
        online=True,
        last_seen_ms=5,
        created_at_ms=3,
        updated_at_ms=4,
    )
    await rooms.devices.add_device(SCOPE, device)
    assert await rooms.devices.all_devices() == [device]


async def test_an_update_leaves_the_session_to_the_journal(rooms: Rooms) -> None:
    await rooms.devices.add_device(SCOPE, a_device(1, "d", online=True, last_seen_ms=5))
    await rooms.devices.save_device(SCOPE, a_device(1, "d", name="new", online=False, last_seen_ms=None))
    (device,) = await rooms.devices.all_devices()
    assert (device.name, device.online, device.last_seen_ms) == ("new", True, 5)


@pytest.mark.parametrize("clash", [a_device(1, "other-id"), a_device(2, "d")], ids=["same key", "same id"])
async def test_a_key_or_id_that_is_taken_is_a_conflict(rooms: Rooms, clash: Device) -> None:
    await rooms.devices.add_device(SCOPE, a_device(1, "d"))
    with pytest.raises(Conflict):
        await rooms.devices.add_device(SCOPE, clash)
    assert await ids(rooms) == ["d"]


@pytest.mark.parametrize(
    "nobody", [a_device(1, "other-id"), a_device(2, "d"), a_device(2, "e")], ids=["other id", "other key", "neither"]
)
async def test_a_change_never_makes_a_device(rooms: Rooms, nobody: Device) -> None:
    await rooms.devices.add_device(SCOPE, a_device(1, "d"))
    with pytest.raises(NotFound):
        await rooms.devices.save_device(SCOPE, nobody)
    assert await rooms.devices.all_devices() == [a_device(1, "d")]
    entries = (await rooms.audit.list_audit(SCOPE, PageRequest(sort="seq"), entity="device")).items
    assert [entry.action for entry in entries] == ["create"]


async def test_the_key_of_a_deleted_device_is_not_given_again(rooms: Rooms) -> None:
    assert await rooms.devices.next_key() == 1
    await rooms.devices.add_device(SCOPE, a_device(1, "d"))
    await rooms.devices.add_device(SCOPE, a_device(7, "e"))
    assert await rooms.devices.next_key() == 8
    await rooms.devices.delete_device(SCOPE, "e")
    assert await rooms.devices.next_key() == 8


async def test_a_device_of_an_unknown_product_is_rejected_by_name(rooms: Rooms) -> None:
    with pytest.raises(Rejected, match="nothing"):
        await rooms.devices.add_device(SCOPE, a_device(1, "d", product_id="nothing"))
    assert await ids(rooms) == []


async def test_another_tenants_device_is_neither_seen_nor_touched(rooms: Rooms) -> None:
    await rooms.devices.add_device(SCOPE, a_device(1, "d"))
    assert (await rooms.devices.list_devices(OTHER, ANY, PageRequest())).total == 0
    with pytest.raises(NotFound):
        await rooms.devices.delete_device(OTHER, "d")
    for store in (rooms.devices.add_device, rooms.devices.save_device):
        with pytest.raises(Forbidden):
            await store(OTHER, a_device(1, "d"))
    assert await ids(rooms) == ["d"]


async def test_the_same_id_in_two_tenants_is_two_devices(rooms: Rooms) -> None:
    await rooms.products.save_product(OTHER, Product(tenant_id="other", id="p"))
    await rooms.devices.add_device(SCOPE, a_device(1, "d"))
    await rooms.devices.add_device(OTHER, a_device(2, "d", tenant_id="other"))
    await rooms.devices.delete_device(OTHER, "d")
    assert await ids(rooms) == ["d"]


async def test_a_list_is_filtered_by_each_condition(rooms: Rooms) -> None:
    await rooms.products.save_product(SCOPE, Product(tenant_id="default", id="q"))
    await rooms.devices.add_device(SCOPE, a_device(1, "a1", tags={"site": "x", "odd=key": "1"}, online=True))
    await rooms.devices.add_device(SCOPE, a_device(2, "a2", tags={"site": "y"}, product_id="q"))
    await rooms.devices.add_device(SCOPE, a_device(3, "b3", name="Boiler 100%"))
    assert await ids(rooms, DeviceFilter(product_id="q")) == ["a2"]
    assert await ids(rooms, DeviceFilter(online=True)) == ["a1"]
    assert await ids(rooms, DeviceFilter(online=False)) == ["a2", "b3"]
    assert await ids(rooms, DeviceFilter(tag="site")) == ["a1", "a2"]
    assert await ids(rooms, DeviceFilter(tag="site=y")) == ["a2"]
    assert await ids(rooms, DeviceFilter(tag="site=")) == []
    assert await ids(rooms, DeviceFilter(search="A")) == ["a1", "a2"]
    assert await ids(rooms, DeviceFilter(search="boil")) == ["b3"]
    assert await ids(rooms, DeviceFilter(search="100%")) == ["b3"]
    assert await ids(rooms, DeviceFilter(search="%3")) == []
    assert await ids(rooms, DeviceFilter(search="a", tag="site=x", online=True, product_id="p")) == ["a1"]


@pytest.mark.parametrize("text", HOSTILE)
async def test_sql_in_any_text_is_only_text(rooms: Rooms, text: str) -> None:
    await rooms.devices.add_device(SCOPE, a_device(1, "plain"))
    await rooms.devices.add_device(SCOPE, a_device(2, text, name=text, tags={text: text}))
    for which in (DeviceFilter(tag=f"{text}={text}"), DeviceFilter(tag=text)):
        # A key with an equals sign in it can only be asked for as key=value.
        if "=" not in text:
            assert await ids(rooms, which) == [text]
    assert text in await ids(rooms, DeviceFilter(search=text))
    assert await ids(rooms, DeviceFilter(product_id=text)) == []
    await rooms.devices.delete_device(SCOPE, text)
    assert await ids(rooms) == ["plain"]


@pytest.mark.parametrize("sort", ["credential_digest", "id; DROP TABLE device", "--id", "key", "1"])
async def test_only_white_listed_fields_sort(rooms: Rooms, sort: str) -> None:
    with pytest.raises(Rejected, match="sort"):
        await rooms.devices.list_devices(SCOPE, ANY, PageRequest(sort=sort))


async def test_pages_hold_every_device_once_and_know_the_total(rooms: Rooms) -> None:
    for key in range(1, 8):
        await rooms.devices.add_device(SCOPE, a_device(key, f"d{key}", name="same"))
    seen: list[str] = []
    for number in range(1, 5):
        page = await rooms.devices.list_devices(SCOPE, ANY, PageRequest(number, 3, "name"))
        assert page.total == 7
        seen += [device.id for device in page.items]
    assert sorted(seen) == [f"d{key}" for key in range(1, 8)]
    assert await ids(rooms, page=PageRequest(1, 2, "-id")) == ["d7", "d6"]
    assert await ids(rooms, page=PageRequest(2**70, 2**62)) == []
    assert len(await ids(rooms, page=PageRequest(1, 2**70))) == 7


@pytest.mark.parametrize("page", [PageRequest(0), PageRequest(-1), PageRequest(1, 0)])
async def test_a_page_that_cannot_be_is_rejected(rooms: Rooms, page: PageRequest) -> None:
    with pytest.raises(Rejected):
        await rooms.devices.list_devices(SCOPE, ANY, page)


async def test_deleting_a_device_takes_its_commands_alarms_and_rule_states_along(rooms: Rooms) -> None:
    for key, device_id in ((1, "d"), (2, "e")):
        await rooms.devices.add_device(SCOPE, a_device(key, device_id))
        command = Command(id=f"c-{device_id}", tenant_id="default", device_id=device_id, name="n")
        await rooms.commands.save_command(SCOPE, command)
        raised = AlarmChange("raise", "default", device_id, "r", 1)
        await rooms.alarms.apply([raised], [StateDelta("default", "r", device_id, {"a": 1})])
    await rooms.devices.delete_device(SCOPE, "d")
    assert [command.device_id for command in await rooms.commands.open_commands()] == ["e"]
    assert [
        alarm.device_id for alarm in (await rooms.alarms.list_alarms(SCOPE, AlarmFilter(), PageRequest())).items
    ] == ["e"]
    assert [state.device_id for state in await rooms.alarms.load_state()] == ["e"]


async def test_the_audit_log_tells_that_a_credential_changed_but_not_what_it_is(rooms: Rooms) -> None:
    await rooms.devices.add_device(SCOPE, a_device(1, "d"))
    await rooms.devices.save_device(SCOPE, a_device(1, "d", credential_digest="canary", credential_source="operator"))
    await rooms.devices.delete_device(SCOPE, "d")
    entries = (await rooms.audit.list_audit(SCOPE, PageRequest(sort="seq"), entity="device")).items
    assert [entry.action for entry in entries] == ["create", "update", "delete"]
    assert b"canary" not in msgspec.json.encode(entries)
    assert entries[1].after is not None
    assert entries[1].after["credential_source"] == "operator"
