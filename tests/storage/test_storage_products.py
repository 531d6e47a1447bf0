"""The contract of ProductRepository, on the database and in memory."""

from __future__ import annotations

import msgspec
import pytest
from fakes.rooms import OTHER, SCOPE, Rooms

from gateway.core.errors import Conflict, Forbidden, NotFound
from gateway.things.model import Device, FieldMapping, Product, Property, ThingModel
from gateway.things.ports import PageRequest

FULL = Product(
    tenant_id="default",
    id="jt808-terminal",
    name="终端",
    plugin_id="jt808",
    registration="auto",
    authentication="required",
    model=ThingModel(properties={"speed": Property(type="float", unit="km/h", maximum=200.0)}, tags={"a": "b"}),
    mapping=(FieldMapping(field="v", rename="speed", scale=0.1),),
    retention_days=1.5,
    enabled=False,
    source="file",
    created_at_ms=1,
    updated_at_ms=2,
)


async def test_a_product_comes_back_as_it_was_saved(rooms: Rooms) -> None:
    await rooms.products.save_product(SCOPE, FULL)
    assert await rooms.products.all_products() == [FULL]


async def test_saving_again_replaces_the_product(rooms: Rooms) -> None:
    await rooms.products.save_product(SCOPE, FULL)
    changed = msgspec.structs.replace(FULL, name="new", plugin_id=None, retention_days=None)
    await rooms.products.save_product(SCOPE, changed)
    assert await rooms.products.all_products() == [changed]


async def test_two_tenants_may_use_the_same_product_id(rooms: Rooms) -> None:
    theirs = Product(tenant_id="other", id=FULL.id)
    await rooms.products.save_product(SCOPE, FULL)
    await rooms.products.save_product(OTHER, theirs)
    assert await rooms.products.all_products() == [FULL, theirs]
    await rooms.products.delete_product(OTHER, FULL.id)
    assert await rooms.products.all_products() == [FULL]


async def test_a_product_of_another_tenant_is_never_written(rooms: Rooms) -> None:
    with pytest.raises(Forbidden):
        await rooms.products.save_product(OTHER, FULL)
    assert await rooms.products.all_products() == []


async def test_deleting_what_does_not_exist_is_not_found(rooms: Rooms) -> None:
    await rooms.products.save_product(SCOPE, FULL)
    with pytest.raises(NotFound):
        await rooms.products.delete_product(SCOPE, "nothing")
    with pytest.raises(NotFound):
        await rooms.products.delete_product(OTHER, FULL.id)


async def test_a_product_with_devices_is_not_deleted(rooms: Rooms) -> None:
    await rooms.products.save_product(SCOPE, FULL)
    await rooms.devices.add_device(SCOPE, Device(key=1, tenant_id="default", id="d", product_id=FULL.id))
    with pytest.raises(Conflict):
        await rooms.products.delete_product(SCOPE, FULL.id)
    await rooms.devices.delete_device(SCOPE, "d")
    await rooms.products.delete_product(SCOPE, FULL.id)
    assert await rooms.products.all_products() == []


async def test_each_change_of_a_product_is_in_the_audit_log_with_before_and_after(rooms: Rooms) -> None:
    await rooms.products.save_product(SCOPE, FULL)
    await rooms.products.save_product(SCOPE, msgspec.structs.replace(FULL, name="new"))
    await rooms.products.delete_product(SCOPE, FULL.id)
    entries = (await rooms.audit.list_audit(SCOPE, PageRequest(sort="seq"))).items
    assert [(entry.action, entry.entity, entry.entity_id, entry.actor) for entry in entries] == [
        ("create", "product", FULL.id, "ann"),
        ("update", "product", FULL.id, "ann"),
        ("delete", "product", FULL.id, "ann"),
    ]
    assert entries[0].before is None
    assert entries[1].before is not None
    assert entries[1].after is not None
    assert (entries[1].before["name"], entries[1].after["name"]) == ("终端", "new")
    assert entries[1].after["model"]["properties"]["speed"]["maximum"] == 200
    assert entries[2].after is None
