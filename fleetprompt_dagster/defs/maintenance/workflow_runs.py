"""Dagster's own runs as the platform's signals, in the operator's own tenant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.errors import NotFoundError
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import get_tenant
from fleetprompt_dagster.runs import QUIET

_WORDS = {
    dg.DagsterEventType.RUN_START: "started",
    dg.DagsterEventType.RUN_SUCCESS: "completed",
    dg.DagsterEventType.RUN_FAILURE: "failed",
    dg.DagsterEventType.RUN_CANCELED: "failed",
}
# Changes of one kind that one look takes in.
MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class RunChange:
    """A run that started or ended; ``storage_id`` orders changes of one kind."""

    kind: dg.DagsterEventType
    storage_id: int
    run_id: str
    job: str
    at: datetime


def changes_since(
    instance: dg.DagsterInstance, seen: Mapping[str, int], *, from_time: datetime
) -> list[RunChange]:
    """What happened to runs after the storage ids ``seen``, by kind; without one, after ``from_time``."""
    found = []
    for kind in _WORDS:
        after = seen.get(kind.value)
        records = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(
                event_type=kind,  # type: ignore[arg-type] # a Literal of four members, all of them here
                after_storage_id=after,
                after_timestamp=from_time.timestamp() if after is None else None,
            ),
            limit=MOST_AT_ONCE,
            ascending=True,
        ).records
        found += [
            RunChange(
                kind,
                record.storage_id,
                record.run_id,
                record.event_log_entry.job_name or "",
                datetime.fromtimestamp(record.timestamp, UTC),
            )
            for record in records
        ]
    return found


def signals_of(instance: dg.DagsterInstance, changes: Iterable[RunChange]) -> list[NewSignal]:
    """A signal for each change worth telling.

    Quiet runs are told only when they fail: they follow from signals, and if each made some, one
    would follow from the other for ever (docs/decisions/workflow-run-signals.md).
    """
    found = []
    for change in changes:
        record = instance.get_run_record_by_id(change.run_id)
        word = _WORDS[change.kind]
        if record is None or (is_quiet(record.dagster_run) and word != "failed"):
            continue
        found.append(_signal(instance, change, word, record))
    return found


def is_quiet(run: dg.DagsterRun) -> bool:
    """Whether the run's job is marked as upkeep that follows from signals."""
    return QUIET.items() <= run.tags.items()


def _signal(
    instance: dg.DagsterInstance, change: RunChange, word: str, record: dg.RunRecord
) -> NewSignal:
    data: dict[str, object] = {"job": change.job, "run_id": change.run_id}
    if word != "started":
        stats = instance.get_run_stats(change.run_id)
        data["partitions"] = stats.materializations
        data["failed_steps"] = stats.steps_failed
        if record.start_time is not None and record.end_time is not None:
            data["duration_seconds"] = round(record.end_time - record.start_time, 3)
    if change.kind is dg.DagsterEventType.RUN_CANCELED:
        data["reason"] = "cancelled"
    return NewSignal(
        type=f"workflow.run.{word}",
        data=data,
        occurred_at=change.at,
        subject_type="workflow_run",
        subject_id=change.run_id,
        correlation_id=f"workflow_run:{change.run_id}",
        dedupe_key=f"workflow_run:{change.run_id}:{word}",
    )


async def tell(database: Database, slug: str, signals: Iterable[NewSignal]) -> bool:
    """Write the signals in one transaction of that tenant; False, and nothing, if it does not exist."""
    async with database.platform() as session:
        try:
            tenant = await get_tenant(session, slug)
        except NotFoundError:
            return False
    async with database.tenant(tenant.schema) as session:
        for signal in signals:
            await emit(session, signal)
    return True
