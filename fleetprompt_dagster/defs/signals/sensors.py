"""Looks for tenants' days that have changed; only looks."""

import json
from datetime import datetime

import dagster as dg

from fleetprompt.ids import new_id
from fleetprompt.lake.stale import StaleDay, settled, stale_days
from fleetprompt_dagster.defs.signals.jobs import rebuild_stale_days, rebuild_tenant_days
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runs import batches, live_runs, op_config, work_tags

DAYS_A_RUN = 250
# A day that was asked for and is still stale was not written; it waits twice as long each time.
_FIRST_WAIT = 120.0
_LONGEST_WAIT = 3600.0

# Oldest mark -> how often the day was asked for, and when last (seconds since the epoch).
Asked = dict[int, tuple[int, float]]


@dg.sensor(
    name="stale_days",
    job=rebuild_stale_days,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Asks for tenants' days that changed since they were written: closed days within half a minute, "
        "today every two minutes with few tenants and less often with many. At most 8 runs a tick."
    ),
)
def stale_days_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for the days that have settled, are not under way and are not waiting after a failure."""
    now = platform.now()
    stale = platform.run(stale_days)
    asked = forget_written(read_cursor(context.cursor), stale)
    under_way = {
        (each["tenant"], each["day"])
        for run in live_runs(context.instance, rebuild_stale_days.name)
        for each in op_config(run, rebuild_tenant_days.name).get("days", ())
    }
    due = [
        each
        for each in settled(stale, now)
        if (each.tenant, each.day.isoformat()) not in under_way and may_ask(asked, each, now)
    ]
    requests = []
    for batch in batches(due, DAYS_A_RUN):
        config = [{"tenant": each.tenant, "day": each.day.isoformat()} for each in batch]
        requests.append(
            dg.RunRequest(
                # Never used again: a key that failed once would be spent for ever.
                run_key=f"rebuild:{new_id()}",
                run_config={"ops": {rebuild_tenant_days.name: {"config": {"days": config}}}},
                tags=work_tags((each.tenant for each in batch), days=len(batch)),
            )
        )
        for each in batch:
            times, _ = asked.get(each.oldest_mark, (0, 0.0))
            asked[each.oldest_mark] = (times + 1, now.timestamp())
    if not requests:
        context.update_cursor(write_cursor(asked))
        return dg.SkipReason(
            f"{len(stale)} days are stale, {len(under_way)} are being written, none is due."
        )
    return dg.SensorResult(run_requests=requests, cursor=write_cursor(asked))


def may_ask(asked: Asked, stale: StaleDay, now: datetime) -> bool:
    """Whether the day was never asked for, or long enough ago."""
    if stale.oldest_mark not in asked:
        return True
    times, last = asked[stale.oldest_mark]
    wait: float = min(_FIRST_WAIT * 2 ** (times - 1), _LONGEST_WAIT)
    return now.timestamp() - last >= wait


def forget_written(asked: Asked, stale: list[StaleDay]) -> Asked:
    """Only those whose mark is still there: the others were written."""
    marks = {each.oldest_mark for each in stale}
    return {mark: each for mark, each in asked.items() if mark in marks}


def read_cursor(cursor: str | None) -> Asked:
    """What was asked for, from the sensor's cursor."""
    return {int(mark): (times, last) for mark, times, last in json.loads(cursor or "[]")}


def write_cursor(asked: Asked) -> str:
    """What was asked for, for the sensor's cursor: about 30 bytes a day."""
    return json.dumps(
        [[mark, times, round(last)] for mark, (times, last) in asked.items()], separators=(",", ":")
    )
