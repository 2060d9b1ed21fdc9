"""Looks for due directives; only looks. The run claims them."""

from datetime import timedelta

import dagster as dg

from fleetprompt.directives.due import peek
from fleetprompt.ids import new_id
from fleetprompt_dagster.defs.directives.jobs import drain_directives
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runs import live_runs

# Work that lies for so long beside a drain that is said to be live: the drain is dead, which Dagster
# cannot see, or overloaded. Another one is right in both cases; leases keep them apart.
_DRAIN_IS_NO_HELP = timedelta(seconds=60)
MOST_DRAINS = 3


@dg.sensor(
    name="due_directives",
    job=drain_directives,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Starts a drain when directives are due and none is live, and one more when due work has lain for "
        "a minute beside a live one."
    ),
)
def due_directives_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a drain if it is needed; nothing is claimed here, so nothing can be stuck here."""
    now = platform.now()
    due = platform.run(lambda database: peek(database, now))
    if not due:
        return dg.SkipReason("No directive is due.")
    many = sum(each.count for each in due)
    live = live_runs(context.instance, drain_directives.name)
    if live:
        waiting = now - min(each.oldest_due_at for each in due)
        record = context.instance.get_run_record_by_id(live[0].run_id)
        newest = record.create_timestamp if record else now
        if (
            len(live) >= MOST_DRAINS
            or waiting < _DRAIN_IS_NO_HELP
            or now - newest < _DRAIN_IS_NO_HELP
        ):
            return dg.SkipReason(f"{many} directives are due; {len(live)} drains are live.")
    return dg.RunRequest(run_key=f"drain:{new_id()}")
