"""With the whole platform running: the cold start of a directive, and a Dagster run for each.

What is asked for is ``package.uninstall`` of an installation that does not exist, the cheapest of the
product's own directives: its handler looks for the installation and is done.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from rich.console import Console

from bench.directives.running import Dagster, query, running, wait
from bench.platform import Bench
from bench.report import Bound
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.wake import notify_directives

SAMPLES = 3
RUNS = 6
BOUND_SECONDS = 10.0
IN_A_DRAIN = 400


@dataclass(frozen=True)
class Measured:
    """The slowest cold start, and directives a second: in a drain's run, and with a run for each."""

    cold: Bound
    in_a_drain: float
    with_a_run_for_each: float


def measure(console: Console, bench: Bench) -> Measured:
    """Cold starts first, then a drain's own rate, then the same work with a run for each."""
    with running(console, bench) as dagster:
        cold = [_cold_start(bench, dagster) for _ in range(SAMPLES)]
        told = ", ".join(f"{seconds:.1f}" for seconds in cold)
        console.print(f"  created → started, no drain live: {told} s")
        in_a_drain = _in_a_drain_run(bench)
        console.print(f"  in the run of a drain that is live: {in_a_drain:.0f} directives/s")
        dagster.stop_sensor("due_directives")
        dagster.end_runs("drain_directives")
        with_a_run_for_each = _run_for_each(bench, dagster)
    console.print(f"  with a Dagster run for each: {with_a_run_for_each:.2f} directives/s")
    return Measured(
        Bound("directive created → started, cold, slowest", max(cold), "s", BOUND_SECONDS),
        in_a_drain,
        with_a_run_for_each,
    )


def _cold_start(bench: Bench, dagster: Dagster) -> float:
    """Seconds until an attempt began. A drain that is live is ended before, as an operator would."""
    dagster.end_runs("drain_directives")
    wait("the end of other runs", dagster.is_idle)
    # At any point between two looks of the sensor, which come every five seconds.
    time.sleep(random.uniform(0.0, 5.0))
    [directive] = asyncio.run(_ask(bench, 1))
    [(seconds,)] = wait(
        "the start of a directive",
        lambda: query(
            bench,
            "SELECT extract(epoch FROM t.at - d.created_at)::float8 FROM directives d"
            " JOIN directive_transitions t ON t.directive_id = d.id AND t.to_state = 'running'"
            " WHERE d.id = %(id)s",
            id=directive,
        ),
    )
    return float(seconds)


def _in_a_drain_run(bench: Bench) -> float:
    """Directives a second of the drain that is live, which also tells Dagster of each."""
    directives = list(asyncio.run(_ask(bench, IN_A_DRAIN)))
    ends = "SELECT min(at), max(at) FROM directive_transitions WHERE directive_id = ANY(%(ids)s)"
    wait(
        "the end of the drain's work",
        lambda: query(
            bench,
            "SELECT 1 WHERE NOT EXISTS"
            " (SELECT FROM directives WHERE id = ANY(%(ids)s) AND state <> 'succeeded')",
            ids=directives,
        ),
    )
    [(first, last)] = query(
        bench, f"{ends} AND to_state IN ('running', 'succeeded')", ids=directives
    )
    return IN_A_DRAIN / float((last - first).total_seconds())


def _run_for_each(bench: Bench, dagster: Dagster) -> float:
    """Directives a second when each has a run of its own, all queued at once."""
    directives = asyncio.run(_ask(bench, RUNS))
    began = time.time()
    for directive in directives:
        config = {"tenant": bench.tenant.slug, "directive_id": str(directive)}
        dagster.launch("run_directive", {"ops": {"work_directive": {"config": config}}})
    wait("the end of the runs", lambda: all(run.ended_at for run in dagster.runs("run_directive")))
    runs = dagster.runs("run_directive")
    assert [run.status for run in runs] == ["SUCCESS"] * RUNS, runs
    return RUNS / (max(run.ended_at or 0.0 for run in runs) - began)


async def _ask(bench: Bench, count: int) -> Sequence[UUID]:
    ids = []
    async with Database.application(bench.settings) as database:
        async with database.tenant(bench.tenant.schema) as session:
            for _ in range(count):
                installation = uuid4()
                directive, _ = await request_directive(
                    session, bench.tenant, "package.uninstall",
                    {"installation_id": str(installation)},
                    idempotency_key=f"bench:{installation}", actor=PLATFORM,
                    correlation_id=f"bench:{installation}",
                )  # fmt: skip
                ids.append(directive.id)
        await notify_directives(database)
    return ids
