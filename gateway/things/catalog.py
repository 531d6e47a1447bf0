"""The catalog: every product and device, in memory, as the gateway's one truth about them.

Owns the index that traffic reads, admission of devices that register themselves, and the changes that people and files
make; each change is stored first and shows afterwards. Does not know sessions: whoever does subscribes to changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Literal, TypeAlias

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.errors import Conflict, NotFound, NotReady, Rejected
from gateway.core.metrics import Sample
from gateway.core.scope import Scope, system_scope
from gateway.things.config import ThingsConfig
from gateway.things.credentials import Credentials
from gateway.things.model import Device, Product
from gateway.things.normalise import Normaliser
from gateway.things.ports import DeviceFilter, DeviceRepository, Page, PageRequest, ProductRepository
from gateway.things.validation import check_device, check_product, is_device_id

log = structlog.get_logger(__name__)

DeviceChange: TypeAlias = Literal["updated", "enabled", "disabled", "deleted", "credential_changed"]
"""What became of a device. After the last three its live session must not go on."""

DeviceListener: TypeAlias = Callable[[Device, DeviceChange], None]

_LAST_MESSAGES_S = 0.3
"""How long a deletion leaves what the device has just sent to reach the journal; a commit takes some 10 ms."""

_SAVES = 5
"""Times a device is saved again because its session changed meanwhile."""


class Reconciled(msgspec.Struct, frozen=True):
    """What a reconciliation did, by product id."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


