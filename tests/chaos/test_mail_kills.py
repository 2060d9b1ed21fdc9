"""The short form of ``python -m tests.chaos.mail_kills``."""

import pytest

from tests.chaos.mail_kills import WAYS, run


@pytest.mark.slow
async def test_trap_18_killed_anywhere_no_digest_comes_as_two_letters() -> None:
    """Traps 7, 18, 19, 36 and 37 for mail, with processes that are really killed."""
    found = await run(kills=6, every=30, seed=5)
    assert {way: outcome.differences for way, outcome in found.items()} == {way: [] for way in WAYS}
    assert all(outcome.kills >= 3 for outcome in found.values())
    gmail, smtp = found["gmail"], found["smtp"]
    assert gmail.by_gmail + gmail.by_smtp + gmail.unknown >= gmail.digests
    assert smtp.by_gmail == 0
    assert smtp.by_smtp + smtp.unknown >= smtp.digests
