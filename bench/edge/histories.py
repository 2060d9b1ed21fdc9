"""Ten thousand seeded histories with faults and crashes between every two steps, in virtual time.

Half of them receive mail (nothing lost, nothing told twice, no secret and no text of a mail left behind),
half send it (nothing sent twice, nothing told that is not true). A history that breaks one of these ends the
run with its number, under which the tests can play it again.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from bench.report import Ratio
from tests.edge.sending_history import history as sending
from tests.edge.simulation import history as receiving
from tests.edge.simulation import memory_folder

HISTORIES = 10_000
_AT_ONCE = 100


class Found(NamedTuple):
    """What a number of histories held."""

    histories: int = 0
    crashes: int = 0
    mails: int = 0

    def __add__(self, other: object) -> "Found":
        assert isinstance(other, Found)
        return Found(*(one + more for one, more in zip(self, other, strict=True)))


def measure(console: Console, histories: int = HISTORIES) -> list[Ratio]:
    """Live through all of them; how many there were beside how many there must be."""
    half = histories // 2
    tasks = [
        (kind, first) for kind in ("receiving", "sending") for first in range(0, half, _AT_ONCE)
    ]
    began = time.perf_counter()
    found = {"receiving": Found(), "sending": Found()}
    with ProcessPoolExecutor() as pool:
        for (kind, _), part in zip(tasks, pool.map(_some, *zip(*tasks, strict=True)), strict=True):
            found[kind] += part
    seconds = time.perf_counter() - began
    for kind, one in found.items():
        console.print(
            f"{kind}: {one.histories:,} histories, {one.crashes:,} crashes, {one.mails:,} mails, "
            "no promise broken"
        )
    total = sum(one.histories for one in found.values())
    console.print(f"{total:,} histories in {seconds:.0f} s: {total / seconds:,.0f}/s")
    return [Ratio("histories without a broken promise", total, "wanted", histories, "", 1.0)]


def _some(kind: str, first: int) -> Found:
    logging.disable(logging.CRITICAL)
    live: Callable[[int, Path], tuple[int, int]] = {"receiving": _receive, "sending": sending}[kind]
    found = Found()
    for seed in range(first, first + _AT_ONCE):
        with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
            try:
                crashes, mails = live(seed, Path(folder))
            except Exception as error:
                raise AssertionError(f"{kind}: history {seed}: {error}") from error
        found += Found(1, crashes, mails)
    return found


def _receive(seed: int, folder: Path) -> tuple[int, int]:
    world = receiving(seed, folder)
    return world.crashes, len(world.signals)
