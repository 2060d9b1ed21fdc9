"""When digests are due: a question to the database, so that downtime heals itself."""

import os
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import due
from fleetprompt_dagster.defs.digests.jobs import keep_digests, send_digests, send_due_digests
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runs import LIVE, batches, op_config, work_tags

# A run starts in seconds of CPU and keeps one core busy: as many as there are cores, unless they would
# have too little to do, or so much that a run's end is long in coming.
LEAST_A_RUN, MOST_A_RUN = 125, 500
# A slot that was asked for is not asked for again so soon, whatever became of the run.
_NOT_AGAIN_WITHIN = timedelta(minutes=5)

Key = tuple[str, str, str]


@dg.schedule(
    name="due_digests",
    job=send_digests,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every minute: sends what is due in any time zone, however long ago it became so. At most 8 runs a "
        "minute; what is later than the grace is skipped and stays visible."
    ),
)
def due_digests(
    context: dg.ScheduleEvaluationContext, platform: PlatformResource
) -> list[dg.RunRequest] | dg.SkipReason:
    """Ask for the slots that are due and not under way."""
    now = platform.now()

    async def ask(database: Database) -> list[ScheduleSlot]:
        async with database.platform() as session:
            return await due(session, now)

    slots = platform.run(ask)
    if not slots:
        return dg.SkipReason("No digest is due.")
    recent = _asked_for(
        [
            *context.instance.get_runs(
                dg.RunsFilter(job_name=send_digests.name, created_after=now - _NOT_AGAIN_WITHIN),
                limit=500,
            ),
            *context.instance.get_runs(
                dg.RunsFilter(job_name=send_digests.name, statuses=list(LIVE)), limit=500
            ),
        ]
    )
    fresh = [key for key in map(_key, slots) if key not in recent]
    if not fresh:
        return dg.SkipReason(f"{len(slots)} digests are due, and all of them are under way.")
    return [
        dg.RunRequest(
            # Never used again: a key that failed once would be spent for ever.
            run_key=f"digests:{new_id()}",
            run_config={"ops": {send_due_digests.name: {"config": {"slots": _config(batch)}}}},
            tags=work_tags((tenant for tenant, _, _ in batch), slots=len(batch)),
        )
        for batch in batches(fresh, slots_a_run(len(fresh)))
    ]


def slots_a_run(slots: int, cores: int | None = None) -> int:
    """How many slots each run gets; ``cores`` are this machine's unless they are given."""
    cores = cores or os.cpu_count() or 1
    return min(max(-(-slots // cores), LEAST_A_RUN), MOST_A_RUN)


def _key(slot: ScheduleSlot) -> Key:
    slug = slot.tenant_schema.removeprefix("org_")
    return slug, str(slot.installation_id), slot.local_date.isoformat()


def _config(batch: Sequence[Key]) -> list[dict[str, str]]:
    return [
        {"tenant": tenant, "installation": installation, "local_date": local_date}
        for tenant, installation, local_date in batch
    ]


def _asked_for(runs: Sequence[dg.DagsterRun]) -> set[Key]:
    return {
        (each["tenant"], each["installation"], each["local_date"])
        for run in runs
        for each in op_config(run, send_due_digests.name).get("slots", ())
    }


keep_digests_hourly = dg.ScheduleDefinition(
    name="keep_digests_hourly",
    job=keep_digests,
    cron_schedule="41 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Slots of the days ahead, and records that are missing, at 41 minutes past the hour.",
)
