"""The short form of ``python -m tests.chaos.webchat``."""

import pytest

from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.chaos.webchat import storm


@pytest.mark.slow
async def test_trap_1_6_33_every_message_of_a_storm_is_stored_signalled_and_seen_once_in_order(
    settings: Settings, tenant: Tenant
) -> None:
    outcome = await storm(settings, tenant, visitors=10, messages=8, kills=2, seed=1)
    assert outcome.differences == []
    assert outcome.acknowledged == 80
    assert (outcome.kills, outcome.repeated > 0, outcome.closed_tabs > 0) == (2, True, True)
    assert outcome.streams > outcome.visitors
