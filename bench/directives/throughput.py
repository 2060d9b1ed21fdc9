"""Directives a second with their whole audit, and Procrastinate's tasks that do nothing."""

from collections.abc import Sequence
from statistics import median

from rich.console import Console

from bench.directives.audit import audited
from bench.directives.contenders import Contender, Ours, Procrastinate
from bench.platform import Bench
from bench.report import Ratio

EACH = 1500
ROUNDS = 3
CONCURRENCIES = (8, 16, 32, 64)


async def measure(
    console: Console, bench: Bench, ours: Ours, theirs: Procrastinate, each: int = EACH
) -> Ratio:
    """Each with the concurrency that suits it best, in turns, medians."""
    rates: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    best = await _best_concurrencies(console, (ours, theirs), each // 10)
    for number in range(ROUNDS):
        for contender in (ours, theirs):
            rate = await _rate(contender, each, best[contender.name])
            rates[contender.name].append(rate)
            console.print(
                f"  round {number + 1}  {contender.name:<28}{rate:>9.0f} /s"
                f"  ({best[contender.name]} at once)"
            )
    assert await theirs.unfinished() == 0
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


async def _best_concurrencies(
    console: Console, contenders: Sequence[Contender], each: int
) -> dict[str, int]:
    """By short trials in turns, the better of two each, after one that warms the worker up."""
    best = {}
    tried: dict[str, dict[int, float]] = {one.name: {} for one in contenders}
    for contender in contenders:
        await _rate(contender, each, CONCURRENCIES[0])
    for many in CONCURRENCIES * 2:
        for contender in contenders:
            rate = await _rate(contender, each, many)
            rates = tried[contender.name]
            rates[many] = max(rate, rates.get(many, 0.0))
    for name, rates in tried.items():
        told = ", ".join(f"{many} at once {rate:.0f} /s" for many, rate in rates.items())
        console.print(f"  tried    {name:<28} {told}")
        best[name] = max(rates, key=rates.__getitem__)
    return best
