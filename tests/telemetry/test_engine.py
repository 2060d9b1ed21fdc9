"""What the engine does shows in the metrics: attempts, rescues, refusals, approvals, messages."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import Settlement, settle
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.service import cancel, request_directive
from fleetprompt.directives.taking import take
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, DirectiveType
from fleetprompt.errors import StaleLeaseError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.telemetry.catalogue import (
    APPROVALS_WAITING,
    ATTEMPT_DURATION,
    ATTEMPTS_ENDED,
    LEASES_RESCUED,
    OLDEST_APPROVAL,
    STALE_REPORTS,
    START_DELAY,
    Metric,
)
from fleetprompt.telemetry.counting import RECORDER
from fleetprompt.telemetry.gauges import OTHER_TYPE, Gauges, read_gauges
from fleetprompt.telemetry.reporting import Reporter, sums
from fleetprompt.tenants.service import Tenant

PLATFORM = Actor("platform", "platform")


@pytest.fixture(autouse=True)
async def _empty_queue(database: Database) -> None:
    async with database.platform() as session:
        for table in ("directive_queue", "approvals_waiting"):
            await session.execute(text(f"DELETE FROM fleetprompt.{table}"))


@pytest.fixture
def kind() -> AnyDirectiveType:
    """A directive type with a name of its own, whose handler ends as its params say."""
    return DirectiveType(f"test.t{new_id().hex[-8:]}", "Ends as it is told.", Params, end_as_told)


class Params(DirectiveParams):
    """How the handler shall end."""

    end: str = "well"


async def end_as_told(context: HandlerContext, params: Params) -> dict[str, Any]:
    if params.end == "refused":
        raise DirectiveFailed("auth", "no")
    if params.end == "later":
        raise DirectiveFailed("rate_limit", "not now", retry_after=3600)
    if params.end == "hidden":
        raise OutcomeUnknown("who knows", error_kind="network")
    return {}


async def ask(database: Database, tenant: Tenant, kind: AnyDirectiveType, **params: Any) -> UUID:
    async with database.tenant(tenant.schema) as session:
        directive, _ = await request_directive(
            session,
            tenant,
            kind.name,
            params,
            idempotency_key=str(new_id()),
            actor=PLATFORM,
            types={kind.name: kind},
        )
        return directive.id


async def counted(database: Database, metric: Metric, *labels: str) -> list[float]:
    """The sum of all processes; what this one has not written yet is written first."""
    await Reporter(database, "worker").flush()
    async with database.platform() as session:
        nothing = [0.0] * (len(metric.buckets) + 2)
        return (await sums(session)).get((metric.name, labels), nothing)


async def gauges(database: Database) -> Gauges:
    async with database.platform() as session:
        return await read_gauges(session)


async def test_attempts_are_counted_by_type_state_and_class_of_failure(
    database: Database, settings: Settings, tenant: Tenant, kind: AnyDirectiveType
) -> None:
    for end in ("well", "well", "refused", "later", "hidden"):
        await ask(database, tenant, kind, end=end)
    types = {kind.name: kind}
    async with DirectiveRunner(database, settings, owner="w", types=types) as runner:
        await runner.drain()
    own = (kind.name, "platform")
    for state, error, number in (
        ("succeeded", "none", 2),
        ("failed", "auth", 1),
        ("pending", "rate_limit", 1),
        ("unknown", "network", 1),
    ):
        assert (await counted(database, ATTEMPTS_ENDED, *own, state, error))[0] == number, state
    assert sum((await counted(database, START_DELAY, *own))[1:]) == 5
    assert sum((await counted(database, ATTEMPT_DURATION, kind.name))[1:]) == 5


async def test_a_worker_leaves_its_counts_behind_when_it_ends(
    database: Database, settings: Settings, tenant: Tenant, kind: AnyDirectiveType
) -> None:
    """Nobody scrapes a drain; what it counted is in the table when its block is over."""
    await ask(database, tenant, kind)
    types = {kind.name: kind}
    async with DirectiveRunner(database, settings, owner="w", types=types) as runner:
        await runner.drain()
    assert not any(kind.name in labels for _, labels in RECORDER.peek())
    async with database.platform() as session:
        found = await sums(session)
        ended = await session.scalar(
            text(
                "SELECT count(*) FROM fleetprompt.worker_processes WHERE ended_at > now() - interval '1 min'"
            )
        )
    assert found[ATTEMPTS_ENDED.name, (kind.name, "platform", "succeeded", "none")] == [1.0]
    assert ended


async def test_a_lost_attempt_is_a_rescue_and_its_late_report_a_refusal(
    database: Database, settings: Settings, tenant: Tenant, kind: AnyDirectiveType
) -> None:
    """research/platform.md, T12."""
    types = {kind.name: kind}
    directive_id = await ask(database, tenant, kind)
    rescued = (await counted(database, LEASES_RESCUED, "again"))[0]
    refused = (await counted(database, STALE_REPORTS))[0]
    async with database.tenant(tenant.schema) as session:
        taken = await take(
            session,
            tenant,
            limit=1,
            owner="slow",
            lease_seconds=0.05,
            types=types,
            ids=[directive_id],
        )
    await asyncio.sleep(0.1)
    async with DirectiveRunner(database, settings, owner="w", types=types) as runner:
        await runner.drain()
    with pytest.raises(StaleLeaseError):
        async with database.tenant(tenant.schema) as session:
            await settle(session, taken.claimed[0], Settlement("succeeded"), owner="slow")
    assert (await counted(database, LEASES_RESCUED, "again"))[0] == rescued + 1
    assert (await counted(database, STALE_REPORTS))[0] == refused + 1


async def test_what_runs_is_in_flight_and_what_was_reported_is_not(
    database: Database, settings: Settings, tenant: Tenant, kind: AnyDirectiveType
) -> None:
    await ask(database, tenant, kind)
    types = {kind.name: kind}
    async with database.tenant(tenant.schema) as session:
        taken = await take(session, tenant, limit=1, owner="w", lease_seconds=60, types=types)
    in_flight = {m.name: v for m, v in (await gauges(database)).values.items()}
    assert in_flight["fleetprompt_directives_in_flight"][OTHER_TYPE, "platform"] == 1
    async with database.tenant(tenant.schema) as session:
        await settle(session, taken.claimed[0], Settlement("succeeded"), owner="w")
    after = {m.name: v for m, v in (await gauges(database)).values.items()}
    assert (OTHER_TYPE, "platform") not in after["fleetprompt_directives_in_flight"]


async def test_approvals_that_wait_are_counted_until_somebody_decides(
    database: Database, tenant: Tenant
) -> None:
    kind = DirectiveType(
        "test.guarded", "Needs a word.", Params, end_as_told, approval=ApprovalPolicy()
    )
    directive_id = await ask(database, tenant, kind)
    await ask(database, tenant, kind)
    found = (await gauges(database)).values
    assert found[APPROVALS_WAITING][(OTHER_TYPE,)] == 2
    assert 0 <= found[OLDEST_APPROVAL][(OTHER_TYPE,)] < 60
    async with database.tenant(tenant.schema) as session:
        await cancel(session, tenant, directive_id, PLATFORM, types={kind.name: kind})
    assert (await gauges(database)).values[APPROVALS_WAITING][(OTHER_TYPE,)] == 1


async def test_a_tenant_sees_no_other_tenants_waiting_approvals(
    database: Database, tenant: Tenant
) -> None:
    async with database.platform() as session:
        await session.execute(
            text(
                "INSERT INTO fleetprompt.approvals_waiting (tenant_schema, approval_id, type, created_at)"
                " VALUES ('org_other', :id, 'x', now())"
            ),
            {"id": new_id()},
        )
    async with database.tenant(tenant.schema) as session:
        seen = await session.scalar(text("SELECT count(*) FROM fleetprompt.approvals_waiting"))
    assert seen == 0
