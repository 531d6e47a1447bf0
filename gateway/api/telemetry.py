"""What devices reported: latest properties, history, events, and the frames nobody could read."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

from gateway.api.shapes import (
    BucketShape,
    DeadLetterShape,
    EventShape,
    PointShape,
    PropertiesShape,
    PropertyShape,
    bucket_shape,
    dead_letter_shape,
    event_shape,
    point_shape,
)
from gateway.api.views import Listing, Paging, Resource, listed, request_of, requires
from gateway.core.clock import parse_rfc3339, rfc3339
from gateway.core.errors import Rejected
from gateway.identity.permissions import Permission
from gateway.things.ports import Aggregate, TimeRange

_SORT_POINTS: Final = {"observed_at": "observed_at"}
_SORT_EVENTS: Final = {"seq": "seq"}
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_INTERVAL: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[+ -]\d\d:\d\d)?")
_Time = Annotated[str, Field(description="RFC 3339; without a zone, UTC.")]


class PropertiesView(Resource):
    """`/devices/{device_id}/properties`."""

    @requires(Permission.HISTORY_LIST)
    async def get(self, device_id: str, /) -> PropertiesShape:
        """Show the latest value of every property, with the unit of the thing model."""
        device = self.parts.catalog.device(self.scope, device_id)
        model = self.parts.catalog.product(self.scope, device.product_id).model
        units = {name: declared.unit for name, declared in model.properties.items()}
        latest = await self.parts.history.latest(self.scope, device_id)
        return PropertiesShape(
            [
                PropertyShape(
                    point.property,
                    point.value,
                    units.get(point.property),
                    point.quality,
                    rfc3339(point.observed_at_ms),
                    rfc3339(point.received_at_ms),
                )
                for point in latest
            ]
        )


class HistoryView(Resource):
    """`/devices/{device_id}/history`."""

    @requires(Permission.HISTORY_LIST)
    async def get(
        self,
        device_id: str,
        /,
        paging: Paging,
        property_: Annotated[str, Field(min_length=1, max_length=64)],
        from_: _Time | None = None,
        to: _Time | None = None,
        agg: Aggregate | None = None,
        interval: Annotated[str, Field(description="As 500ms, 60s, 5m, 1h, 1d; only with agg.")] | None = None,
    ) -> Listing[PointShape] | Listing[BucketShape]:
        """List stored points from `from` (inclusive) to `to` (exclusive), or one value per interval with `agg`."""
        self.parts.catalog.device(self.scope, device_id)
        span = TimeRange(moment("from", from_), moment("to", to))
        if agg is None:
            if interval is not None:
                raise Rejected("interval: goes with agg=avg|min|max|sum|count|first|last")
            page = request_of(paging, _SORT_POINTS)
            return listed(await self.parts.history.points(self.scope, device_id, property_, span, page), point_shape)
        page = request_of(paging, {})
        buckets = await self.parts.history.aggregate(
            self.scope, device_id, property_, span, agg, _interval_ms(interval), page
        )
        return listed(buckets, bucket_shape)


class EventsView(Resource):
    """`/devices/{device_id}/events`."""

    @requires(Permission.EVENT_LIST)
    async def get(
        self, device_id: str, /, paging: Paging, types: Annotated[str, Field(max_length=500)] = ""
    ) -> Listing[EventShape]:
        """List a device's events, newest first unless `sort=seq`; `types` names some, with commas between."""
        self.parts.catalog.device(self.scope, device_id)
        if not paging.sort:
            paging.sort = "-seq"
        wanted = [name for name in types.split(",") if name]
        page = await self.parts.history.events(self.scope, device_id, 0, request_of(paging, _SORT_EVENTS), wanted)
        return listed(page, event_shape)


class DeadLettersView(Resource):
    """`/dead-letters`."""

    @requires(Permission.DEAD_LETTER_LIST)
    async def get(self, paging: Paging) -> Listing[DeadLetterShape]:
        """List frames that no codec could read, newest first."""
        return listed(await self.parts.history.dead_letters(self.scope, request_of(paging, {})), dead_letter_shape)


def moment(name: str, text: str | None) -> int | None:
    """Epoch milliseconds of a time as clients write it. Raises Rejected, naming the field."""
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    if found is None:
        raise Rejected(f"{name}: write the time as RFC 3339, such as 2026-11-21T08:00:00Z")
    # In a query string an unescaped + arrives as a space.
    zone = (found[2] or "Z").replace(" ", "+")
    try:
        return parse_rfc3339(found[1].upper() + zone.upper())
    except (ValueError, OverflowError) as wrong:
        raise Rejected(f"{name}: there is no such time") from wrong


def _interval_ms(text: str | None) -> int:
    found = _INTERVAL.fullmatch(text or "")
    if found is None or int(found[1]) == 0:
        raise Rejected("interval: write a number and its unit, such as 500ms, 60s, 5m, 1h or 1d")
    return int(found[1]) * _UNIT_MS[found[2]]
