"""The directive engine beside Procrastinate, beside a Dagster run for each, and its own bounds."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from rich.console import Console

from bench.directives import cold, latency, throughput
from bench.directives.contenders import contenders
from bench.platform import Bench, platform
from bench.report import Bound, Ratio

PARTS = ("throughput", "latency", "cold")
TIMES_A_RUN = 500.0


@dataclass
class Measured:
    """What the parts gave."""

    ratios: list[Ratio] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)


def measure(console: Console, parts: Collection[str] = PARTS) -> Measured:
    """Those parts, on one server.

    A Dagster run for each directive is compared with the engine's own figure, if ``throughput`` is
    among the parts, and with what a drain does in its run, where Dagster is told of each as well.
    """
    with platform() as bench:
        measured = asyncio.run(_beside_procrastinate(console, bench, parts))
        if "cold" in parts:
            found = cold.measure(console, bench)
            measured.bounds.append(found.cold)
            rates = {one.name: one.value for one in measured.ratios}
            rates["directives worked off in a drain's Dagster run"] = found.in_a_drain
            measured.ratios += [
                Ratio(name, rate, "a run for each", found.with_a_run_for_each, "/s", TIMES_A_RUN)
                for name, rate in rates.items()
            ]
        return measured


async def _beside_procrastinate(console: Console, bench: Bench, parts: Collection[str]) -> Measured:
    measured = Measured()
    async with contenders(bench) as (ours, theirs):
        if "throughput" in parts:
            measured.ratios.append(await throughput.measure(console, bench, ours, theirs))
        if "latency" in parts:
            measured.bounds += await latency.measure(console, ours, theirs)
    return measured
