"""The directive engine beside Procrastinate, a Dagster run for each, and its own bounds."""

import asyncio
from collections.abc import Collection

from rich.console import Console

from bench.directives import latency, throughput
from bench.directives.contenders import contenders
from bench.platform import Bench, platform
from bench.report import Bound, Ratio

PARTS = ("latency", "throughput")


def measure(console: Console, parts: Collection[str] = PARTS) -> tuple[list[Ratio], list[Bound]]:
    """Those parts, on one server."""
    with platform() as bench:
        return asyncio.run(_beside_procrastinate(console, bench, parts))


async def _beside_procrastinate(
    console: Console, bench: Bench, parts: Collection[str]
) -> tuple[list[Ratio], list[Bound]]:
    ratios: list[Ratio] = []
    bounds: list[Bound] = []
    async with contenders(bench) as (ours, theirs):
        if "throughput" in parts:
            ratios.append(await throughput.measure(console, bench, ours, theirs))
        if "latency" in parts:
            bounds += await latency.measure(console, ours, theirs)
    return ratios, bounds
