"""Keeping the grid's tenants, and telling the platform's own runs as signals."""

import json
from datetime import timedelta

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.tenants.service import active_tenants
from fleetprompt_dagster.defs.maintenance.workflow_runs import changes_since, signals_of, tell
from fleetprompt_dagster.partitions import BY_TENANT, TENANTS, days_by, most_tenants, tenants
from fleetprompt_dagster.resources import PlatformResource

# How far a sensor without a cursor looks back, so that the first runs of a new platform are told.
_FIRST_LOOK_BACK = timedelta(hours=1)


@dg.sensor(
    name="tenant_partitions",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps the tenants of the partition grids equal to the organizations.",
)
def tenant_partitions_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.SensorResult | dg.SkipReason:
    """Add partitions of new tenants and remove those of deleted ones."""
    if not BY_TENANT:
        return dg.SkipReason("Partitions are dates; their tenants are rows of each date's table.")
    wanted = platform.run(_active_slugs)
    present = set(context.instance.get_dynamic_partitions(TENANTS))
    days = days_by(platform.now().date())
    room = most_tenants(days)
    shown = set(wanted[:room])
    if len(wanted) > room:
        context.log.error(
            f"{len(wanted)} tenants of {days} days are more than 100,000 partitions; the grid shows "
            f"the first {room}. Every tenant's days are still written. Set FLEETPROMPT_DAGSTER_GRID=date, "
            "or keep signals for fewer days; a new start of the code server moves the grid's first day. "
            "See docs/decisions/dagster-partitions.md."
        )
    added, removed = sorted(shown - present), sorted(present - shown)
    if not added and not removed:
        return dg.SkipReason(f"All {len(present)} tenants are in the grid.")
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if added:
        requests.append(tenants.build_add_request(added))
    if removed:
        requests.append(tenants.build_delete_request(removed))
    return dg.SensorResult(dynamic_partitions_requests=requests)


async def _active_slugs(database: Database) -> list[str]:
    async with database.platform() as session:
        return [tenant.slug for tenant in await active_tenants(session)]


@dg.sensor(
    name="workflow_run_signals",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells Dagster's runs as signals `workflow.run.started`, `.completed`, `.failed` of the operations "
        "tenant. Upkeep that follows from signals is told only when it fails."
    ),
)
def workflow_run_signals_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.SkipReason:
    """Tell every change since the cursor in one transaction, then move the cursor.

    A tick that fails leaves the cursor where it was; what is told twice is kept once, by its key.
    """
    seen: dict[str, int] = json.loads(context.cursor or "{}")
    changes = changes_since(context.instance, seen, from_time=platform.now() - _FIRST_LOOK_BACK)
    signals = signals_of(context.instance, changes)
    slug = platform.settings().operations_tenant
    told = not signals or platform.run(lambda database: tell(database, slug, signals))
    for change in changes:
        seen[change.kind.value] = max(seen.get(change.kind.value, 0), change.storage_id)
    context.update_cursor(json.dumps(seen))
    if not told:
        return dg.SkipReason(
            f"There is no tenant {slug!r} to tell {len(signals)} changes of runs to. Create it with "
            f"`fleetprompt tenants create {slug}`, or name another one in FLEETPROMPT_OPERATIONS_TENANT."
        )
    return dg.SkipReason(f"Told {len(signals)} of {len(changes)} changes of runs to {slug!r}.")
