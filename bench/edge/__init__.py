"""The connector: binding mail again beside imapclient and mbsync, memory, load, first minutes, histories."""

from collections.abc import Collection
from dataclasses import dataclass, field

from rich.console import Console

from bench.edge import binding, histories, running, start
from bench.edge.mailbox import mailbox
from bench.report import Bound, Ratio

PARTS = ("binding", "running", "start", "histories")


@dataclass
class Measured:
    """What the parts gave."""

    ratios: list[Ratio] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)


def measure(console: Console, parts: Collection[str] = PARTS) -> Measured:
    """Those parts; the first two on one mailbox."""
    measured = Measured()
    if {"binding", "running"} & set(parts):
        with mailbox() as server:
            if "binding" in parts:
                measured.ratios += binding.measure(console, server)
            if "running" in parts:
                measured.bounds += running.measure(console, server)
    if "start" in parts:
        measured.bounds += start.measure(console)
    if "histories" in parts:
        measured.ratios += histories.measure(console)
    return measured
