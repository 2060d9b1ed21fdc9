"""Many histories with faults and crashes between every two steps; in none is a promise broken."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.simulation import history, memory_folder

HISTORIES = 1000
PARTS = 8


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """No logs, of which there would be thousands."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_trap_33_whatever_happens_nothing_is_lost_told_twice_or_leaked(part: int) -> None:
    crashes = told = 0
    for seed in range(part * HISTORIES // PARTS, (part + 1) * HISTORIES // PARTS):
        with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
            try:
                world = history(seed, Path(folder))
            except Exception as error:
                raise AssertionError(f"history {seed}: {error}") from error
        crashes += world.crashes
        told += len(world.signals)
    assert crashes > 500
    assert told > 3000
