"""A drain of the whole platform that is killed at work; the rest is ``python -m tests.chaos.live_drains``."""

import signal
from pathlib import Path

import pytest

from tests.chaos.live_drains import harm_the_drain, live


@pytest.mark.slow
def test_t12_what_a_killed_drain_held_is_done_by_another_and_nobody_helps(tmp_path: Path) -> None:
    with live(tmp_path) as world:
        harm_the_drain(world, signal.SIGKILL, "07:15")
