"""The ledger: who may send, what a crash leaves behind, and what may be said afterwards."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import StaleLeaseError
from fleetprompt.outbound import ledger
from fleetprompt.outbound.ledger import LEASE_SECONDS, Claimed, Intent, Lease
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

INTENT = Intent(
    "mattermost_post:t:1:2026-03-08", "mattermost", "chat.example.org#default", "ab" * 32
)


async def claim(
    database: Database, tenant: Tenant, intent: Intent = INTENT, **more: float
) -> Claimed:
    async with database.tenant(tenant.schema) as session:
        return await ledger.plan_and_claim(session, intent, **more)


async def begin(
    database: Database, tenant: Tenant, lease: Lease, lease_seconds: float = LEASE_SECONDS
) -> None:
    async with database.tenant(tenant.schema) as session:
        await ledger.begin_sending(session, lease, lease_seconds=lease_seconds)


async def settle(
    database: Database, tenant: Tenant, lease: Lease, state: ledger.Settled, **more: object
) -> None:
    async with database.tenant(tenant.schema) as session:
        await ledger.settle(session, lease, state, **more)  # type: ignore[arg-type]


def held(claimed: Claimed) -> Lease:
    assert claimed.lease is not None
    return claimed.lease


async def test_of_20_at_once_one_may_send(database: Database, tenant: Tenant) -> None:
    """Trap 17."""
    answers = await asyncio.gather(*(claim(database, tenant) for _ in range(20)))
    assert sum(answer.lease is not None for answer in answers) == 1
    assert all(50 < a.wait <= 60 for a in answers if a.lease is None)


async def test_of_20_at_once_one_takes_over_what_was_given_up(
    database: Database, tenant: Tenant
) -> None:
    """Trap 17, where the row exists already."""
    await claim(database, tenant, lease_seconds=0)
    answers = await asyncio.gather(*(claim(database, tenant) for _ in range(20)))
    assert [a.lease.attempt for a in answers if a.lease is not None] == [2]


async def test_a_claim_that_never_began_to_send_is_free_after_its_lease(
    database: Database, tenant: Tenant
) -> None:
    """Trap 19."""
    first = held(await claim(database, tenant, lease_seconds=0))
    second = held(await claim(database, tenant))
    assert second.attempt == 2
    with pytest.raises(StaleLeaseError):
        await begin(database, tenant, first)
    await begin(database, tenant, second)


async def test_a_sender_that_went_away_leaves_unknown_and_nobody_sends_again(
    database: Database, tenant: Tenant
) -> None:
    """Traps 18 and T18."""
    lease = held(await claim(database, tenant))
    await begin(database, tenant, lease, lease_seconds=0)
    for _ in range(2):
        again = await claim(database, tenant)
        assert (again.state, again.lease, again.error_kind) == ("unknown", None, "unknown")


async def test_what_hangs_in_sending_is_found_without_anybody_claiming_it(
    database: Database, tenant: Tenant
) -> None:
    """Trap T18."""
    await begin(database, tenant, held(await claim(database, tenant)), lease_seconds=0)
    other = held(await claim(database, tenant, replace(INTENT, dedupe_key="another")))
    await begin(database, tenant, other)
    async with database.tenant(tenant.schema) as session:
        assert await ledger.give_up_lost(session) == 1
        entry = await ledger.find(session, INTENT.dedupe_key)
    assert entry is not None
    assert entry.state == "unknown"


async def test_a_slow_sender_taken_for_lost_may_still_say_what_it_learned(
    database: Database, tenant: Tenant
) -> None:
    lease = held(await claim(database, tenant))
    await begin(database, tenant, lease, lease_seconds=0)
    assert (await claim(database, tenant)).state == "unknown"
    await settle(database, tenant, lease, "posted")
    assert (await claim(database, tenant)).state == "posted"


async def test_retryable_waits_for_its_time_and_is_then_free(
    database: Database, tenant: Tenant
) -> None:
    lease = held(await claim(database, tenant))
    await begin(database, tenant, lease)
    await settle(
        database, tenant, lease, "retryable",
        error_kind="rate_limit", error_message="limited", retry_in=30,
    )  # fmt: skip
    early = await claim(database, tenant)
    assert (early.lease, early.error_kind) == (None, "rate_limit")
    assert 28 < early.wait <= 30
    async with database.tenant(tenant.schema) as session:
        await session.execute(text("UPDATE outbound_messages SET retry_after = now()"))
    later = await claim(database, tenant)
    assert held(later).attempt == 2
    assert later.error_kind is None


@pytest.mark.parametrize("state", ["posted", "rejected", "unknown"])
async def test_what_is_settled_for_good_is_never_free_again(
    database: Database, tenant: Tenant, state: ledger.Settled
) -> None:
    lease = held(await claim(database, tenant))
    await begin(database, tenant, lease)
    kind = {} if state == "posted" else {"error_kind": "network", "error_message": "no"}
    await settle(database, tenant, lease, state, **kind)
    again = await claim(
        database, tenant, replace(INTENT, content_sha256="cd" * 32), lease_seconds=0
    )
    assert (again.state, again.lease, again.content_sha256) == (state, None, INTENT.content_sha256)


async def test_an_error_message_is_masked_and_may_quote_anything(
    database: Database, tenant: Tenant
) -> None:
    lease = held(await claim(database, tenant))
    hook = "https://chat.example.org/hooks/canarycanarycanarycanary12"
    message = f"{hook} no\x00\ud83d"
    await settle(database, tenant, lease, "rejected", error_kind="auth", error_message=message)
    async with database.tenant(tenant.schema) as session:
        entry = await ledger.find(session, INTENT.dedupe_key)
    assert entry is not None
    assert "canary" not in (entry.error_message or "canary")
    assert (entry.error_message or "").endswith(" no\ufffd\ufffd")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["claim", "begin", "post", "lost_before", "lost_while", "limited", "expire"]
        ),
        st.integers(0, 1),
    ),
    max_size=25,
)


@given(steps=STEPS)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_two_workers_in_any_order_never_send_after_bytes_may_have_arrived(
    steps: list[tuple[str, int]], tenant: Tenant, settings: Settings
) -> None:
    """Two workers claim, send, die and come back in any order; the receiver counts what arrives.

    A second message may arrive only if the first certainly did not.
    """
    asyncio.run(_play(steps, tenant, settings))


async def _play(steps: list[tuple[str, int]], tenant: Tenant, settings: Settings) -> None:
    arrived = 0
    leases: list[Lease | None] = [None, None]
    sending = [False, False]
    async with Database.application(settings) as database:
        async with database.tenant(tenant.schema) as session:
            await session.execute(text("DELETE FROM outbound_messages"))
        for step, who in steps:
            lease = leases[who]
            try:
                if step == "claim":
                    leases[who] = (await claim(database, tenant)).lease
                    sending[who] = False
                elif step == "expire":
                    async with database.tenant(tenant.schema) as session:
                        await session.execute(
                            text(
                                "UPDATE outbound_messages SET lease_expires_at = now()"
                                " WHERE state IN ('claimed', 'sending')"
                            )
                        )
                elif lease is None:
                    continue
                elif step == "begin":
                    await begin(database, tenant, lease)
                    sending[who] = True
                elif not sending[who]:
                    continue
                elif step == "post":
                    arrived += 1
                    sending[who] = False
                    await settle(database, tenant, lease, "posted")
                elif step == "lost_while":
                    arrived += 1
                    sending[who], leases[who] = False, None
                elif step == "lost_before":
                    sending[who], leases[who] = False, None
                elif step == "limited":
                    sending[who] = False
                    await settle(database, tenant, lease, "retryable", error_kind="rate_limit",
                                 error_message="limited", retry_in=0)  # fmt: skip
            except StaleLeaseError:
                leases[who], sending[who] = None, False
            assert arrived <= 1
