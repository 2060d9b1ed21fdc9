"""Sending the digests that are due, many tenants in one run, and keeping their slots and record."""

import asyncio
from collections import defaultdict
from datetime import date, timedelta
from functools import partial
from uuid import UUID

import dagster as dg

from fleetprompt.directives.outcomes import OnDone
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.errors import NotFoundError
from fleetprompt.lake.rebuild import describe
from fleetprompt.packages.scheduling import keep_filled, request_slots
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.tenants.service import active_tenants
from fleetprompt_dagster.defs.digests.records import (
    DAILY_DIGEST,
    DigestRecord,
    digest_events,
    read_records,
    settled_by,
    slots_by_key,
    slots_settled_since,
)
from fleetprompt_dagster.grid import tell_grid
from fleetprompt_dagster.metadata import markdown_table
from fleetprompt_dagster.partitions import cell_of, partition_key
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource
from fleetprompt_dagster.runs import NOT_PROCESSED_LIMIT, QUIET, run_tags
from fleetprompt_dagster.work_thread import WorkThread
from fleetprompt_dagster.working import directive_runner, line_of

_TENANTS_AT_ONCE = 4
# To tell of a batch costs 40 ms of CPU, and nobody waits for it.
_TOLD_TOGETHER_SECONDS = 2.0
_RECORDED_WITHIN = timedelta(days=3)


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
) -> dg.Output[None]:
    """Ask for each slot's digest as a directive, make one attempt at each, and record what is settled.

    Safe to run twice and to be killed: a slot has one directive, an attempt has a lease, and a
    message has one entry in the ledger. What fails for now is tried again by the drains. The run
    fails if more than 10 % of its slots are not settled well.
    """
    keys = [
        (f"org_{one.tenant}", UUID(one.installation), date.fromisoformat(one.local_date))
        for one in config.slots
    ]
    troubles: dict[str, str] = {}

    async def work(opened: OpenPlatform, ended: OnDone) -> None:
        slots = await slots_by_key(opened.database, keys)
        runner = directive_runner(context, opened, platform)
        await _send(opened, platform, runner, slots, ended, troubles)

    told: set[UUID | None] = set()
    bad: list[DigestRecord] = []

    def tell(records: list[DigestRecord]) -> None:
        tell_grid(context, digest_events(records, platform.settings()))
        bad.extend(one for one in records if one.slot.state in _NOT_WELL)

    with (
        WorkThread(platform, work, together_seconds=_TOLD_TOGETHER_SECONDS) as sending,
        platform.open() as opened,
    ):
        for batch in sending.batches():
            context.log.info("\n".join(line_of(outcome) for outcome in batch))
            settled = opened.run(settled_by(opened.database, batch, context.run_id))
            told |= {record.slot.directive_id for record in settled}
            tell(settled)
        slots = opened.run(slots_by_key(opened.database, keys))
        # What was settled without an attempt of this run: before it, by a drain, or not to be sent.
        others = [slot for slot in slots if slot.directive_id not in told]
        tell(opened.run(read_records(opened.database, others)))
    for schema, trouble in troubles.items():
        context.log.warning(f"{schema}: {trouble}")
    metadata = {
        "slots": dg.MetadataValue.int(len(keys)),
        "not_processed": dg.MetadataValue.int(len(bad)),
        "failures": dg.MetadataValue.md(
            markdown_table(
                ["tenant and date", "why"], [(one.name, _why(one, troubles)) for one in bad[:50]]
            )
            if bad
            else "none"
        ),
    }
    if len(bad) > NOT_PROCESSED_LIMIT * len(keys):
        raise dg.Failure(
            f"{len(bad)} of {len(keys)} digests are not sent. What may still succeed is tried again by "
            "itself; see 'failures' for why, and each tenant's installation page for what to do.",
            metadata=metadata,
            allow_retries=False,
        )
    return dg.Output(None, metadata=metadata)


_NOT_WELL = ("planned", "requested", "failed")


def _why(record: DigestRecord, troubles: dict[str, str]) -> str:
    trouble = record.error or troubles.get(record.slot.tenant_schema)
    return trouble or f"the slot is still {record.slot.state}"


async def _send(
    opened: OpenPlatform,
    platform: PlatformResource,
    runner: DirectiveRunner,
    slots: list[ScheduleSlot],
    ended: OnDone,
    troubles: dict[str, str],
) -> None:
    """Work on every tenant's slots, several tenants at once; notes what went wrong, by tenant schema."""
    by_schema: dict[str, list[ScheduleSlot]] = defaultdict(list)
    for slot in slots:
        if slot.state in ("planned", "requested"):
            by_schema[slot.tenant_schema].append(slot)
    async with opened.database.platform() as session:
        tenants = {tenant.schema: tenant for tenant in await active_tenants(session)}
    waiting = iter(by_schema.items())

    async def send_more() -> None:
        for schema, own in waiting:
            try:
                if (tenant := tenants.get(schema)) is None:
                    raise NotFoundError(f"There is no active tenant with schema {schema!r}.")
                ask = partial(
                    request_slots,
                    tenant=tenant,
                    slots=own,
                    now=platform.now(),
                    settings=opened.settings,
                )
                await runner.work_asked(tenant, ask, on_done=ended)
            except Exception as error:  # noqa: BLE001 - the other tenants' digests are still sent
                troubles[schema] = describe(error)

    async with runner:
        await asyncio.gather(*(send_more() for _ in range(_TENANTS_AT_ONCE)))


@dg.job(
    tags=run_tags("send due digests", priority=10, longest_seconds=1800),
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
) -> dg.Output[None]:
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
            if cell_of(partition_key(one.slot.local_date, one.tenant)) not in known
        ]
        tell_grid(context, digest_events(missing, opened.settings))
    return dg.Output(
        None,
        metadata={
            "slots_made": dg.MetadataValue.int(made),
            "digests_recorded": dg.MetadataValue.int(len(missing)),
        },
    )


@dg.job(
    tags={**run_tags("keep slots and records", priority=5, longest_seconds=900), **QUIET},
    description=(
        "Makes every installation's slots for the days ahead, and puts digests into the grid whose run died "
        "between sending and recording."
    ),
)
def keep_digests() -> None:
    """One op."""
    keep_slots_and_records()
