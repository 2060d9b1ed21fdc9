"""The short form of ``python -m tests.chaos.posting_kills``."""

import pytest

from tests.chaos.posting_kills import run


@pytest.mark.slow
async def test_t18_killed_anywhere_bot_and_hybrid_post_once_and_webhook_at_most_once() -> None:
    """Traps 6, 7, 17, 18 and 19, with processes that are really killed."""
    found = await run(kills=9, every=32, seed=7)
    assert {mode: outcome.differences for mode, outcome in found.items()} == {
        "webhook": [],
        "bot": [],
        "hybrid": [],
    }
    assert all(outcome.kills >= 3 for outcome in found.values())
    for mode in ("bot", "hybrid"):
        assert found[mode].posts == found[mode].digests
    assert found["webhook"].posts + found["webhook"].unknown >= found["webhook"].digests
