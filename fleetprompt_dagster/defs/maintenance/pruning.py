"""Deleting what Dagster itself never deletes: events and runs. Ticks are pruned by ``dagster.yaml``.

Kept: for every asset and partition the latest materialization while its day is in the grid, so that no
partition seems missing; everything of the last days; runs that did not end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from sqlalchemy import TextClause, text

if TYPE_CHECKING:
    from dagster_postgres.event_log import PostgresEventLogStorage

# Steps, engine events and log lines of runs are looked at while they are fresh.
EVENT_DAYS = 14
# A materialization that a later one of the same partition has replaced tells the trend of a while.
REPLACED_DAYS = 2
RUN_DAYS = 30
_ROWS = 5_000
_RUNS = 500

_ASSET_EVENTS = "('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION', 'ASSET_CHECK_EVALUATION')"


def _deletion(condition: str) -> TextClause:
    """Deletes events of a condition of this module, with their tags, and tells how many."""
    return text(
        f"WITH gone AS (DELETE FROM event_logs WHERE id IN (SELECT e.id FROM event_logs e"  # noqa: S608
        f" WHERE e.timestamp < :before AND {condition} ORDER BY e.id LIMIT :rows) RETURNING id),"
        " tags AS (DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM gone))"
        " SELECT count(*) FROM gone"
    )


# Not the beginnings and ends of runs, from which signals, sensors and statistics are made.
_EVENTS = _deletion(
    f"(e.dagster_event_type IS NULL OR e.dagster_event_type NOT IN {_ASSET_EVENTS}"
    " AND e.dagster_event_type NOT LIKE 'PIPELINE_%')"
)
_REPLACED = _deletion(
    "e.dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION')"
    " AND EXISTS (SELECT FROM event_logs later WHERE later.asset_key = e.asset_key"
    "   AND later.dagster_event_type = e.dagster_event_type"
    "   AND later.partition IS NOT DISTINCT FROM e.partition AND later.id > e.id)"
)
# Partitions begin with their date, in every grid.
_OUTSIDE = _deletion("e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.partition < :first")
_OLD_CHECKS = text("DELETE FROM asset_check_executions WHERE create_timestamp < :before")
_SHOWS_SOMETHING = text(
    "SELECT 1 FROM event_logs WHERE run_id = :run_id AND dagster_event_type = 'ASSET_MATERIALIZATION'"
    " LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many events and whole runs went, and materializations that later ones had replaced."""

    events: int = 0
    replaced: int = 0
    runs: int = 0


def prune(instance: dg.DagsterInstance, now: datetime, *, grid_days: int) -> Pruned:
    """Delete what is old, each batch in a transaction; nothing where events are not in PostgreSQL."""
    # With it come all of Dagster's storages; the location is loaded without them.
    from dagster_postgres.event_log import PostgresEventLogStorage

    storage = instance.event_log_storage
    if not isinstance(storage, PostgresEventLogStorage):
        return Pruned()

    def before(days: int) -> datetime:
        return (now - timedelta(days=days)).replace(tzinfo=None)

    events = _delete(storage, _EVENTS, before=before(EVENT_DAYS))
    replaced = _delete(storage, _REPLACED, before=before(REPLACED_DAYS))
    first = (now - timedelta(days=grid_days + 2)).date().isoformat()
    events += _delete(storage, _OUTSIDE, before=before(grid_days), first=first)
    with storage.index_connection() as connection:
        connection.execute(_OLD_CHECKS, {"before": before(RUN_DAYS)})
    return Pruned(events, replaced, _delete_runs(instance, storage, now))


def _delete(storage: PostgresEventLogStorage, statement: TextClause, **values: object) -> int:
    deleted = 0
    while True:
        with storage.index_connection() as connection:
            gone: int = connection.execute(statement, {**values, "rows": _ROWS}).scalar_one()
        deleted += gone
        if gone < _ROWS:
            return deleted


def _delete_runs(
    instance: dg.DagsterInstance, storage: PostgresEventLogStorage, now: datetime
) -> int:
    """Delete old runs that ended and that no partition of the grid still shows as its last."""
    ended = [
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    ]
    filters = dg.RunsFilter(statuses=ended, created_before=now - timedelta(days=RUN_DAYS))
    deleted, cursor = 0, None
    while True:
        records = instance.get_run_records(filters, limit=_RUNS, cursor=cursor)
        for record in records:
            run_id = record.dagster_run.run_id
            with storage.index_connection() as connection:
                shows = connection.execute(_SHOWS_SOMETHING, {"run_id": run_id}).first()
            if shows is None:
                instance.delete_run(run_id)
                deleted += 1
        if len(records) < _RUNS:
            return deleted
        cursor = records[-1].dagster_run.run_id
