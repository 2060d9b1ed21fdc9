"""Many histories of sending with crashes between every two steps; in none is a promise broken."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.sending_history import history
from tests.edge.simulation import memory_folder

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
def test_traps_1_4_5_6_39_whatever_happens_nothing_is_sent_twice_or_told_untruly(part: int) -> None:
    crashes = sent = 0
    for seed in range(part * HISTORIES // PARTS, (part + 1) * HISTORIES // PARTS):
        with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
            try:
                found = history(seed, Path(folder))
            except Exception as error:
                raise AssertionError(f"history {seed}: {error}") from error
        crashes, sent = crashes + found[0], sent + found[1]
    assert crashes > 30
    assert sent > 100
