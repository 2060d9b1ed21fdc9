"""Executions that agents report: folded from signals, shown alike, counted once."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import (
    ConflictError,
    IdempotencyMismatchError,
    NotFoundError,
    SecretFoundError,
    TooLargeError,
)
from fleetprompt.executions import reported, service
from fleetprompt.executions.schemas import ExecutionReport, ExecutionView
from fleetprompt.packages.digest.collect import collect
from fleetprompt.schedules.local_time import Window
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant
from fleetprompt.timeline.service import what_happened

NOON = datetime(2026, 3, 8, 12, 0, tzinfo=UTC)
Report = Callable[..., Coroutine[Any, Any, tuple[ExecutionView, bool]]]


@pytest.fixture
def report(database: Database, tenant: Tenant) -> Report:
    async def tell(state: str = "completed", **rest: Any) -> tuple[ExecutionView, bool]:
        given = {"key": "run-1", "kind": "support.drafts", "state": state, **rest}
        async with database.tenant(tenant.schema) as session:
            told = ExecutionReport.model_validate(given)
            return await reported.report(session, told, reporter="user:ada", now=NOON)

    return tell


@pytest.fixture
def signal(database: Database, tenant: Tenant) -> Callable[..., Coroutine[Any, Any, UUID]]:
    async def tell(state: str, minute: int = 0, corr: str | None = None, **data: Any) -> UUID:
        async with database.tenant(tenant.schema) as session:
            made = NewSignal(
                f"agent.execution.{state}", data, "agent",
                NOON + timedelta(minutes=minute), correlation_id=corr,
            )  # fmt: skip
            return await emit(session, made)

    return tell


async def listed(database: Database, tenant: Tenant, **rest: Any) -> list[ExecutionView]:
    async with database.tenant(tenant.schema) as session:
        return await reported.list_reported(session, **rest)


async def test_a_start_and_an_end_are_one_execution(
    report: Report, database: Database, tenant: Tenant
) -> None:
    started, new = await report("started", started_at=NOON)
    assert (started.state, new, started.finished_at) == ("running", True, None)
    ended, new = await report(
        finished_at=NOON + timedelta(minutes=5), cost_usd="1.25", tokens_in=100, tokens_out=20,
        result={"drafts": 3},
    )  # fmt: skip
    assert new
    assert ended.id == started.id
    assert (ended.state, ended.cost_usd, ended.tokens_in) == ("completed", Decimal("1.25"), 100)
    assert (ended.started_at, ended.finished_at) == (NOON, NOON + timedelta(minutes=5))
    assert (ended.result, ended.kind) == ({"drafts": 3}, "support.drafts")
    assert ended.correlation_id == "execution:run-1"
    assert await listed(database, tenant) == [ended]
    async with database.tenant(tenant.schema) as session:
        assert await reported.get(session, ended.id) == ended


async def test_saying_the_same_again_changes_nothing(
    report: Report, database: Database, tenant: Tenant
) -> None:
    first, _ = await report("failed", error_kind="rate_limit", error_message="429")
    for _ in range(2):
        again, new = await report("failed", error_kind="rate_limit", error_message="429")
        assert (again, new) == (first, False)
    with pytest.raises(IdempotencyMismatchError):
        await report("failed", error_kind="rate_limit", error_message="another")
    with pytest.raises(IdempotencyMismatchError):
        await report(
            "failed", error_kind="rate_limit", error_message="429", finished_at=NOON + timedelta(1)
        )
    with pytest.raises(ConflictError, match="failed"):
        await report("completed")
    assert await listed(database, tenant) == [first]


async def test_20_equal_reports_at_once_are_one_execution(
    report: Report, database: Database, tenant: Tenant
) -> None:
    done = await asyncio.gather(*(report(started_at=NOON, cost_usd=1) for _ in range(20)))
    assert sum(new for _, new in done) == 1
    assert len({one.id for one, _ in done}) == 1
    async with database.tenant(tenant.schema) as session:
        count = "SELECT count(*) FROM signals WHERE type LIKE 'agent.execution.%'"
        assert await session.scalar(text(count)) == 2


async def test_signals_alone_say_the_same(signal: Any, database: Database, tenant: Tenant) -> None:
    late = await signal("completed", 9, "mail:1", execution_id="e-7", agent="bot", cost_usd=0.5)
    await signal("started", 1, "mail:1", execution_id="e-7")
    alone = await signal("failed", 3, agent="other", error_kind="auth")
    other, bot = await listed(database, tenant)
    assert (bot.id, bot.kind, bot.state, bot.cost_usd) == (late, "bot", "completed", Decimal("0.5"))
    assert (bot.started_at, bot.finished_at) == (
        NOON + timedelta(minutes=1), NOON + timedelta(minutes=9),
    )  # fmt: skip
    assert (other.id, other.state, other.error_kind) == (alone, "failed", "auth")
    assert other.reported_by == "agent"
    assert await listed(database, tenant, state="failed") == [other]
    assert await listed(database, tenant, kind="bot") == [bot]
    assert await listed(database, tenant, correlation_id="mail:1") == [bot]
    assert await listed(database, tenant, limit=1) == [other]
    assert await listed(database, tenant, before=other.id) == [bot]


async def test_nonsense_in_signals_is_passed_over(
    signal: Any, database: Database, tenant: Tenant
) -> None:
    for nonsense in ("12", -1, 1e300, True, None, [1], {"a": 1}):
        await signal(
            "completed", cost_usd=nonsense, tokens_in=nonsense, tokens_out=nonsense,
            agent=nonsense, error_kind=nonsense, error_message=nonsense, execution_id=nonsense,
        )  # fmt: skip
    for one in await listed(database, tenant):
        assert (one.cost_usd, one.tokens_in, one.tokens_out) == (None, None, None)
        assert one.state == "completed"


async def test_what_agents_tell_of_the_platforms_own_execution_makes_no_second(
    signal: Any, database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        own = await service.create(session, "test.own")
    await signal("completed", execution_id=str(own.id))
    assert await listed(database, tenant) == []


async def test_the_timeline_shows_reported_executions_alike(
    report: Report, database: Database, tenant: Tenant
) -> None:
    told, _ = await report("failed", started_at=NOON - timedelta(minutes=1), error_kind="auth")
    async with database.tenant(tenant.schema) as session:
        found = await what_happened(session, "execution:run-1")
        by_id = await what_happened(session, str(told.id))
    shown = [entry for entry in found.entries if entry.kind == "execution"]
    assert [entry.title for entry in shown] == [
        "support.drafts started",
        "support.drafts failed (auth)",
    ]
    assert {entry.links["self"] for entry in shown} == {f"/api/v1/executions/{told.id}"}
    assert by_id.entries == found.entries


async def test_what_must_not_be_stored_is_refused(report: Report) -> None:
    with pytest.raises(SecretFoundError):
        await report(result={"password": "hunter2"})
    with pytest.raises(TooLargeError):
        await report(result={"text": "x" * 70_000})
    for wrong in (
        {"key": ""}, {"key": "a\x00b"}, {"kind": "No.Capitals"}, {"kind": "a..b"}, {"state": "running"},
        {"cost_usd": -1}, {"tokens_in": 1.5}, {"finished_at": "2026-01-01T00:00:00"},
        {"error_message": "x"}, {"state": "started", "cost_usd": 1}, {"surprise": 1},
        {"started_at": NOON, "finished_at": NOON - timedelta(1)},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            await report(**{"state": "completed", **wrong})


async def test_another_tenants_reports_are_not_found(
    report: Report, database: Database, new_tenant: Any
) -> None:
    told, _ = await report()
    other = await new_tenant()
    assert await listed(database, other) == []
    async with database.tenant(other.schema) as session:
        with pytest.raises(NotFoundError):
            await reported.get(session, told.id)


async def test_the_digest_counts_a_reported_execution_once(
    report: Report, database: Database, tenant: Tenant
) -> None:
    await report("started", started_at=NOON)
    await report("failed", cost_usd="0.5", tokens_in=7, error_kind="auth", error_message="401")
    now = datetime.now(UTC)
    window = Window(now - timedelta(hours=1), now + timedelta(hours=1))
    async with database.tenant(tenant.schema) as session:
        facts = (await collect(session, window)).facts
    assert (facts.usage.cost_usd, facts.usage.tokens_in) == (Decimal("0.5"), 7)
    ended = [one for one in facts.outcomes if one.family == "execution"]
    assert [(one.state, one.name, one.count) for one in ended] == [("failed", "support.drafts", 1)]
    assert [(one.name, one.count) for one in facts.errors] == [("agent.execution.failed", 1)]
