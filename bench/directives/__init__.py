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
    """Those parts, on one server; what a run for each costs has a ratio beside ``throughput`` only."""
    with platform() as bench:
        measured = asyncio.run(_beside_procrastinate(console, bench, parts))
        if "cold" in parts:
            started = cold.measure(console, bench)
            measured.bounds.append(started.cold)
            measured.ratios += [
                Ratio(
                    ours.name, ours.value, "a Dagster run for each", started.runs_per_second,
                    ours.unit, target=TIMES_A_RUN,
                )
                for ours in measured.ratios[:1]
            ]  # fmt: skip
        return measured


async def _beside_procrastinate(console: Console, bench: Bench, parts: Collection[str]) -> Measured:
    measured = Measured()
    async with contenders(bench) as (ours, theirs):
        if "throughput" in parts:
            measured.ratios.append(await throughput.measure(console, bench, ours, theirs))
        if "latency" in parts:
            measured.bounds += await latency.measure(console, ours, theirs)
    return measured
