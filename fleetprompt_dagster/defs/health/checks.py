"""The platform's vital signs as an asset with a check."""

from collections.abc import Sequence

import dagster as dg

from fleetprompt.health.vitals import Vital, look
from fleetprompt_dagster.metadata import Metadata, markdown_table
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runbooks import runbook, runbook_address

# A daemon beats every half minute; one that has not for so long stands still.
DAEMON_SILENT_SECONDS = 180.0
# Runs that wait longer mean that the queue is full of something that does not end.
QUEUED_SECONDS = 600.0

platform_health = dg.AssetSpec(
    "platform_health",
    group_name="health",
    kinds={"postgres"},
    owners=["team:operators"],
    tags={"domain": "health"},
    metadata=runbook("platform_is_well"),
    description=(
        "What is due and since when, what lags, who is at work, and Dagster's own heartbeats. Told every "
        "five minutes by the sensor `operators`, without a run."
    ),
)


def vitals_of(instance: dg.DagsterInstance, platform: PlatformResource) -> list[Vital]:
    """PostgreSQL's signs and Dagster's own."""
    now = platform.now().timestamp()
    found = platform.run(look)
    for kind, beat in sorted(instance.get_daemon_heartbeats().items()):
        found.append(
            Vital(
                f"daemon_{kind.lower()}",
                round(max(0.0, now - beat.timestamp), 1),
                "s",
                DAEMON_SILENT_SECONDS,
                f"How long ago Dagster's daemon {kind} was last heard of.",
                "platform_is_well",
            )
        )
    queued = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1, ascending=True
    )
    waits = max((now - record.create_timestamp.timestamp() for record in queued), default=0.0)
    found.append(
        Vital(
            "oldest_queued_run",
            round(max(0.0, waits), 1),
            "s",
            QUEUED_SECONDS,
            "How long the oldest queued run waits for its turn.",
            "platform_is_well",
        )
    )
    return found


def vitals_metadata(found: Sequence[Vital]) -> Metadata:
    """Numbers, which Dagster draws over time, and a table with limits."""
    rows = [
        (
            one.name,
            f"{one.value:g} {one.unit}",
            "" if one.limit is None else f"≤ {one.limit:g}",
            "well" if one.ok else "NOT WELL",
            one.meaning,
            runbook_address(one.runbook),
        )
        for one in found
    ]
    numbers: Metadata = {one.name: dg.MetadataValue.float(float(one.value)) for one in found}
    heads = ["sign", "now", "limit", "", "meaning", "what to do"]
    return numbers | {"vitals": dg.MetadataValue.md(markdown_table(heads, rows))}


def told(found: Sequence[Vital]) -> str:
    """What is not well, in one sentence each."""
    wrong = [one for one in found if not one.ok]
    if not wrong:
        return "Everything is within its limits."
    return " ".join(
        f"{one.name} is {one.value:g} {one.unit}, more than {one.limit:g}: {one.meaning} See"
        f" {runbook_address(one.runbook)}."
        for one in wrong
    )


@dg.asset_check(
    asset=platform_health.key,
    metadata=runbook("platform_is_well"),
    description=(
        "Nothing waits too long, and whoever should be at work is. To recover: each sign that is not well "
        "names its runbook."
    ),
)
def platform_is_well(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """Look at every sign."""
    found = vitals_of(context.instance, platform)
    return dg.AssetCheckResult(
        passed=all(one.ok for one in found),
        metadata=vitals_metadata(found) | runbook("platform_is_well"),
        description=told(found),
    )
