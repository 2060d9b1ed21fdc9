"""Sending the digests that are due, many tenants in one run, and keeping their slots and record."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from uuid import UUID

import dagster as dg

from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.lake.rebuild import describe
from fleetprompt.packages.scheduling import keep_filled, request_slots
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.tenants.service import get_tenant
from fleetprompt_dagster.defs.digests.records import (
    DAILY_DIGEST,
    DigestRecord,
    digest_event,
    read_records,
    slots_by_key,
    slots_settled_since,
)
from fleetprompt_dagster.metadata import markdown_table
from fleetprompt_dagster.partitions import partition_key
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource
from fleetprompt_dagster.runs import NOT_PROCESSED_LIMIT, QUIET, run_tags
from fleetprompt_dagster.working import directive_runner, line_of

_TENANTS_AT_ONCE = 4
_RECORDED_WITHIN = timedelta(days=3)

Event = dg.AssetMaterialization | dg.AssetObservation | dg.Output[None]


class DigestSlot(dg.Config):
    """One slot: the tenant's slug, the installation and the local date as ``YYYY-MM-DD``."""

    tenant: str
    installation: str
    local_date: str


class DigestsConfig(dg.Config):
    """Which slots' digests to send."""

    slots: list[DigestSlot]


@dg.op(out=dg.Out(dg.Nothing), tags={"domain": "digests"})
def send_due_digests(
    context: dg.OpExecutionContext, config: DigestsConfig, platform: PlatformResource
) -> Iterator[Event]:
    """Ask for each slot's digest as a directive, make one attempt at each, and record what is settled.

    Safe to run twice and to be killed: a slot has one directive, an attempt has a lease, and a
    message has one entry in the ledger. What fails for now is tried again by the drains. The run
    fails if more than 10 % of its slots are not settled well.
    """
    keys = [
        (f"org_{one.tenant}", UUID(one.installation), date.fromisoformat(one.local_date))
        for one in config.slots
    ]
    with platform.open() as opened:
        slots = opened.run(slots_by_key(opened.database, keys))
        runner = directive_runner(context, opened, platform)
        troubles = opened.run(_send(context, opened, platform, runner, slots))
        records = opened.run(
            read_records(opened.database, opened.run(slots_by_key(opened.database, keys)))
        )
        for record in records:
            event = digest_event(record, opened.settings)
            if event is not None:
                yield event
    bad = [(one.name, _why(one, troubles)) for one in records if one.slot.state in _NOT_WELL]
    metadata = {
        "slots": dg.MetadataValue.int(len(keys)),
        "not_processed": dg.MetadataValue.int(len(bad)),
        "failures": dg.MetadataValue.md(
            markdown_table(["tenant and date", "why"], bad[:50]) if bad else "none"
        ),
    }
    if len(bad) > NOT_PROCESSED_LIMIT * len(keys):
        raise dg.Failure(
            f"{len(bad)} of {len(keys)} digests are not sent. What may still succeed is tried again by "
            "itself; see 'failures' for why, and each tenant's installation page for what to do.",
            metadata=metadata,
            allow_retries=False,
        )
    yield dg.Output(None, metadata=metadata)


_NOT_WELL = ("planned", "requested", "failed")


def _why(record: DigestRecord, troubles: dict[str, str]) -> str:
    trouble = record.error or troubles.get(record.slot.tenant_schema)
    return trouble or f"the slot is still {record.slot.state}"


async def _send(
    context: dg.OpExecutionContext,
    opened: OpenPlatform,
    platform: PlatformResource,
    runner: DirectiveRunner,
    slots: list[ScheduleSlot],
) -> dict[str, str]:
    """Work on every tenant's slots, several tenants at once; what went wrong, by tenant schema."""
    by_schema: dict[str, list[ScheduleSlot]] = defaultdict(list)
    for slot in slots:
        if slot.state in ("planned", "requested"):
            by_schema[slot.tenant_schema].append(slot)
    troubles: dict[str, str] = {}
    at_once = asyncio.Semaphore(_TENANTS_AT_ONCE)

    def ended(outcome: DirectiveOutcome) -> None:
        context.log.info(line_of(outcome))

    async def one(schema: str, own: list[ScheduleSlot]) -> None:
        async with at_once:
            try:
                async with opened.database.platform() as session:
                    tenant = await get_tenant(session, schema.removeprefix("org_"))
                ids = await request_slots(
                    opened.database, tenant, own, platform.now(), opened.settings
                )
                await runner.work(tenant, ids, on_done=ended)
            except Exception as error:  # noqa: BLE001 - the other tenants' digests are still sent
                troubles[schema] = describe(error)
                context.log.warning(f"{schema}: {troubles[schema]}")

    async with runner:
        await asyncio.gather(*(one(schema, own) for schema, own in by_schema.items()))
    return troubles


@dg.job(
    executor_def=dg.in_process_executor,
    tags=run_tags(priority=10, longest_seconds=1800),
    description=(
        "Sends the digests of the slots in its config: the directive, one attempt, the record in the grid. "
        "Started by the schedule `due_digests`; may be launched again for the same slots, nothing is sent "
        "twice."
    ),
)
def send_digests() -> None:
    """One op, so that one process does it all."""
    send_due_digests()


@dg.op(out=dg.Out(dg.Nothing), tags={"domain": "digests"})
def keep_slots_and_records(
    context: dg.OpExecutionContext, platform: PlatformResource
) -> Iterator[Event]:
    """Make the slots of the days ahead, and record digests whose run died before it could."""
    now = platform.now()
    with platform.open() as opened:
        made = opened.run(keep_filled(opened.database, now))
        done = opened.run(slots_settled_since(opened.database, now - _RECORDED_WITHIN))
        known = context.instance.get_materialized_partitions(DAILY_DIGEST)
        records = opened.run(read_records(opened.database, done))
        missing = [
            one
            for one in records
            if str(partition_key(one.slot.local_date, one.tenant)) not in known
        ]
        for record in missing:
            event = digest_event(record, opened.settings)
            if event is not None:
                yield event
    yield dg.Output(
        None,
        metadata={
            "slots_made": dg.MetadataValue.int(made),
            "digests_recorded": dg.MetadataValue.int(len(missing)),
        },
    )


@dg.job(
    executor_def=dg.in_process_executor,
    tags={**run_tags(priority=5, longest_seconds=900), **QUIET},
    description=(
        "Makes every installation's slots for the days ahead, and puts digests into the grid whose run died "
        "between sending and recording."
    ),
)
def keep_digests() -> None:
    """One op."""
    keep_slots_and_records()
