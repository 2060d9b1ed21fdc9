"""The text that Prometheus reads."""

import asyncio
import time
from collections.abc import Iterable, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy.exc import DBAPIError

from fleetprompt.db.engine import Database
from fleetprompt.errors import FleetPromptError
from fleetprompt.telemetry.catalogue import DATABASE_UP, METRICS, Metric
from fleetprompt.telemetry.counting import Amounts, Series, sum_up
from fleetprompt.telemetry.gauges import Gauges, read_gauges
from fleetprompt.telemetry.reporting import Reporter, sums

CACHE_SECONDS = 1.0


class Scrape:
    """Answers scrapes from the table of all processes, looking at it at most once a second.

    This process's own counts are written first, so that what one process answers is never less than
    what another answered before. While PostgreSQL is away the last sums stand, with what was
    counted here since, and ``fleetprompt_database_up`` is 0.
    """

    def __init__(self, database: Database, reporter: Reporter) -> None:
        self._database, self._reporter = database, reporter
        self._lock = asyncio.Lock()
        self._read_at: float | None = None
        self._sums: dict[Series, Amounts] = {}
        self._families: list[Family] = []

    async def text(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics, and the media type: OpenMetrics where it is accepted, else Prometheus's own."""
        async with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at >= CACHE_SECONDS:
                self._families = await self._read()
                self._read_at = time.monotonic()
            families = self._families
        encode, media_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Ready(families))
        return encode(registry), media_type

    async def _read(self) -> list[Family]:
        try:
            await self._reporter.flush()
            async with self._database.platform() as session:
                gauges = await read_gauges(session)
                self._sums = await sums(session)
        except (FleetPromptError, DBAPIError):
            gauges = Gauges()
            gauges.set(DATABASE_UP, 0)
            counted = {series: list(amounts) for series, amounts in self._sums.items()}
            sum_up(counted, self._reporter.unwritten())
            return list(families(gauges, counted))
        gauges.set(DATABASE_UP, 1)
        return list(families(gauges, self._sums))


def families(gauges: Gauges, counted: Mapping[Series, Amounts]) -> Iterable[Family]:
    """Each metric that has a value, or that needs no label to have one.

    Series in the table of metrics that this version does not know are left out.
    """
    by_name: dict[str, dict[tuple[str, ...], Amounts]] = {}
    for (name, labels), amounts in counted.items():
        by_name.setdefault(name, {})[labels] = amounts
    for metric in METRICS.values():
        if metric.kind == "gauge":
            values = gauges.values.get(metric)
            if values is not None:
                yield _gauge(metric, values)
        else:
            nothing: dict[tuple[str, ...], Amounts] = {}
            if not metric.labels:
                nothing[()] = [0.0] * (len(metric.buckets) + 2)
            series = by_name.get(metric.name, nothing)
            yield (_counter if metric.kind == "counter" else _histogram)(metric, series)


def _gauge(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, series: Mapping[tuple[str, ...], Amounts]) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, amounts in sorted(series.items()):
        family.add_metric(labels, amounts[0])
    return family


def _histogram(metric: Metric, series: Mapping[tuple[str, ...], Amounts]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
    for labels, (total, *counts) in sorted(series.items()):
        cumulated, buckets = 0.0, []
        for bound, count in zip(bounds, counts, strict=True):
            cumulated += count
            buckets.append((bound, cumulated))
        family.add_metric(labels, buckets, total)
    return family


class _Ready(Collector):
    def __init__(self, found: list[Family]) -> None:
        self._found = found

    def collect(self) -> Iterable[Family]:
        """What was found."""
        return self._found
