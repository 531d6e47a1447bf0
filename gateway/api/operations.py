"""`/health` and `/metrics`, for probes and Prometheus."""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from typing_extensions import override

from gateway.api.parts import HealthReport
from gateway.api.views import CONFIG, Door, Resource, requires
from gateway.core.errors import AuthFailed
from gateway.core.metrics import Sample, Samples
from gateway.core.scope import DEFAULT_TENANT


class HealthView(Resource):
    """`/health`."""

    @requires(Door.OPEN)
    async def get(self) -> web.Response:
        """Show each part's state: 200 while all is well, 503 when not. Failures' texts are for the operator's users."""
        trusted = await _trusted(self)
        report = await self.parts.health.report()
        shown: object = report
        if not trusted:
            locked = self.request.app[CONFIG].metrics_token is not None
            shown = {"status": report.status} if locked else _summary(report)
        status = HTTPStatus.OK if report.status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        return web.Response(status=status, body=msgspec.json.encode(shown), content_type="application/json")


class MetricsView(Resource):
    """`/metrics`."""

    @requires(Door.OPEN)
    async def get(self) -> web.Response:
        """Show every counter and gauge in Prometheus' text format."""
        if not await _trusted(self) and self.request.app[CONFIG].metrics_token is not None:
            raise AuthFailed("send the metrics token: Authorization: Bearer ...")
        text = generate_latest(self.request.app[REGISTRY])
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class RoomSamples(Collector):
    """Shows what the rooms count, read when somebody asks."""

    def __init__(self, sources: Iterable[Samples]) -> None:
        self._sources = tuple(sources)

    @override
    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for source in self._sources:
            for sample in source():
                family = families.get(sample.name)
                if family is None:
                    family = families[sample.name] = _family(sample)
                _add(family, sample)
        yield from families.values()


REGISTRY: Final = web.AppKey("registry", CollectorRegistry)


def registry_of(*sources: Samples) -> CollectorRegistry:
    """A registry of its own: nothing else in the process can add to it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RoomSamples(sources))
    return registry


def _family(sample: Sample) -> Metric:
    if sample.kind == "counter":
        return CounterMetricFamily(sample.name.removesuffix("_total"), sample.help)
    if sample.kind == "histogram":
        return HistogramMetricFamily(sample.name, sample.help)
    return GaugeMetricFamily(sample.name, sample.help)


def _add(family: Metric, sample: Sample) -> None:
    if sample.kind == "histogram":
        for bound, count in sample.buckets:
            family.add_sample(f"{sample.name}_bucket", sample.labels | {"le": _bound(bound)}, count)
        family.add_sample(f"{sample.name}_count", sample.labels, sample.buckets[-1][1] if sample.buckets else 0)
        family.add_sample(f"{sample.name}_sum", sample.labels, sample.value)
    elif sample.kind == "counter":
        family.add_sample(f"{sample.name.removesuffix('_total')}_total", sample.labels, sample.value)
    else:
        family.add_sample(sample.name, sample.labels, sample.value)


def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else str(bound)


def _summary(report: HealthReport) -> HealthReport:
    parts = {name: msgspec.structs.replace(part, detail="") for name, part in report.parts.items()}
    return msgspec.structs.replace(report, parts=parts)


async def _trusted(view: Resource) -> bool:
    """Whether the caller showed the metrics token, or that of a user of the first tenant, whose the machine is.

    A token that is wrong is refused, not ignored.
    """
    scheme, _, token = view.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return False
    wanted = view.request.app[CONFIG].metrics_token
    if wanted is not None and hmac.compare_digest(wanted.encode(), token.strip().encode(errors="surrogateescape")):
        return True
    return (await view.parts.access.authenticate(token.strip())).scope.tenant_id == DEFAULT_TENANT
