"""The moment, over all tenants: gauges from one look at the index tables, which hold ids and times only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.types import directive_types
from fleetprompt.telemetry.catalogue import (
    APPROVALS_WAITING,
    DIRECTIVES_DUE,
    DIRECTIVES_LATER,
    IN_FLIGHT,
    LAST_NOTICE,
    LISTENERS,
    OLDEST_APPROVAL,
    OLDEST_DUE,
    OLDEST_SLOT,
    OLDEST_STALE_DAY,
    PROCESSES,
    SIGNALS_WAITING,
    SLOTS_DUE,
    SLOTS_SETTLED,
    Metric,
)

# A process that did not report for so long is not counted as live.
LIVE_SECONDS = 30.0
# What is not in the registry any more, such as a type of a package that was taken out.
OTHER_TYPE = "other"

_SLOT_ENDS = ("done", "failed", "skipped_missed", "skipped_paused")

# One statement, so that all numbers are of one instant. Ages are by the database's clock.
_MOMENT = text(
    """
    SELECT jsonb_build_object(
      'queue', (SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]') FROM (
          SELECT type, CASE target WHEN 'platform' THEN 'platform' ELSE 'connector' END AS target,
                 count(*) FILTER (WHERE due_at <= now()) AS due,
                 count(*) FILTER (WHERE due_at > now() AND NOT busy) AS later,
                 count(*) FILTER (WHERE due_at > now() AND busy) AS in_flight,
                 extract(epoch FROM now() - min(due_at) FILTER (WHERE due_at <= now())) AS oldest
          FROM fleetprompt.directive_queue GROUP BY 1, 2) q),
      'approvals', (SELECT coalesce(jsonb_agg(to_jsonb(a)), '[]') FROM (
          SELECT type, count(*) AS number, extract(epoch FROM now() - min(created_at)) AS oldest
          FROM fleetprompt.approvals_waiting GROUP BY type) a),
      'slots', (SELECT to_jsonb(s) FROM (
          SELECT count(*) AS due, extract(epoch FROM now() - min(due_at)) AS oldest
          FROM fleetprompt.schedule_slots WHERE state = 'planned' AND due_at <= now()) s),
      'settled', (SELECT coalesce(jsonb_object_agg(state, number), '{}') FROM (
          SELECT state, count(*) AS number FROM fleetprompt.schedule_slots
          WHERE settled_at > now() - interval '24 hours' GROUP BY state) e),
      'stale', (SELECT extract(epoch FROM now() - marked_at) FROM fleetprompt.stale_partitions s
          WHERE EXISTS (SELECT FROM fleetprompt.organizations o
                        WHERE o.schema_name = s.tenant_schema AND o.state = 'active')
          ORDER BY id LIMIT 1),
      'processes', (SELECT coalesce(jsonb_agg(to_jsonb(p)), '[]') FROM (
          SELECT role, state, extract(epoch FROM now() - seen_at) AS age
          FROM fleetprompt.worker_processes
          WHERE ended_at IS NULL AND seen_at > now() - make_interval(secs => :live)) p))
    """
)


@dataclass(slots=True)
class Gauges:
    """Values by metric and label values."""

    values: dict[Metric, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Note one value."""
        self.values.setdefault(metric, {})[labels] = float(value)

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """Add to what was noted."""
        values = self.values.setdefault(metric, {})
        values[labels] = values.get(labels, 0.0) + float(value)

    def least(self, metric: Metric, value: float, *labels: str) -> None:
        """Keep the smaller value."""
        values = self.values.setdefault(metric, {})
        values[labels] = min(values.get(labels, value), value)


async def read_gauges(session: AsyncSession) -> Gauges:
    """All gauges but the one that says whether the database answers."""
    moment: dict[str, Any] = (await session.execute(_MOMENT, {"live": LIVE_SECONDS})).scalar_one()
    gauges = Gauges()
    _directives(gauges, moment["queue"])
    _approvals(gauges, moment["approvals"])
    gauges.set(SLOTS_DUE, moment["slots"]["due"])
    gauges.set(OLDEST_SLOT, moment["slots"]["oldest"] or 0.0)
    for state in _SLOT_ENDS:
        gauges.set(SLOTS_SETTLED, moment["settled"].get(state, 0), state)
    gauges.set(OLDEST_STALE_DAY, max(0.0, moment["stale"] or 0.0))
    _processes(gauges, moment["processes"])
    return gauges


def _directives(gauges: Gauges, rows: Iterable[Mapping[str, Any]]) -> None:
    """Every known type has its values, so that a rule sees 0 and not nothing."""
    known = {name: kind.target for name, kind in directive_types().items()}
    for name, target in known.items():
        for metric in (DIRECTIVES_DUE, DIRECTIVES_LATER, IN_FLIGHT, OLDEST_DUE):
            gauges.set(metric, 0, name, target)
    for row in rows:
        labels = (row["type"] if row["type"] in known else OTHER_TYPE, row["target"])
        gauges.add(DIRECTIVES_DUE, row["due"], *labels)
        gauges.add(DIRECTIVES_LATER, row["later"], *labels)
        gauges.add(IN_FLIGHT, row["in_flight"], *labels)
        oldest = gauges.values.get(OLDEST_DUE, {}).get(labels, 0.0)
        gauges.set(OLDEST_DUE, max(oldest, row["oldest"] or 0.0), *labels)


def _approvals(gauges: Gauges, rows: Iterable[Mapping[str, Any]]) -> None:
    known = directive_types()
    for name in known:
        gauges.set(APPROVALS_WAITING, 0, name)
        gauges.set(OLDEST_APPROVAL, 0, name)
    for row in rows:
        name = row["type"] if row["type"] in known else OTHER_TYPE
        gauges.add(APPROVALS_WAITING, row["number"], name)
        oldest = gauges.values[OLDEST_APPROVAL].get((name,), 0.0)
        gauges.set(OLDEST_APPROVAL, max(oldest, row["oldest"]), name)


def _processes(gauges: Gauges, rows: Iterable[Mapping[str, Any]]) -> None:
    for role in ("api", "worker"):
        gauges.set(PROCESSES, 0, role)
    gauges.set(SIGNALS_WAITING, 0)
    for row in rows:
        gauges.add(PROCESSES, 1, row["role"])
        gauges.add(SIGNALS_WAITING, row["state"].get("waiting_signals", 0))
        for listener in row["state"].get("listeners", ()):
            labels = (row["role"], listener["channel"])
            for state, found in (
                ("up", listener["connected"]),
                ("down", not listener["connected"]),
            ):
                gauges.add(LISTENERS, found, *labels, state)
            if listener["heard_seconds_ago"] is not None:
                gauges.least(LAST_NOTICE, row["age"] + listener["heard_seconds_ago"], *labels)
