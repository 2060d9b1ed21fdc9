"""The queue of directives as something that can be checked."""

from datetime import timedelta

import dagster as dg

from fleetprompt.directives.due import peek
from fleetprompt_dagster.metadata import markdown_table
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runbooks import runbook

_STUCK_AFTER = timedelta(minutes=5)

directive_queue = dg.AssetSpec(
    "directive_queue",
    group_name="directives",
    kinds={"postgres"},
    owners=["team:operators"],
    tags={"domain": "directives"},
    description=(
        "Directives that wait or are under way, of all tenants: ids and times only. Filled by whoever asks "
        "for a side effect, worked off by `drain_directives`."
    ),
)


@dg.asset_check(
    asset=directive_queue.key,
    metadata=runbook("no_directive_is_stuck"),
    description=(
        "No directive of the platform's has been due for more than five minutes. To recover: see that "
        "the sensor `due_directives` and the daemon run, and what the last drain's log says."
    ),
)
def no_directive_is_stuck(platform: PlatformResource) -> dg.AssetCheckResult:
    """Look at how long the oldest due directive waits."""
    now = platform.now()
    due = platform.run(lambda database: peek(database, now))
    stuck = [each for each in due if now - each.oldest_due_at > _STUCK_AFTER]
    return dg.AssetCheckResult(
        passed=not stuck,
        metadata={
            "due": sum(each.count for each in due),
            "oldest_waits_seconds": max(
                ((now - each.oldest_due_at).total_seconds() for each in due), default=0.0
            ),
            "by_type": dg.MetadataValue.md(
                markdown_table(
                    ["type", "due", "since"],
                    [(each.type, each.count, each.oldest_due_at) for each in due],
                )
            ),
        },
        description=(
            "Directives start in time."
            if not stuck
            else "Directives wait for more than five minutes. Check that the daemon runs, that the sensor "
            "`due_directives` is on and that the run queue is not full; then launch `drain_directives` by "
            "hand. Leases make it safe beside another drain."
        ),
    )
