"""What things need of the outside, implemented by `gateway/storage`. Every call takes the scope that asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from gateway.core.flow import DeadLetter, Event, Quality
from gateway.core.scope import Scope
from gateway.things.model import Command, Device, Product

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T]):
    """One page of a list. `page` counts from 1; `total` is the exact number of items over all pages."""

    items: list[T]
    total: int
    page: int
    limit: int


class PageRequest(msgspec.Struct, frozen=True):
    """Which page of a list. `sort` is a field name, with `-` before it for descending."""

    page: int = 1
    limit: int = 50
    sort: str = ""


class ProductRepository(Protocol):
    """Rows of products. Changes write the audit log in the same transaction."""

    async def all_products(self) -> list[Product]:
        """Every product of every tenant, for the start."""
        ...

    async def save_product(self, scope: Scope, product: Product) -> None:
        """Insert, or replace the product of the same id in the scope's tenant."""
        ...

    async def delete_product(self, scope: Scope, product_id: str) -> None:
        """Delete; raises NotFound, or Conflict while devices of it exist."""
        ...


class DeviceFilter(msgspec.Struct, frozen=True):
    """Which devices of a list; None does not filter. `tag` is `key` or `key=value`; `search` matches id and name."""

    product_id: str | None = None
    online: bool | None = None
    tag: str | None = None
    search: str | None = None


class DeviceRepository(Protocol):
    """Rows of devices. Changes write the audit log in the same transaction."""

    async def all_devices(self) -> list[Device]:
        """Every device of every tenant, for the start."""
        ...

    async def next_key(self) -> int:
        """The first key above all that were ever stored; a deleted device's is not given to another."""
        ...

    async def add_device(self, scope: Scope, device: Device) -> None:
        """Insert; raises Conflict where its key or its id is taken, Rejected for an unknown product."""
        ...

    async def save_device(self, scope: Scope, device: Device) -> None:
        """Replace the device of the same key and id in the scope's tenant; raises NotFound where it has no row."""
        ...

    async def delete_device(self, scope: Scope, device_id: str) -> None:
        """Delete with its history, latest values, commands and alarms; raises NotFound."""
        ...

    async def list_devices(self, scope: Scope, which: DeviceFilter, page: PageRequest) -> Page[Device]:
        """Devices of the tenant."""
        ...


class CommandRepository(Protocol):
    """Rows of commands."""

    async def save_command(self, scope: Scope, command: Command) -> None:
        """Insert or replace by id."""
        ...

    async def get_command(self, scope: Scope, command_id: str) -> Command:
        """Raises NotFound."""
        ...

    async def list_commands(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        """Commands of one device, newest first."""
        ...

    async def open_commands(self) -> list[Command]:
        """Commands of all tenants that are queued or sent, for the start."""
        ...


class PropertyValue(msgspec.Struct, frozen=True):
    """Latest value of one property."""

    property: str
    value: Any
    quality: Quality
    observed_at_ms: int
    received_at_ms: int


class HistoryPoint(msgspec.Struct, frozen=True):
    """One stored point."""

    observed_at_ms: int
    received_at_ms: int
    value: Any
    quality: Quality


class Bucket(msgspec.Struct, frozen=True):
    """One interval of an aggregate; `from_ms` is its start (a multiple of the interval since the epoch)."""

    from_ms: int
    value: Any


Aggregate = Literal["avg", "min", "max", "sum", "count", "first", "last"]


class TimeRange(msgspec.Struct, frozen=True):
    """From (inclusive) to (exclusive) by observed time; None is open."""

    from_ms: int | None = None
    to_ms: int | None = None


class HistoryRepository(Protocol):
    """Read side of what the journal stored."""

    async def latest(self, scope: Scope, device_id: str) -> list[PropertyValue]:
        """Latest value of every property of a device; raises NotFound."""
        ...

    async def points(
        self, scope: Scope, device_id: str, property_id: str, span: TimeRange, page: PageRequest
    ) -> Page[HistoryPoint]:
        """Raw points in order of (observed_at, sequence), `-observed_at` in `sort` for newest first."""
        ...

    async def aggregate(
        self,
        scope: Scope,
        device_id: str,
        property_id: str,
        span: TimeRange,
        how: Aggregate,
        interval_ms: int,
        page: PageRequest,
    ) -> Page[Bucket]:
        """One value per interval that has points of good quality, oldest first; out-of-range points count too."""
        ...

    async def events(
        self,
        scope: Scope,
        device_id: str | None,
        after_seq: int,
        page: PageRequest,
        types: Sequence[str] = (),
    ) -> Page[Event]:
        """Events after a position, oldest first (newest first when `sort` is `-seq`)."""
        ...

    async def dead_letters(self, scope: Scope, page: PageRequest) -> Page[DeadLetter]:
        """Undecodable frames, newest first."""
        ...
