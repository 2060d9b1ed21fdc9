"""Directives a second with their whole audit, and Procrastinate's tasks that do nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.directives.audit import audited
from bench.directives.contenders import Contender, Ours, Procrastinate
from bench.platform import Bench
from bench.report import Ratio

EACH = 1000
ROUNDS = 5
CONCURRENCIES = (8, 16, 32, 64)


@dataclass(frozen=True)
class Rate:
    """Pieces of work a second, and milliseconds of the worker's own CPU for each."""

    per_second: float
    cpu_ms: float


async def measure(
    console: Console, bench: Bench, ours: Ours, theirs: Procrastinate, each: int = EACH
) -> Ratio:
    """Each with the concurrency that suits it best, in turns; the round with the median ratio.

    Whatever else the machine does meets both halves of a round alike, but not all rounds.
    """
    best = await _best_concurrencies(console, (ours, theirs), each // 10)
    rounds: list[Ratio] = []
    for number in range(ROUNDS):
        rates = []
        for contender in (ours, theirs):
            rate = await _rate(contender, each, best[contender.name])
            rates.append(rate.per_second)
            console.print(
                f"  round {number + 1}  {contender.name:<28}{rate.per_second:>9.0f} /s"
                f"  {rate.cpu_ms:5.2f} ms of the worker's CPU each"
                f"  ({best[contender.name]} at once)"
            )
        name = "directives worked off, full audit"
        rounds.append(Ratio(name, rates[0], theirs.name, rates[1], "/s", target=1.0))
    assert await theirs.unfinished() == 0
    console.print(f"  every directive left: {audited(bench, ours.tenants)}")
    return sorted(rounds, key=lambda one: one.ratio)[ROUNDS // 2]


async def _rate(contender: Contender, count: int, concurrency: int) -> Rate:
    await contender.fill(count)
    took, used = await contender.worker.drain(concurrency)
    return Rate(count / took, used * 1000 / count)


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
            rate = (await _rate(contender, each, many)).per_second
            rates = tried[contender.name]
            rates[many] = max(rate, rates.get(many, 0.0))
    for name, rates in tried.items():
        told = ", ".join(f"{many} at once {rate:.0f} /s" for many, rate in rates.items())
        console.print(f"  tried    {name:<28} {told}")
        best[name] = max(rates, key=rates.__getitem__)
    return best
