"""Daily digests as partitions of the tenant's local date, and whether each is on time."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import and_, or_, select

from fleetprompt.db.engine import Database
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt_dagster.defs.digests.records import DAILY_DIGEST
from fleetprompt_dagster.defs.signals.assets import signals
from fleetprompt_dagster.metadata import markdown_table
from fleetprompt_dagster.partitions import local_dates, utc_days_of_local_date
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runbooks import runbook

_PLANNED_TOO_LONG = timedelta(minutes=15)
_REQUESTED_TOO_LONG = timedelta(hours=1)
_LOOK_BACK = timedelta(hours=48)
_SAMPLE = 20

# Not materialisable by hand: a digest is a side effect, and only a directive may cause one.
daily_digest = dg.AssetSpec(
    DAILY_DIGEST,
    partitions_def=local_dates,
    deps=[dg.AssetDep(signals, partition_mapping=utc_days_of_local_date), "schedule_slots"],
    group_name="digests",
    kinds={"postgres", "mattermost"},
    owners=["team:operators"],
    tags={"domain": "digests"},
    description=(
        "Each tenant's digest of a local date, as it was posted, with its exact UTC window. Recorded by the "
        "runs that send it (`send_digests`, `drain_directives`); to send one again, use *Run now* on the "
        "installation's page, or launch `send_digests` for a slot that is still open."
    ),
)


# Where the check hangs: on `daily_digest`, each new digest would make its result look outdated.
schedule_slots = dg.AssetSpec(
    "schedule_slots",
    group_name="digests",
    kinds={"postgres"},
    owners=["team:operators"],
    tags={"domain": "digests"},
    description="When each tenant's digest is due, and what became of it: ids and times only.",
)


@dg.asset_check(
    asset=schedule_slots.key,
    metadata=runbook("every_digest_is_on_time"),
    description=(
        "Every tenant's digest of the last two days was sent or skipped on purpose, and none waits. To "
        "recover: see each installation's page for its last error; check that the daemon and the schedule "
        "`due_digests` run."
    ),
)
def every_digest_is_on_time(platform: PlatformResource) -> dg.AssetCheckResult:
    """Look at the slots themselves: one healthy tenant turns no other's failure green."""
    now = platform.now()

    async def ask(database: Database) -> list[ScheduleSlot]:
        async with database.platform() as session:
            found = await session.scalars(
                select(ScheduleSlot)
                .where(
                    ScheduleSlot.due_at > now - _LOOK_BACK,
                    or_(
                        ScheduleSlot.state.in_(("failed", "skipped_missed")),
                        and_(
                            ScheduleSlot.state == "planned",
                            ScheduleSlot.due_at < now - _PLANNED_TOO_LONG,
                        ),
                        and_(
                            ScheduleSlot.state == "requested",
                            ScheduleSlot.due_at < now - _REQUESTED_TOO_LONG,
                        ),
                    ),
                )
                .order_by(ScheduleSlot.due_at)
            )
            return list(found)

    late = platform.run(ask)
    return dg.AssetCheckResult(
        passed=not late,
        metadata={
            "not_on_time": len(late),
            "sample": dg.MetadataValue.md(
                markdown_table(
                    ["tenant", "local date", "due at", "state"],
                    [
                        (
                            one.tenant_schema.removeprefix("org_"),
                            one.local_date,
                            one.due_at,
                            one.state,
                        )
                        for one in late[:_SAMPLE]
                    ],
                )
            ),
        },
        description=(
            "Every digest is on time."
            if not late
            else f"{len(late)} digests are not. `failed`: the installation's page says why; mend it and use "
            "*Run now*. `planned` or `requested`: check the daemon, the schedule `due_digests` and the runs "
            "of `send_digests` and `drain_directives`. `skipped_missed`: the platform was down for longer "
            "than the grace; *Run now* sends the last 24 hours."
        ),
    )
