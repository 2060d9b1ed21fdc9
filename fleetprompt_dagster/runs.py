"""How runs are tagged, batched and found again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg

Item = TypeVar("Item")

# A run costs about 5 CPU-seconds and 125 MB, whatever it does; a tick asks for at most so many.
MOST_RUNS_A_TICK = 8
# A batch fails when more than this share of it was not processed.
NOT_PROCESSED_LIMIT = 0.10

# Upkeep that follows from signals makes none of its own unless it fails; see maintenance/sensors.py.
QUIET = {"fleetprompt/quiet": "true"}

LIVE = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def run_tags(purpose: str, *, priority: int, longest_seconds: int) -> dict[str, str]:
    """Tags of a job: what it is for, its turn in the queue (higher first), when monitoring ends it."""
    return {
        "fleetprompt/purpose": purpose,
        "dagster/priority": str(priority),
        "dagster/max_runtime": str(longest_seconds),
    }


def work_tags(tenants: Iterable[str], **amounts: int) -> dict[str, str]:
    """Tags of a run: whose work it does, one tenant by name and several by number, and how much."""
    match sorted(set(tenants)):
        case [tenant]:
            whose = {"fleetprompt/tenant": tenant}
        case several:
            whose = {"fleetprompt/tenants": str(len(several))}
    return whose | {f"fleetprompt/{what}": str(amount) for what, amount in amounts.items()}


def live_runs(instance: dg.DagsterInstance, job_name: str) -> Sequence[dg.DagsterRun]:
    """Runs of the job that wait or are under way, the newest first."""
    return instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(LIVE)), limit=100)


def op_config(run: dg.DagsterRun, op_name: str) -> Mapping[str, Any]:
    """The config that the run gives to the op; empty if it gives none."""
    config: Any = run.run_config
    found: Mapping[str, Any] = config.get("ops", {}).get(op_name, {}).get("config", {})
    return found


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, in at most ``MOST_RUNS_A_TICK`` batches of at most ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)][:MOST_RUNS_A_TICK]
