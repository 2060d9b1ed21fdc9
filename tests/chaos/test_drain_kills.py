"""The short form of ``python -m tests.chaos.drain_kills``."""

import pytest

from tests.chaos.drain_kills import run


@pytest.mark.slow
async def test_t12_t13_t16_killed_workers_lose_nothing_and_finish_nothing_twice() -> None:
    outcome = await run(kills=30, postgres_kills=1, seed=1)
    assert outcome.differences == []
    assert (outcome.kills, outcome.postgres_kills) == (30, 1)
    assert outcome.stops > 0
    assert outcome.listeners_cut > 0
    assert outcome.counts["rescued"] > 0
    assert outcome.counts["attempts"] > outcome.asked > 100
    assert outcome.effects_asked_again > 0
