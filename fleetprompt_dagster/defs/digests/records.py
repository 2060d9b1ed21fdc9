"""What is known of slots and their digests: read from the platform, shown in the grid."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

import dagster as dg
from sqlalchemy import select

from fleetprompt.db.engine import Database
from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.executions.models import Execution
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import active_tenants
from fleetprompt_dagster.grid import AssetEvent
from fleetprompt_dagster.metadata import Metadata, markdown_table, run_link, timeline_link
from fleetprompt_dagster.partitions import partition_key

DAILY_DIGEST = dg.AssetKey("daily_digest")


@dataclass(frozen=True, slots=True)
class DigestRecord:
    """A slot as it stands, and what its execution kept."""

    tenant: str
    slot: ScheduleSlot
    correlation_id: str | None = None
    dagster_run_id: str | None = None
    error: str | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The tenant and the local date, for people."""
        return f"{self.tenant} {self.slot.local_date}"


async def slots_by_key(
    database: Database, keys: Iterable[tuple[str, UUID, date]]
) -> list[ScheduleSlot]:
    """The slots of ``(tenant schema, installation, local date)`` that still exist."""
    wanted = set(keys)
    async with database.platform() as session:
        found = await session.scalars(
            select(ScheduleSlot).where(
                ScheduleSlot.installation_id.in_({installation for _, installation, _ in wanted}),
                ScheduleSlot.local_date.in_({day for _, _, day in wanted}),
            )
        )
        return [
            slot
            for slot in found
            if (slot.tenant_schema, slot.installation_id, slot.local_date) in wanted
        ]


async def slots_of_directives(
    database: Database, directive_ids: Sequence[UUID]
) -> list[ScheduleSlot]:
    """The slots that these directives settle; most directives settle none."""
    async with database.platform() as session:
        found = await session.scalars(
            select(ScheduleSlot).where(ScheduleSlot.directive_id.in_(directive_ids))
        )
        return list(found)


async def settled_by(
    database: Database, outcomes: Iterable[DirectiveOutcome], dagster_run_id: str
) -> list[DigestRecord]:
    """The records of the slots that these directives settled in this run, if they are slots'.

    What a success kept came with its outcome; what a failure left is read.
    """
    ended = {one.directive_id: one for one in outcomes if one.state not in ("pending", "lost")}
    records, unknown = [], []
    for slot in await slots_of_directives(database, list(ended)):
        outcome = ended[slot.directive_id] if slot.directive_id else None
        if outcome is None or outcome.kept is None:
            unknown.append(slot)
            continue
        told = outcome.correlation_id, dagster_run_id, None, outcome.kept
        records.append(DigestRecord(outcome.tenant, slot, *told))
    return records + await read_records(database, unknown)


async def slots_settled_since(database: Database, since: datetime) -> list[ScheduleSlot]:
    """Slots whose digest was done after ``since``."""
    async with database.platform() as session:
        found = await session.scalars(
            select(ScheduleSlot).where(
                ScheduleSlot.state == "done", ScheduleSlot.settled_at >= since
            )
        )
        return list(found)


async def read_records(database: Database, slots: Iterable[ScheduleSlot]) -> list[DigestRecord]:
    """What each slot's execution kept, read in its tenant's own transaction.

    A tenant that is being deleted is left out.
    """
    by_schema: dict[str, list[ScheduleSlot]] = {}
    for slot in slots:
        by_schema.setdefault(slot.tenant_schema, []).append(slot)
    if not by_schema:
        return []
    async with database.platform() as session:
        slugs = {tenant.schema: tenant.slug for tenant in await active_tenants(session)}
    records = []
    for schema, own in by_schema.items():
        if schema not in slugs:
            continue
        async with database.tenant(schema) as session:
            executions = {
                one.directive_id: one
                for one in await session.scalars(
                    select(Execution).where(
                        Execution.directive_id.in_([slot.directive_id for slot in own])
                    )
                )
            }
        records += [_record(slugs[schema], slot, executions.get(slot.directive_id)) for slot in own]
    return records


def _record(slug: str, slot: ScheduleSlot, execution: Execution | None) -> DigestRecord:
    if execution is None:
        return DigestRecord(slug, slot)
    return DigestRecord(
        slug,
        slot,
        execution.correlation_id,
        execution.dagster_run_id,
        f"{execution.error_kind}: {execution.error_message}" if execution.error_kind else None,
        execution.result or {},
    )


def digest_events(records: Iterable[DigestRecord], settings: Settings) -> list[AssetEvent]:
    """What the grid is told: a digest that is done, or why there is none; nothing while it is open."""
    events = (_digest_event(record, settings) for record in records)
    return [event for event in events if event is not None]


def _digest_event(record: DigestRecord, settings: Settings) -> AssetEvent | None:
    key = partition_key(record.slot.local_date, record.tenant)
    metadata = digest_metadata(record, settings)
    if record.slot.state == "done":
        return dg.AssetMaterialization(DAILY_DIGEST, partition=key, metadata=metadata)
    if record.slot.state in ("failed", "skipped_missed", "skipped_paused"):
        return dg.AssetObservation(DAILY_DIGEST, partition=key, metadata=metadata)
    return None


def digest_metadata(record: DigestRecord, settings: Settings) -> Metadata:
    """The digest as it was posted, its counts, its exact window, and where to read on."""
    slot, kept = record.slot, record.kept
    found: Metadata = {
        "state": dg.MetadataValue.text(slot.state),
        "utc_window": dg.MetadataValue.text(
            f"{slot.window_start.isoformat()} to {slot.window_end.isoformat()}"
        ),
        "window_hours": dg.MetadataValue.float(
            (slot.window_end - slot.window_start).total_seconds() / 3600
        ),
        "zone": dg.MetadataValue.text(slot.zone),
        "due_at": dg.MetadataValue.timestamp(slot.due_at),
    }
    if slot.settled_at is not None:
        found["late_seconds"] = dg.MetadataValue.float(
            round((slot.settled_at - slot.due_at).total_seconds(), 3)
        )
    if isinstance(kept.get("text"), str):
        found["digest"] = dg.MetadataValue.md(kept["text"])
        found["sha256"] = dg.MetadataValue.text(str(kept.get("sha256")))
        found["lines"] = dg.MetadataValue.int(int(kept.get("line_count", 0)))
        found["counts"] = dg.MetadataValue.md(
            markdown_table(["kind", "count"], dict(kept.get("counts", {})).items())
        )
        found["ledger_state"] = dg.MetadataValue.text(str(kept.get("ledger_state")))
    if record.correlation_id is not None:
        found["correlation_id"] = dg.MetadataValue.text(record.correlation_id)
        found["timeline"] = timeline_link(settings, record.correlation_id)
    if record.dagster_run_id is not None:
        found["run"] = run_link(settings, record.dagster_run_id)
    if record.error is not None:
        found["error"] = dg.MetadataValue.text(record.error)
    return found
