"""From asked for to started, while a worker waits: ours, and Procrastinate's beside it."""

import asyncio
import random
import time
from dataclasses import dataclass
from statistics import quantiles

from rich.console import Console

from bench.directives.contenders import Contender, Ours, Procrastinate
from bench.report import Bound

SAMPLES = 300
BLOCKS = 3
WARM_UP = 20
CONCURRENCY = 8
P50_MS, P99_MS = 25.0, 100.0
# Seconds between two requests: evenly drawn, so that no rhythm meets a poll.
_PAUSE = (0.002, 0.05)


@dataclass(frozen=True)
class Started:
    """Milliseconds until the handler was entered: from the request, and from its commit."""

    from_request: float
    from_commit: float


async def measure(
    console: Console, ours: Ours, theirs: Procrastinate, samples: int = SAMPLES
) -> list[Bound]:
    """In turns, so that whatever else the machine does meets both."""
    taken: dict[str, list[Started]] = {}
    for contender in (ours, theirs):
        await contender.worker.order("stay", CONCURRENCY)
        await _block(contender, WARM_UP, first=0)
    for block in range(BLOCKS):
        for contender in (ours, theirs):
            found = await _block(contender, samples // BLOCKS, first=1000 * (block + 1))
            taken.setdefault(contender.name, []).extend(found)
    p50, p99 = _told(console, ours, taken[ours.name])
    their_p50, their_p99 = _told(console, theirs, taken[theirs.name])
    return [
        Bound("directive created → started, warm, p50", p50, "ms", P50_MS, "Procrastinate", their_p50),
        Bound("directive created → started, warm, p99", p99, "ms", P99_MS, "Procrastinate", their_p99),
    ]  # fmt: skip


async def _block(contender: Contender, count: int, *, first: int) -> list[Started]:
    """Ask at random intervals; the worker tells when it started each."""
    chosen = random.Random(first)
    asked: dict[int, tuple[float, float]] = {}
    started: dict[int, float] = {}

    async def listen() -> None:
        while len(started) < count:
            _, number, at = await contender.worker.answer()
            started[int(number)] = float(at)

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        for number in range(first, first + count):
            await asyncio.sleep(chosen.uniform(*_PAUSE))
            before = time.time()
            await contender.ask(number)
            asked[number] = before, time.time()
    return [
        Started((started[number] - before) * 1000, (started[number] - after) * 1000)
        for number, (before, after) in asked.items()
    ]


def _told(console: Console, contender: Contender, taken: list[Started]) -> tuple[float, float]:
    cuts = quantiles((one.from_request for one in taken), n=100)
    commit = quantiles((one.from_commit for one in taken), n=100)
    console.print(
        f"  created → started, {contender.name:<28} p50 {cuts[49]:5.1f} ms  p99 {cuts[98]:5.1f} ms"
        f"  (from the answer to the request: p50 {commit[49]:5.1f}  p99 {commit[98]:5.1f})"
    )
    return cuts[49], cuts[98]
