"""One worker in a process of its own: ``python -m bench.directives.worker ours|procrastinate``.

It takes orders on standard input, one a line. ``drain <concurrency>`` works off what is due and
answers ``done <seconds> <seconds of its own CPU>``; ``stay <concurrency>`` works until the process is
ended. Both sides log a line for each piece of work at INFO, as they do where they are deployed.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

from bench.directives.tasks import procrastinate
from bench.directives.types import TYPES
from fleetprompt.db.engine import Database
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.log import configure
from fleetprompt.settings import get_settings

_FOREVER = 3600.0

Work = Callable[[int, bool], Awaitable[None]]


@asynccontextmanager
async def ours() -> AsyncIterator[Work]:
    """The directive engine as a drain runs it, the Dagster run it belongs to included."""
    settings = get_settings()
    configure(settings.log_level, settings.log_format)
    run_id = str(uuid4())
    async with Database.application(settings) as database:

        async def work(concurrency: int, stay: bool) -> None:
            async with DirectiveRunner(
                database,
                settings,
                owner=f"dagster:{run_id}",
                concurrency=concurrency,
                dagster_run_id=run_id,
                types=TYPES,
            ) as runner:
                await runner.drain(linger_seconds=_FOREVER if stay else 0.0, most_seconds=_FOREVER)

        yield work


@asynccontextmanager
async def theirs() -> AsyncIterator[Work]:
    """Procrastinate's worker, logging as its own command does."""
    logging.basicConfig(level=logging.INFO)
    async with procrastinate(os.environ["BENCH_PROCRASTINATE_URL"]).open_async() as app:

        async def work(concurrency: int, stay: bool) -> None:
            await app.run_worker_async(concurrency=concurrency, wait=stay, listen_notify=True)

        yield work


async def main(side: str) -> None:
    """Follow the orders."""
    async with (ours if side == "ours" else theirs)() as work:
        while line := await asyncio.to_thread(sys.stdin.readline):
            order, concurrency = line.split()
            began, busy = time.perf_counter(), time.process_time()
            await work(int(concurrency), order == "stay")
            took, used = time.perf_counter() - began, time.process_time() - busy
            sys.stdout.write(f"done {took!r} {used!r}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
