import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import msgspec
import pytest
from fakes.memory import MemoryDevices, MemoryProducts, MemoryStore
from fakes.traffic import FakeClock
from typing_extensions import override

from gateway.core.errors import Conflict, NotFound, NotReady, Rejected, StorageFailed
from gateway.core.flow import Quality
from gateway.core.scope import Scope, system_scope
from gateway.things.catalog import Catalog, DeviceChange, Reconciled
from gateway.things.config import ThingsConfig
from gateway.things.credentials import Credentials
from gateway.things.model import Device, Product, Property, ThingModel
from gateway.things.ports import DeviceFilter, PageRequest

US = system_scope("ann")
THEM = system_scope("bob", "other")
MODEL = ThingModel(properties={"t": Property(type="float", maximum=10)})


class SlowDevices(MemoryDevices):
    """Waits inside a call for as long as it is told, or fails."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.go = asyncio.Event()
        self.go.set()
        self.entered = asyncio.Event()
        self.fail: StorageFailed | None = None
        self.saves = 0

    async def _wait(self) -> None:
        self.entered.set()
        await self.go.wait()
        if self.fail is not None:
            raise self.fail

    @override
    async def save_device(self, scope: Scope, device: Device) -> None:
        await self._wait()
        self.saves += 1
        await super().save_device(scope, device)

    @override
    async def add_device(self, scope: Scope, device: Device) -> None:
        await self._wait()
        await super().add_device(scope, device)

    @override
    async def delete_device(self, scope: Scope, device_id: str) -> None:
        await self._wait()
        await super().delete_device(scope, device_id)


class Room:
    """A catalog over rows in memory."""

    def __init__(self, **config: Any) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.devices = SlowDevices(self.store)
        self.credentials = Credentials(bytes(32))
        self.config = ThingsConfig(**config)
        self.told: list[tuple[str, DeviceChange]] = []
        self.catalog = self.again()
        self.catalog.on_device_changed(lambda device, what: self.told.append((device.id, what)))

    def again(self) -> Catalog:
        """A catalog as a new start makes it."""
        return Catalog(MemoryProducts(self.store), self.devices, self.clock, self.credentials, self.config)

    def commit(self, device: Device) -> None:
        """What the journal writes of a device that registered itself, and its news."""
        self.store.devices[device.tenant_id, device.id] = msgspec.structs.replace(device)
        self.catalog.confirm(device)


def product(product_id: str = "p", **fields: Any) -> Product:
    return Product(**{"tenant_id": "default", "id": product_id, "registration": "auto", "model": MODEL, **fields})


async def with_device(**config: Any) -> Room:
    room = Room(**config)
    await room.catalog.create_product(US, product())
    await room.catalog.create_device(US, "d", "p", "Pump", {"room": "3"})
    return room


async def all_of(room: Room, **which: Any) -> list[str]:
    page = await room.catalog.list_devices(US, DeviceFilter(**which), PageRequest())
    return [device.id for device in page.items]


# Products


async def test_a_new_start_finds_what_was_stored() -> None:
    room = await with_device()
    catalog = room.again()
    await catalog.load()
    assert catalog.product(US, "p") == room.catalog.product(US, "p")
    assert catalog.device(US, "d") == room.catalog.device(US, "d")
    assert catalog.all_devices() == [catalog.device(US, "d")]
    fresh = catalog.allocate("default", "p", "e", 1)
    assert fresh.key > catalog.device(US, "d").key


async def test_a_product_is_created_in_the_tenant_that_asks() -> None:
    room = Room()
    made = await room.catalog.create_product(THEM, product(source="file", created_at_ms=5))
    assert (made.tenant_id, made.source, made.created_at_ms) == ("other", "api", room.clock.now_ms())
    assert room.catalog.products(US) == []
    with pytest.raises(NotFound):
        room.catalog.product(US, "p")
    assert room.store.audit[-1].actor == "bob"


async def test_a_product_exists_once() -> None:
    room = await with_device()
    with pytest.raises(Conflict, match="exists already"):
        await room.catalog.create_product(US, product())


async def test_two_at_once_create_one_product() -> None:
    room = Room()
    create = room.catalog.create_product
    done = await asyncio.gather(create(US, product()), create(US, product()), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["Conflict", "Product"]


async def test_a_product_that_is_not_well_formed_is_not_stored() -> None:
    room = Room()
    with pytest.raises(Rejected, match=r"model\.properties\.t\.unit"):
        await room.catalog.create_product(
            US, product(model=ThingModel(properties={"t": Property(type="int", unit="x")}))
        )
    assert room.store.products == {}
    assert room.catalog.products(US) == []


async def test_a_changed_product_gets_another_normaliser_and_an_unchanged_one_keeps_its() -> None:
    room = await with_device()
    before = room.catalog.normaliser("default", "p")
    assert room.catalog.normaliser("default", "p") is before
    assert before.normalise({"t": 50.0})[1] == {"t": Quality.OUT_OF_RANGE}
    created = room.catalog.product(US, "p").created_at_ms
    room.clock.advance(5)
    after = await room.catalog.replace_product(US, product(model=ThingModel(properties={"t": Property(type="float")})))
    assert room.catalog.normaliser("default", "p").normalise({"t": 50.0})[1] is None
    assert (after.created_at_ms, after.updated_at_ms) == (created, created + 5000)


async def test_a_product_is_replaced_only_where_it_is() -> None:
    with pytest.raises(NotFound):
        await Room().catalog.replace_product(US, product())


async def test_a_product_with_devices_is_not_deleted() -> None:
    room = await with_device()
    with pytest.raises(Conflict, match="has 1 devices"):
        await room.catalog.delete_product(US, "p")
    await room.catalog.delete_device(US, "d")
    await room.catalog.delete_product(US, "p")
    assert room.catalog.products(US) == []
    assert room.store.products == {}
    with pytest.raises(NotFound):
        room.catalog.normaliser("default", "p")
    with pytest.raises(NotFound):
        await room.catalog.delete_product(US, "p")


async def test_a_product_whose_deletion_fails_is_still_there() -> None:
    room = await with_device()
    room.catalog.forget(room.catalog.device(US, "d"))  # the row stays, so that storage refuses
    with pytest.raises(Conflict):
        await room.catalog.delete_product(US, "p")
    assert room.catalog.product(US, "p").id == "p"


# Products that files declare


async def test_identical_declarations_change_nothing() -> None:
    room = Room()
    assert await room.catalog.reconcile([product("a"), product("b")]) == Reconciled(added=("a", "b"))
    entries = len(room.store.audit)
    room.clock.advance(60)
    assert await room.catalog.reconcile([product("b"), product("a")]) == Reconciled()
    catalog = room.again()
    await catalog.load()
    assert await catalog.reconcile([product("a"), product("b")]) == Reconciled()
    assert len(room.store.audit) == entries


async def test_only_the_changed_declaration_is_replaced() -> None:
    room = Room()
    await room.catalog.reconcile([product("a"), product("b")])
    kept = room.catalog.product(US, "b")
    assert await room.catalog.reconcile([product("a", name="A"), product("b")]) == Reconciled(changed=("a",))
    assert room.catalog.product(US, "a").name == "A"
    assert room.catalog.product(US, "b") is kept


async def test_a_withdrawn_product_is_deleted_or_disabled_while_it_has_devices_and_comes_back() -> None:
    room = Room()
    await room.catalog.reconcile([product("a"), product("b")])
    await room.catalog.create_device(US, "d", "b")
    assert await room.catalog.reconcile([]) == Reconciled(removed=("a",), disabled=("b",))
    assert not room.catalog.product(US, "b").enabled
    assert await room.catalog.reconcile([]) == Reconciled()
    assert await room.catalog.reconcile([product("b")]) == Reconciled(changed=("b",))
    assert room.catalog.product(US, "b").enabled
    assert room.catalog.device(US, "d").product_id == "b"


async def test_products_of_the_api_are_left_alone_by_files_that_do_not_name_them() -> None:
    room = await with_device()
    assert await room.catalog.reconcile([]) == Reconciled()
    assert await room.catalog.reconcile([product()]) == Reconciled(changed=("p",))
    assert room.catalog.product(US, "p").source == "file"


async def test_a_declared_product_is_changed_in_its_file_only() -> None:
    room = Room()
    await room.catalog.reconcile([product()])
    with pytest.raises(Conflict, match="configuration file"):
        await room.catalog.replace_product(US, product(name="x"))
    with pytest.raises(Conflict, match="configuration file"):
        await room.catalog.delete_product(US, "p")


async def test_one_wrong_declaration_changes_nothing() -> None:
    room = Room()
    with pytest.raises(Rejected, match=r"products\.b: retention_days"):
        await room.catalog.reconcile([product("a"), product("b", retention_days=-1.0)])
    with pytest.raises(Rejected, match="declared twice"):
        await room.catalog.reconcile([product("a"), product("a")])
    assert room.store.products == {}


# Devices that register themselves


async def test_an_unknown_device_is_admitted_and_found_at_once() -> None:
    room = await with_device()
    device = room.catalog.allocate("default", "p", "e", 17)
    assert room.catalog.device_by_id("default", "e") is device
    assert (device.created_at_ms, device.product_id, device.enabled) == (17, "p", True)
    assert device.key != room.catalog.device(US, "d").key
    assert room.catalog.device_by_id("other", "e") is None


async def test_a_device_whose_commit_was_refused_is_unknown_again_and_its_key_is_not_used_twice() -> None:
    room = await with_device()
    device = room.catalog.allocate("default", "p", "e", 1)
    room.catalog.forget(device)
    assert room.catalog.device_by_id("default", "e") is None
    second = room.catalog.allocate("default", "p", "e", 2)
    assert second.key != device.key
    room.catalog.forget(device)
    assert room.catalog.device_by_id("default", "e") is second


@pytest.mark.parametrize(
    ("product_id", "device_id", "reason"),
    [("none", "e", "not_auto"), ("pre", "e", "not_auto"), ("off", "e", "not_auto"), ("p", "a/b", "bad_id")],
)
async def test_what_may_not_register_itself_is_refused_and_counted(
    product_id: str, device_id: str, reason: str
) -> None:
    room = await with_device()
    await room.catalog.create_product(US, product("pre", registration="preregistered"))
    await room.catalog.create_product(US, product("off", enabled=False))
    with pytest.raises(Rejected):
        room.catalog.allocate("default", product_id, device_id, 1)
    assert room.catalog.refused == {reason: 1}
    assert room.catalog.device_by_id("default", device_id) is None


async def test_a_known_device_is_not_admitted_again() -> None:
    room = await with_device()
    with pytest.raises(Rejected, match="exists"):
        room.catalog.allocate("default", "p", "d", 1)


async def test_devices_that_register_themselves_are_bounded_per_product() -> None:
    room = await with_device(auto_devices_per_product=2)
    await room.catalog.create_product(US, product("q"))
    second = room.catalog.allocate("default", "p", "e", 1)
    with pytest.raises(NotReady, match="auto_devices_per_product"):
        room.catalog.allocate("default", "p", "f", 1)
    room.catalog.allocate("default", "q", "f", 1)
    room.catalog.forget(second)
    room.catalog.allocate("default", "p", "g", 1)
    figures = {(sample.name, *sample.labels.values()): sample.value for sample in room.catalog.samples()}
    assert figures["gateway_devices_refused_total", "too_many"] == 1
    assert figures["gateway_devices_registered_total",] == 3
    assert figures["gateway_devices",] == 3


Change: TypeAlias = Callable[[Catalog], Coroutine[Any, Any, object]]
CHANGES = [
    pytest.param(lambda catalog: catalog.update_device(US, "e", enabled=False), id="update"),
    pytest.param(lambda catalog: catalog.set_credential(US, "e", "secret"), id="set_credential"),
    pytest.param(lambda catalog: catalog.delete_device(US, "e"), id="delete"),
]


async def waiting(room: Room, change: Change) -> asyncio.Task[object]:
    """A change that has gone as far as it can."""
    task = asyncio.get_running_loop().create_task(change(room.catalog))
    for _ in range(10):
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_waits_until_the_row_of_a_device_that_has_just_registered_is_there(change: Change) -> None:
    room = await with_device()
    device = room.catalog.allocate("default", "p", "e", 1)
    task = await waiting(room, change)
    assert not task.done()
    assert (device.enabled, room.told, set(room.store.devices)) == (True, [], {("default", "d")})
    room.commit(device)
    await task
    assert len(room.told) == 1
    assert room.store.devices.get(("default", "e"), device) == device


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_a_device_whose_registration_was_not_stored_finds_none(change: Change) -> None:
    room = await with_device()
    device = room.catalog.allocate("default", "p", "e", 1)
    task = await waiting(room, change)
    room.catalog.forget(device)
    again = room.catalog.allocate("default", "p", "e", 2)
    with pytest.raises(NotFound):
        await task
    assert set(room.store.devices) == {("default", "d")}
    assert again.enabled
    assert room.told == []


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_waits_for_a_disk_only_so_long_and_changes_nothing(change: Change) -> None:
    room = await with_device(settle_s=0.01)
    device = room.catalog.allocate("default", "p", "e", 1)
    with pytest.raises(NotReady, match="not stored yet"):
        await change(room.catalog)
    assert (device.enabled, room.told, set(room.store.devices)) == (True, [], {("default", "d")})
    room.commit(device)
    await room.catalog.update_device(US, "e", name="E")


async def test_a_new_start_gives_a_device_that_comes_back_another_key() -> None:
    room = await with_device()
    before = room.catalog.device(US, "d").key
    await room.catalog.delete_device(US, "d")
    catalog = room.again()
    await catalog.load()
    assert (await catalog.create_device(US, "d", "p")).key > before
    assert catalog.allocate("default", "p", "e", 1).key > before + 1


# Devices, for people


async def test_a_device_is_created_listed_and_read_in_its_tenant_only() -> None:
    room = await with_device()
    device = room.catalog.device(US, "d")
    assert (device.name, device.tags, device.enabled) == ("Pump", {"room": "3"}, True)
    assert await all_of(room) == ["d"]
    assert await all_of(room, tag="room=3") == ["d"]
    assert await all_of(room, tag="room=4") == []
    with pytest.raises(NotFound):
        room.catalog.device(THEM, "d")


@pytest.mark.parametrize(
    ("device_id", "product_id", "refusal"), [("d", "p", Conflict), ("e", "none", NotFound), ("a/b", "p", Rejected)]
)
async def test_a_device_that_cannot_be_is_not_created(
    device_id: str, product_id: str, refusal: type[Exception]
) -> None:
    room = await with_device()
    with pytest.raises(refusal):
        await room.catalog.create_device(US, device_id, product_id)
    assert await all_of(room) == ["d"]


async def test_a_device_that_registers_while_it_is_being_created_waits() -> None:
    room = await with_device()
    room.devices.go.clear()
    room.devices.entered.clear()
    creation = asyncio.get_running_loop().create_task(room.catalog.create_device(US, "e", "p"))
    await room.devices.entered.wait()
    with pytest.raises(NotReady):
        room.catalog.allocate("default", "p", "e", 1)
    room.devices.go.set()
    device = await creation
    assert room.catalog.device_by_id("default", "e") is device


async def test_a_creation_that_is_not_stored_did_not_happen() -> None:
    room = await with_device()
    room.devices.fail = StorageFailed("disk full")
    with pytest.raises(StorageFailed):
        await room.catalog.create_device(US, "e", "p")
    assert room.catalog.device_by_id("default", "e") is None
    room.devices.fail = None
    room.catalog.allocate("default", "p", "e", 1)


async def test_the_list_shows_the_state_that_the_index_knows() -> None:
    room = await with_device()
    device = room.catalog.device(US, "d")
    device.online, device.last_seen_ms = True, 42
    page = await room.catalog.list_devices(US, DeviceFilter(), PageRequest())
    assert page.items == [device]
    assert page.total == 1


async def test_a_change_keeps_the_object_that_sessions_hold_and_is_told() -> None:
    room = await with_device()
    device = room.catalog.device(US, "d")
    assert await room.catalog.update_device(US, "d", name="New", tags={}) is device
    await room.catalog.update_device(US, "d", enabled=False)
    await room.catalog.update_device(US, "d", enabled=True)
    await room.catalog.update_device(US, "d", name="New")
    assert (device.name, device.tags, device.enabled) == ("New", {}, True)
    assert room.told == [("d", "updated"), ("d", "disabled"), ("d", "enabled")]
    with pytest.raises(Rejected):
        await room.catalog.update_device(US, "d", tags={"": "x"})
    with pytest.raises(NotFound):
        await room.catalog.update_device(US, "e", name="x")


async def test_a_change_that_is_not_stored_does_not_show() -> None:
    room = await with_device()
    room.devices.fail = StorageFailed("disk full")
    with pytest.raises(StorageFailed):
        await room.catalog.update_device(US, "d", enabled=False)
    assert room.catalog.device(US, "d").enabled
    assert room.told == []


async def test_a_credential_that_a_device_adopts_while_it_is_renamed_is_not_lost() -> None:
    room = await with_device()
    device = room.catalog.device(US, "d")
    room.devices.go.clear()
    room.devices.entered.clear()
    change = asyncio.get_running_loop().create_task(room.catalog.update_device(US, "d", name="New"))
    await room.devices.entered.wait()
    device.credential_digest, device.credential_source = "digest", "adopted"
    room.devices.go.set()
    await change
    stored = room.store.devices["default", "d"]
    assert (stored.name, stored.credential_digest, device.credential_digest) == ("New", "digest", "digest")


async def test_an_operator_sets_and_resets_a_credential() -> None:
    room = await with_device()
    device = room.catalog.device(US, "d")
    await room.catalog.set_credential(US, "d", "secret")
    assert device.credential_source == "operator"
    assert room.credentials.verify(device, "secret")
    assert not room.credentials.on_register(device)[0]
    await room.catalog.set_credential(US, "d", None)
    assert (device.credential_digest, device.credential_source) == (None, None)
    assert room.credentials.on_register(device)[0]
    assert room.told == [("d", "credential_changed")] * 2
    assert "secret" not in str(room.store.audit)
    with pytest.raises(Rejected):
        await room.catalog.set_credential(US, "d", "")
    with pytest.raises(NotFound):
        await room.catalog.set_credential(US, "e", "secret")


async def test_a_deleted_device_is_refused_before_it_is_gone() -> None:
    room = await with_device()
    device = room.catalog.device(US, "d")
    room.devices.go.clear()
    room.devices.entered.clear()
    deletion = asyncio.get_running_loop().create_task(room.catalog.delete_device(US, "d"))
    await room.devices.entered.wait()
    assert not device.enabled
    assert room.told == [("d", "deleted")]
    with pytest.raises(NotReady):
        room.catalog.allocate("default", "p", "d", 1)
    with pytest.raises(Conflict, match="being deleted"):
        await room.catalog.delete_device(US, "d")
    room.devices.go.set()
    await deletion
    assert room.catalog.device_by_id("default", "d") is None
    assert room.store.devices == {}
    assert room.catalog.allocate("default", "p", "d", 1).key != device.key


async def test_a_deletion_leaves_the_last_messages_time_to_be_stored() -> None:
    room = await with_device()
    room.catalog.device(US, "d").last_seen_ms = room.clock.now_ms()
    deletion = await waiting(room, lambda catalog: catalog.delete_device(US, "d"))
    assert room.told == [("d", "deleted")]
    assert ("default", "d") in room.store.devices
    await deletion
    assert room.store.devices == {}


async def test_a_device_whose_deletion_fails_goes_on() -> None:
    room = await with_device()
    room.devices.fail = StorageFailed("disk full")
    with pytest.raises(StorageFailed):
        await room.catalog.delete_device(US, "d")
    assert room.catalog.device(US, "d").enabled
    room.devices.fail = None
    await room.catalog.update_device(US, "d", name="still here")


async def test_a_storm_of_registrations_leaves_no_trace_of_those_whose_fate_is_known() -> None:
    room = await with_device()
    devices = [room.catalog.allocate("default", "p", f"n{number}", 1) for number in range(500)]
    for number, device in enumerate(devices):
        (room.commit if number % 2 else room.catalog.forget)(device)
    assert len(room.catalog._unconfirmed) == 0


@pytest.mark.parametrize("wrong", [{"value_items": 0}, {"settle_s": -1.0}, {"settle_s": 61.0}, {"value_depth": 99}])
def test_bounds_with_which_nothing_works_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, ThingsConfig)
