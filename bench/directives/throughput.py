"""Directives a second with their whole audit, and Procrastinate's tasks that do nothing."""

from statistics import median

from rich.console import Console

from bench.directives.audit import audited
from bench.directives.contenders import Contender, Ours, Procrastinate
from bench.platform import Bench
from bench.report import Ratio

EACH = 2000
ROUNDS = 3
CONCURRENCIES = (4, 8, 16, 32, 64)


async def measure(
    console: Console, bench: Bench, ours: Ours, theirs: Procrastinate, each: int = EACH
) -> Ratio:
    """Each with the concurrency that suits it best, in turns, medians."""
    rates: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    best = {one.name: await _best_concurrency(console, one, each // 10) for one in (ours, theirs)}
    for number in range(ROUNDS):
        for contender in (ours, theirs):
            rate = await _rate(contender, each, best[contender.name])
            rates[contender.name].append(rate)
            console.print(
                f"  round {number + 1}  {contender.name:<28}{rate:>9.0f} /s"
                f"  ({best[contender.name]} at once)"
            )
    console.print(f"  every directive left: {audited(bench, ours.tenants)}")
    return Ratio(
        "directives worked off, full audit",
        median(rates[ours.name]),
        theirs.name,
        median(rates[theirs.name]),
        "/s",
        target=1.0,
    )


async def _rate(contender: Contender, count: int, concurrency: int) -> float:
    await contender.fill(count)
    return count / await contender.worker.drain(concurrency)


async def _best_concurrency(console: Console, contender: Contender, each: int) -> int:
    """By a short trial of each, after one that warms the worker up."""
    await _rate(contender, each, CONCURRENCIES[0])
    rates = {many: await _rate(contender, each, many) for many in CONCURRENCIES}
    tried = ", ".join(f"{many} at once {rate:.0f} /s" for many, rate in rates.items())
    console.print(f"  tried    {contender.name:<28} {tried}")
    return max(rates, key=rates.__getitem__)
