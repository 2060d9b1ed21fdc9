"""A short form of ``python -m tests.chaos.connector``: platform, mail server and connector are killed."""

import pytest

from fleetprompt.settings import Settings
from tests.chaos.connector import Plan, run


@pytest.mark.slow
def test_whatever_is_killed_each_mail_is_told_once_and_each_approved_mail_sent_once(
    settings: Settings,
) -> None:
    plan = Plan(
        mails=150,
        sends=4,
        kills=6,
        renumberings=1,
        pause=0.6,
        patience=240.0,
        leases_end_at_once=True,
        hurry=10.0,
    )
    outcome = run(plan, settings)
    assert outcome.differences == []
    assert outcome.signals == 150
    assert outcome.states == {"succeeded": 4}
    assert set(outcome.kills) == {"connector", "dovecot", "api"}