class Catalog:
    """Products and devices of all tenants. `load` it before anything asks."""

    def __init__(
        self,
        products: ProductRepository,
        devices: DeviceRepository,
        clock: Clock,
        credentials: Credentials,
        config: ThingsConfig | None = None,
        stages: Collection[str] = (),
    ) -> None:
        """Start empty. `stages` are the names that products may give in theirs."""
        self._stages = frozenset(stages)
        self._stored_products = products
        self._stored_devices = devices
        self._clock = clock
        self._credentials = credentials
        self._config = config or ThingsConfig()
        self._products: dict[tuple[str, str], Product] = {}
        self._normalisers: dict[tuple[str, str], Normaliser] = {}
        self._devices: dict[tuple[str, str], Device] = {}
        self._device_counts: Counter[tuple[str, str]] = Counter()
        self._next_key = 1
        self._unconfirmed: dict[int, asyncio.Event] = {}
        self._reserved: set[tuple[str, str]] = set()
        self._changing = asyncio.Lock()
        self._listeners: list[DeviceListener] = []
        self.registered = 0
        self.refused: Counter[str] = Counter()

    async def load(self) -> None:
        """Read everything from storage, replacing what is known."""
        products = await self._stored_products.all_products()
        devices = await self._stored_devices.all_devices()
        self._next_key = await self._stored_devices.next_key()
        self._products.clear()
        self._normalisers.clear()
        self._devices.clear()
        self._device_counts.clear()
        for product in products:
            self._put_product(product)
        for device in devices:
            self._put_device(device)

    def on_device_changed(self, listener: DeviceListener) -> None:
        """Call `listener` on the loop's thread after each change that people make to a device. It must not raise."""
        self._listeners.append(listener)

    # For traffic: no waiting.

    def product_by_id(self, tenant_id: str, product_id: str) -> Product | None:
        """None when nobody declared it."""
        return self._products.get((tenant_id, product_id))

    def device_by_id(self, tenant_id: str, device_id: str) -> Device | None:
        """None when nobody registered it. The same object for as long as the device exists."""
        return self._devices.get((tenant_id, device_id))

    def normaliser(self, tenant_id: str, product_id: str) -> Normaliser:
        """The compiled thing model of a product; another one once the product changed. Raises NotFound."""
        key = (tenant_id, product_id)
        normaliser = self._normalisers.get(key)
        if normaliser is None:
            normaliser = self._normalisers[key] = Normaliser(self._product(*key), self._config)
        return normaliser

    def products_of_plugin(self, plugin_id: str) -> list[Product]:
        """Products of every tenant whose payloads the plugin reads."""
        return [product for product in self._products.values() if product.plugin_id == plugin_id]

    def all_devices(self) -> list[Device]:
        """Every device of every tenant."""
        return list(self._devices.values())

    def allocate(self, tenant_id: str, product_id: str, device_id: str, at_ms: int) -> Device:
        """Admit a device that nobody registered; its row is to be written with its first message.

        What became of the row is told by `confirm` or `forget`; changes that people make to the device wait for it.
        Raises Rejected for an id that cannot be one or a product that admits none, NotReady when there are too many or
        the id is just being created or deleted.
        """
        product = self.product_by_id(tenant_id, product_id)
        if product is None or not product.enabled or product.registration != "auto":
            raise self._refused("not_auto", Rejected(f"product {product_id} admits no device by itself"))
        if not is_device_id(device_id):
            raise self._refused("bad_id", Rejected("this cannot be a device id"))
        if (tenant_id, device_id) in self._reserved:
            raise self._refused("busy", NotReady("the device is just being created or deleted"))
        if (tenant_id, device_id) in self._devices:
            raise self._refused("exists", Rejected("the device exists"))
        most = self._config.auto_devices_per_product
        if self._device_counts[tenant_id, product_id] >= most:
            reason = f"product {product_id} has {most} devices; raise things.auto_devices_per_product for more"
            raise self._refused("too_many", NotReady(reason))
        device = self._new_device(tenant_id, product_id, device_id, at_ms)
        self._put_device(device)
        self._unconfirmed[device.key] = asyncio.Event()
        self.registered += 1
        return device

    def confirm(self, device: Device) -> None:
        """The row of an allocated device is durable."""
        written = self._unconfirmed.pop(device.key, None)
        if written is not None:
            written.set()

    def forget(self, device: Device) -> None:
        """Undo `allocate`: its commit was refused."""
        if self._devices.get((device.tenant_id, device.id)) is device:
            self._drop_device(device)
        self.confirm(device)  # whoever waits for its row sees that the device is gone

    def samples(self) -> Iterable[Sample]:
        """Figures for `/metrics`."""
        yield Sample("gateway_products", "Products of all tenants.", "gauge", {}, len(self._products))
        yield Sample("gateway_devices", "Devices of all tenants.", "gauge", {}, len(self._devices))
        name, text = "gateway_devices_registered_total", "Devices that registered themselves."
        yield Sample(name, text, "counter", {}, self.registered)
        name, text = "gateway_devices_refused_total", "Devices that could not register themselves."
        for reason, count in self.refused.items():
            yield Sample(name, text, "counter", {"reason": reason}, count)

    # Products, for people.

    def products(self, scope: Scope) -> list[Product]:
        """Products of the tenant, by id."""
        found = [product for (tenant_id, _), product in self._products.items() if tenant_id == scope.tenant_id]
        return sorted(found, key=lambda product: product.id)

    def product(self, scope: Scope, product_id: str) -> Product:
        """Raises NotFound."""
        return self._product(scope.tenant_id, product_id)

    async def create_product(self, scope: Scope, product: Product) -> Product:
        """Raises Conflict where it exists, Rejected where it is not well-formed."""
        async with self._changing:
            if (scope.tenant_id, product.id) in self._products:
                raise Conflict(f"product {product.id} exists already")
            return await self._save_product(scope, product, source="api")

    async def replace_product(self, scope: Scope, product: Product) -> Product:
        """Raises NotFound, Conflict for a product that a file declares, Rejected where it is not well-formed."""
        async with self._changing:
            self._refuse_declared(self._product(scope.tenant_id, product.id))
            return await self._save_product(scope, product, source="api")

    async def delete_product(self, scope: Scope, product_id: str) -> None:
        """Raises NotFound, Conflict for a product that a file declares or that has devices."""
        async with self._changing:
            product = self._product(scope.tenant_id, product_id)
            self._refuse_declared(product)
            await self._delete_product(scope, product)

    async def reconcile(self, declared: list[Product]) -> Reconciled:
        """Make the products that files declare exactly these; identical ones are not touched.

        A file wins over a product of the same id made through the API. A product that is declared no more is deleted,
        or disabled while it has devices. Raises Rejected, changing nothing, when one is not well-formed.
        """
        for product in declared:
            self._check_declared(product)
        wanted = {(product.tenant_id, product.id): product for product in declared}
        if len(wanted) != len(declared):
            raise Rejected("products: one is declared twice")
        async with self._changing:
            added, changed = await self._save_declared(wanted)
            removed, disabled = await self._withdraw(set(wanted))
        done = Reconciled(tuple(added), tuple(changed), tuple(removed), tuple(disabled))
        if done != Reconciled():
            log.info("products reconciled", **msgspec.structs.asdict(done))
        return done

    # Devices, for people.

    def device(self, scope: Scope, device_id: str) -> Device:
        """Raises NotFound."""
        device = self.device_by_id(scope.tenant_id, device_id)
        if device is None:
            raise NotFound(f"no device {device_id[:64]!r}")
        return device

    async def list_devices(self, scope: Scope, which: DeviceFilter, page: PageRequest) -> Page[Device]:
        """Devices of the tenant as the index knows them; raises Rejected for a sort it does not know."""
        found = await self._stored_devices.list_devices(scope, which, page)
        found.items = [self._devices.get((device.tenant_id, device.id), device) for device in found.items]
        return found

    async def create_device(
        self,
        scope: Scope,
        device_id: str,
        product_id: str,
        name: str = "",
        tags: dict[str, str] | None = None,
        enabled: bool = True,  # noqa: FBT001, FBT002 - part of the API's port
    ) -> Device:
        """Register a device. Raises NotFound for the product, Conflict where it exists, Rejected."""
        check_device(device_id, name, tags)
        async with self._changing:
            self._product(scope.tenant_id, product_id)
            identity = (scope.tenant_id, device_id)
            if identity in self._devices:
                raise Conflict(f"device {device_id} exists already")
            device = self._new_device(scope.tenant_id, product_id, device_id, self._clock.now_ms())
            device.name, device.tags, device.enabled = name, dict(tags or {}), enabled
            self._reserved.add(identity)
            try:
                await self._stored_devices.add_device(scope, device)
            finally:
                self._reserved.discard(identity)
            self._put_device(device)
        return device

    async def update_device(
        self,
        scope: Scope,
        device_id: str,
        *,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        enabled: bool | None = None,
    ) -> Device:
        """Change what is given. Raises NotFound, Rejected, NotReady while the device is not stored yet."""
        await self._stored(scope, device_id)
        async with self._changing:
            device = self._changeable(scope, device_id)
            check_device(device_id, device.name if name is None else name, device.tags if tags is None else tags)
            was_enabled = device.enabled
            changes: dict[str, object] = {"name": name, "tags": tags, "enabled": enabled}
            changes = {field: value for field, value in changes.items() if value is not None}
            if all(getattr(device, field) == value for field, value in changes.items()):
                return device
            await self._save_device(scope, device, changes)
        if device.enabled != was_enabled:
            self._tell(device, "enabled" if device.enabled else "disabled")
        else:
            self._tell(device, "updated")
        return device

    async def set_credential(self, scope: Scope, device_id: str, credential: str | None) -> None:
        """Set a device's credential, or None to let it register anew. Raises as `update_device`."""
        digest = None if credential is None else self._credentials.checked(credential)
        await self._stored(scope, device_id)
        async with self._changing:
            device = self._changeable(scope, device_id)
            source = None if digest is None else "operator"
            await self._save_device(scope, device, {"credential_digest": digest, "credential_source": source})
        self._tell(device, "credential_changed")

    async def delete_device(self, scope: Scope, device_id: str) -> None:
        """Delete a device with all that is stored of it.

        Raises NotFound, Conflict while it is being deleted, NotReady while it is not stored yet.
        """
        device = await self._stored(scope, device_id)
        identity = (device.tenant_id, device.id)
        was_enabled = device.enabled
        # From here on its traffic is refused, and what is in flight finds its row until it is stored.
        device.enabled = False
        self._reserved.add(identity)
        try:
            self._tell(device, "deleted")
            await self._last_messages(device)
            async with self._changing:
                await self._stored_devices.delete_device(scope, device_id)
                self._drop_device(device)
        except BaseException:
            device.enabled = was_enabled
            raise
        finally:
            self._reserved.discard(identity)

    # How it is kept.

    def _product(self, tenant_id: str, product_id: str) -> Product:
        product = self._products.get((tenant_id, product_id))
        if product is None:
            raise NotFound(f"no product {product_id[:64]!r}")
        return product

    def _put_product(self, product: Product) -> None:
        key = (product.tenant_id, product.id)
        self._products[key] = product
        self._normalisers.pop(key, None)

    def _put_device(self, device: Device) -> None:
        self._devices[device.tenant_id, device.id] = device
        self._device_counts[device.tenant_id, device.product_id] += 1

    def _drop_device(self, device: Device) -> None:
        del self._devices[device.tenant_id, device.id]
        self._device_counts[device.tenant_id, device.product_id] -= 1

    def _new_device(self, tenant_id: str, product_id: str, device_id: str, at_ms: int) -> Device:
        key = self._next_key
        self._next_key += 1
        return Device(
            key=key,
            tenant_id=tenant_id,
            id=device_id,
            product_id=product_id,
            created_at_ms=at_ms,
            updated_at_ms=at_ms,
        )

    def _changeable(self, scope: Scope, device_id: str) -> Device:
        device = self.device(scope, device_id)
        if (device.tenant_id, device.id) in self._reserved:
            raise Conflict(f"device {device_id} is being deleted")
        return device

    async def _stored(self, scope: Scope, device_id: str) -> Device:
        """A device that has a row to change; waits for that of one that has just registered."""
        device = self._changeable(scope, device_id)
        written = self._unconfirmed.get(device.key)
        if written is None:
            return device
        try:
            await asyncio.wait_for(written.wait(), self._config.settle_s)
        except TimeoutError:
            reason = f"device {device_id} has just registered and is not stored yet: the disk is slow; try again"
            raise NotReady(reason) from None
        if self._changeable(scope, device_id) is not device:
            raise NotFound(f"no device {device_id[:64]!r}: its registration was not stored")
        return device

    async def _last_messages(self, device: Device) -> None:
        """Wait while what the device sent before it was refused may be on its way to the journal."""
        if device.last_seen_ms is not None:
            heard_s = (self._clock.now_ms() - device.last_seen_ms) / 1000
            await asyncio.sleep(max(0.0, _LAST_MESSAGES_S - max(0.0, heard_s)))

    async def _save_device(self, scope: Scope, device: Device, changes: dict[str, object]) -> None:
        """Store, then show. The device's own traffic goes on meanwhile: what it changed is saved again."""
        changes = {**changes, "updated_at_ms": self._clock.now_ms()}
        for _ in range(_SAVES):
            before = _of_session(device)
            await self._stored_devices.save_device(scope, msgspec.structs.replace(device, **changes))
            if _of_session(device) == before:
                break
        for field, value in changes.items():
            setattr(device, field, value)

    async def _save_product(self, scope: Scope, product: Product, source: Literal["api", "file"]) -> Product:
        now = self._clock.now_ms()
        present = self._products.get((scope.tenant_id, product.id))
        product = msgspec.structs.replace(
            product,
            tenant_id=scope.tenant_id,
            source=source,
            created_at_ms=now if present is None else present.created_at_ms,
            updated_at_ms=now,
        )
        self._check(product)
        await self._stored_products.save_product(scope, product)
        self._put_product(product)
        return product

    def _check(self, product: Product) -> None:
        """Raise Rejected, naming each faulty field by its path."""
        check_product(product)
        unknown = [name for name in product.stages if name not in self._stages]
        if unknown:
            known = ", ".join(sorted(self._stages)) or "none"
            raise Rejected(f"stages: there is no [stages.{unknown[0]}] in the configuration; known are: {known}")

    def _check_declared(self, product: Product) -> None:
        try:
            self._check(product)
        except Rejected as wrong:
            raise Rejected(f"products.{product.id}: {wrong}") from wrong

    async def _delete_product(self, scope: Scope, product: Product) -> None:
        key = (product.tenant_id, product.id)
        if self._device_counts[key]:
            raise Conflict(f"product {product.id} has {self._device_counts[key]} devices; delete them first")
        del self._products[key]
        try:
            await self._stored_products.delete_product(scope, product.id)
        except BaseException:
            self._products[key] = product
            raise
        self._normalisers.pop(key, None)

    async def _save_declared(self, wanted: dict[tuple[str, str], Product]) -> tuple[list[str], list[str]]:
        added: list[str] = []
        changed: list[str] = []
        for key, product in wanted.items():
            present = self._products.get(key)
            if present is not None and _declaration(present, present.source) == _declaration(product, "file"):
                continue
            await self._save_product(system_scope("config", key[0]), product, source="file")
            (added if present is None else changed).append(product.id)
        return added, changed

    async def _withdraw(self, wanted: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
        removed: list[str] = []
        disabled: list[str] = []
        for key, product in list(self._products.items()):
            if product.source != "file" or key in wanted:
                continue
            scope = system_scope("config", key[0])
            if not self._device_counts[key]:
                await self._delete_product(scope, product)
                removed.append(product.id)
            elif product.enabled:
                withdrawn = msgspec.structs.replace(product, enabled=False)
                await self._save_product(scope, withdrawn, source="file")
                disabled.append(product.id)
        return removed, disabled

    def _refused(self, reason: str, error: NotReady | Rejected) -> NotReady | Rejected:
        self.refused[reason] += 1
        return error

    def _refuse_declared(self, product: Product) -> None:
        if product.source == "file":
            raise Conflict(f"product {product.id} is declared in the configuration file; change it there")

    def _tell(self, device: Device, what: DeviceChange) -> None:
        for listener in self._listeners:
            listener(device, what)


def _of_session(device: Device) -> tuple[object, ...]:
    """What a device's own traffic and its changes by people both write in its row."""
    return (device.credential_digest, device.credential_source)


def _declaration(product: Product, source: Literal["api", "file"]) -> Product:
    """A product without what the gateway adds to it; equal means unchanged."""
    return msgspec.structs.replace(product, source=source, created_at_ms=0, updated_at_ms=0)
