"""What a report is, and what is asked of those who keep history, reports and plugins. Knows neither of them."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Protocol, TypeAlias

import msgspec

from gateway.core.scope import Scope
from gateway.things.model import Device, Product
from gateway.things.ports import Page, PageRequest, TimeRange

MOST_COLUMNS = 256
"""Columns of a report; a spreadsheet shows as many."""

Cell: TypeAlias = bool | int | float | str | None
"""What a table holds."""


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which report is wanted: a plugin's, over a property from `from_ms` (inclusive) to `to_ms` (exclusive)."""

    plugin_id: str
    device_id: str
    property_id: str
    from_ms: int
    to_ms: int
    args: dict[str, Any] = {}


class Table(msgspec.Struct, frozen=True):
    """What a report plugin answers. `summary` is free-form."""

    columns: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=200)]], msgspec.Meta(min_length=1, max_length=MOST_COLUMNS)
    ]
    rows: list[list[Cell]]
    summary: dict[str, Any] = {}


class Report(msgspec.Struct, kw_only=True):
    """A report that was made. points: how many of history it was made from. rows: None where only the head was read."""

    id: str
    tenant_id: str
    plugin_id: str
    plugin_version: str
    device_id: str
    property_id: str
    from_ms: int
    to_ms: int
    args: dict[str, Any] = {}
    points: int = 0
    columns: list[str] = []
    rows: list[list[Cell]] | None = None
    row_count: int = 0
    summary: dict[str, Any] = {}
    requested_by: str = ""
    created_at_ms: int = 0


class ReportFilter(msgspec.Struct, frozen=True):
    """Which reports of a list; None does not filter."""

    plugin_id: str | None = None
    device_id: str | None = None


class SeriesPoint(NamedTuple):
    """One point of a property; `seq` tells points of the same instant apart."""

    at_ms: int
    seq: int
    value: Any


class Series(Protocol):
    """History in the order of time, for whoever reads all of it."""

    async def series(
        self,
        scope: Scope,
        device_id: str,
        property_id: str,
        span: TimeRange,
        limit: int,
        after: SeriesPoint | None = None,
        *,
        newest_first: bool = False,
    ) -> list[SeriesPoint]:
        """At most `limit` points with a value of good quality (or out of range), those after a point only.

        Raises NotFound for a device that is not the tenant's.
        """
        ...


class ReportPlugins(Protocol):
    """Plugins that make reports."""

    def report_version(self, plugin_id: str) -> str:
        """The version that runs. Raises NotFound, NotReady, or Rejected for a plugin of another kind."""
        ...

    async def call(self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None) -> Any:
        """Plain arguments in, a plain answer out. Raises NotFound, NotReady, CodecError."""
        ...


class Things(Protocol):
    """The catalog, as far as a report needs it."""

    def device(self, scope: Scope, device_id: str) -> Device:
        """Raises NotFound."""
        ...

    def product(self, scope: Scope, product_id: str) -> Product:
        """Raises NotFound."""
        ...


class ReportRepository(Protocol):
    """Rows of reports. Changes write the audit log in the same transaction."""

    async def add_report(self, scope: Scope, report: Report) -> None:
        """Insert; durable when it returns."""
        ...

    async def get_report(self, scope: Scope, report_id: str) -> Report:
        """With its rows. Raises NotFound."""
        ...

    async def list_reports(self, scope: Scope, which: ReportFilter, page: PageRequest) -> Page[Report]:
        """Reports of the tenant without their rows, newest first."""
        ...

    async def delete_report(self, scope: Scope, report_id: str) -> None:
        """Raises NotFound."""
        ...
