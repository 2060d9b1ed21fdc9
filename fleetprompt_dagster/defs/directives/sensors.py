"""Looks for due directives; only looks. The run claims them."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.directives.due import DueCount, peek
from fleetprompt.directives.wake import WakeUps
from fleetprompt.directives.workers import Worker, known_workers
from fleetprompt.ids import new_id
from fleetprompt_dagster.defs.directives.jobs import drain_directives
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runs import live_runs
from fleetprompt_dagster.working import worker_name

# Work that lies for so long beside a drain: it is overloaded, and one more is right.
_DRAIN_IS_NO_HELP = timedelta(seconds=60)
# Not seen for so long, a drain's process is gone; a database that was away for a moment is no proof.
_GONE_AFTER_SECONDS = 60.0
# A run's process needs some seconds from its start to its first look at the queue.
_BEGINS_WITHIN = timedelta(seconds=60)
MOST_DRAINS = 3

Found = tuple[list[DueCount], list[Worker]]


@dg.sensor(
    name="due_directives",
    job=drain_directives,
    minimum_interval_seconds=2,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Starts a drain when directives are due and none is at work, when one is about to retire, and one "
        "more when due work has lain for a minute beside others. Runs of drains whose process is gone are "
        "marked as failed."
    ),
)
def due_directives_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a drain if it is needed; nothing is claimed here, so nothing can be stuck here."""
    due, workers = platform.run(lambda database: _look(database, platform))
    coming = _begin_or_fail(context.instance, workers, platform.now())
    taking = [one for one in workers if one.state == "taking"]
    retiring = any(one.state == "retiring" for one in workers)
    many = sum(each.count for each in due)
    if coming:
        return dg.SkipReason(f"{many} directives are due; a drain is about to begin.")
    if taking:
        waits = platform.now() - min((each.oldest_due_at for each in due), default=platform.now())
        newest = platform.now() - max(one.started_at for one in taking)
        if min(waits, newest) < _DRAIN_IS_NO_HELP or len(taking) >= MOST_DRAINS:
            return dg.SkipReason(f"{many} directives are due; {len(taking)} drains are at work.")
        reason = f"busy beside {len(taking)}"
    elif due or retiring:
        reason = "one retires" if retiring else "none at work"
    else:
        return dg.SkipReason("No directive is due.")
    return dg.RunRequest(
        run_key=f"drain:{new_id()}",
        tags={"fleetprompt/due": str(many), "fleetprompt/because": reason},
    )


async def _look(database: Database, platform: PlatformResource) -> Found:
    """What is due and who works. If there is neither, wait a little: a tick sooner, a start sooner."""
    found = await _seen(database, platform.now())
    if platform.patience_seconds <= 0 or found[0] or _at_work(found[1]):
        return found
    until = time.monotonic() + platform.patience_seconds
    async with WakeUps(database.url) as wake_ups:
        while (left := until - time.monotonic()) > 0:
            # A notification may be lost, and a delay runs out without any.
            await wake_ups.wait(min(left, 1.0))
            found = await _seen(database, platform.now())
            if found[0] or _at_work(found[1]):
                break
    return found


async def _seen(database: Database, now: datetime) -> Found:
    return await peek(database, now), await known_workers(database)


def _at_work(workers: Sequence[Worker]) -> bool:
    return any(one.state in ("taking", "retiring") for one in workers)


def _begin_or_fail(
    instance: dg.DagsterInstance, workers: Sequence[Worker], now: datetime
) -> list[dg.DagsterRun]:
    """Runs that have yet to begin their work. Those whose process is gone are marked as failed.

    Dagster cannot see that a process died (research/dagster.md, fact 10), and such a run would keep its
    place in the run queue for as long as a run may last.
    """
    known = {one.owner: one for one in workers}
    coming: list[dg.DagsterRun] = []
    for run in live_runs(instance, drain_directives.name):
        worker = known.get(worker_name(run.run_id))
        if worker is None and not _should_have_begun(instance, run, now):
            coming.append(run)
        elif worker is None or (
            worker.state == "lost" and worker.unseen_seconds > _GONE_AFTER_SECONDS
        ):
            instance.report_run_failed(
                run, "The drain's process is gone or stands still. Others take up what it held."
            )
    return coming


def _should_have_begun(instance: dg.DagsterInstance, run: dg.DagsterRun, now: datetime) -> bool:
    record = instance.get_run_record_by_id(run.run_id)
    if run.status is not dg.DagsterRunStatus.STARTED or record is None or not record.start_time:
        return False
    return now.timestamp() - record.start_time > _BEGINS_WITHIN.total_seconds()
