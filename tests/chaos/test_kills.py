"""The short form of ``python -m tests.chaos.kills``."""

import pytest

from tests.chaos.kills import run


@pytest.mark.slow
async def test_t1_what_was_acknowledged_survives_kills_and_is_there_once() -> None:
    outcome = await run(api_kills=4, postgres_kills=3, seed=1)
    assert outcome.differences == []
    assert (outcome.api_kills, outcome.postgres_kills) == (4, 3)
    assert outcome.rows == outcome.acknowledged > 100
    assert outcome.repeated > 0
