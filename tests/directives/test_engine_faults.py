"""What a handler or the database may do to a drain, which must not hold up anything else."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import service
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import LEASE_SECONDS, DirectiveRunner
from fleetprompt.directives.taking import take
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    RetryPolicy,
)
from fleetprompt.executions import service as executions
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

ADMIN = Actor("user:ada", "admin")
QUICK = RetryPolicy(max_attempts=2, first_bound=0.01, longest_bound=0.02)
UNFIT: Mapping[str, dict[str, Any]] = {
    "no JSON": {"at": system_clock()},
    "NaN": {"share": float("nan")},
    "a NUL character": {"said": "\x00"},
    "half a surrogate pair": {"said": "\ud83d"},
}


class Kind(DirectiveParams):
    """Which result to give."""

    result: str = "good"


async def _answer(_context: HandlerContext, params: Kind) -> dict[str, Any]:
    return UNFIT.get(params.result, {"said": "the text \\u0000 is no NUL"})


TYPES: Mapping[str, AnyDirectiveType] = {
    "test.work": DirectiveType("test.work", "Works.", Kind, _answer, retry=QUICK)
}


async def ask(database: Database, tenant: Tenant, key: str, **more: Any) -> UUID:
    async with database.tenant(tenant.schema) as session:
        directive, _ = await service.request_directive(
            session, tenant, "test.work", more.pop("params", {}), idempotency_key=key, actor=ADMIN,
            types=TYPES, **more,
        )  # fmt: skip
        return directive.id


async def states(database: Database, tenant: Tenant) -> dict[str, tuple[str, str | None]]:
    """The state of each directive and of its execution, by its key."""
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(
            text(
                "SELECT d.idempotency_key AS key, d.state, e.state AS execution FROM directives d"
                " LEFT JOIN executions e ON e.directive_id = d.id"
            )
        )
        return {row.key: (row.state, row.execution) for row in rows}


@pytest.mark.parametrize("unfit", UNFIT)
async def test_a_result_that_cannot_be_stored_ends_its_own_directive_and_no_other(
    database: Database, settings: Settings, tenant: Tenant, unfit: str
) -> None:
    for number in range(6):
        params = {"result": unfit if number == 3 else "good"}
        await ask(database, tenant, f"{number}", params=params)
    async with DirectiveRunner(
        database, settings, owner="worker-1", types=TYPES, poll_seconds=0.05, lease_seconds=1
    ) as runner:
        async with asyncio.timeout(20):
            await runner.drain(linger_seconds=3)
    found = await states(database, tenant)
    assert found.pop("3") == ("unknown", "failed")
    async with database.tenant(tenant.schema) as session:
        assert await session.scalar(text("SELECT max(attempt) FROM directives")) == 1
    assert set(found.values()) == {("succeeded", "completed")}


@pytest.mark.parametrize("heard", ["\x00", "\ud83d"], ids=["NUL", "half a surrogate pair"])
async def test_an_attempt_that_quotes_what_cannot_be_stored_is_logged_and_ends_once(
    database: Database, settings: Settings, tenant: Tenant, heard: str
) -> None:
    """What another system sent may be anything, and handlers quote it where they tell of a failure."""

    async def quote(context: HandlerContext, params: Kind) -> dict[str, Any]:
        await context.execution.log("info", f"heard {heard}", said=heard, parts=[heard])
        if params.result == "kept":
            context.execution.result = {"heard": heard}
            return {"said": "done"}
        raise DirectiveFailed("auth", f"refused: {heard}")

    quoting = {"test.work": DirectiveType("test.work", "Works.", Kind, quote, retry=QUICK)}
    failed = await ask(database, tenant, "quoted")
    await ask(database, tenant, "kept", params={"result": "kept"})
    async with DirectiveRunner(
        database, settings, owner="worker-1", types=quoting, poll_seconds=0.05
    ) as runner:
        outcomes = await runner.drain()
    assert sorted((one.state, one.attempt) for one in outcomes) == [("failed", 1), ("succeeded", 1)]
    assert await states(database, tenant) == {
        "quoted": ("failed", "failed"), "kept": ("succeeded", "completed"),
    }  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        directive = await service.get(session, failed)
        (execution,) = await executions.list_executions(session, directive_id=failed)
        lines = await executions.logs(session, execution.id)
    assert directive.error_message == "refused: \ufffd"
    assert lines[0].message == "heard \ufffd"
    assert lines[0].fields == {"said": "\ufffd", "parts": ["\ufffd"]}


async def test_calling_off_ends_the_execution_of_an_earlier_attempt(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    at_work = asyncio.Event()

    async def work(_context: HandlerContext, _params: Kind) -> dict[str, Any]:
        at_work.set()
        await asyncio.sleep(30)
        return {}

    slow = {"test.work": DirectiveType("test.work", "Works.", Kind, work, retry=QUICK)}
    directive_id = await ask(database, tenant, "called off")
    async with DirectiveRunner(
        database, settings, owner="worker-1", types=slow, poll_seconds=0.05, lease_seconds=1
    ) as runner:
        draining = asyncio.create_task(runner.drain())
        await asyncio.wait_for(at_work.wait(), 10)
        async with database.tenant(tenant.schema) as session:
            await service.cancel(session, tenant, directive_id, ADMIN, types=TYPES)
        await asyncio.wait_for(draining, 10)
    assert await states(database, tenant) == {"called off": ("cancelled", "cancelled")}


async def test_what_was_lost_and_is_too_late_ends_with_its_execution(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    later = system_clock() + timedelta(hours=1)
    await ask(database, tenant, "too late", expires_at=later)
    async with database.tenant(tenant.schema) as session:
        await take(session, tenant, limit=1, owner="gone", lease_seconds=0, types=TYPES)
        await session.execute(text("UPDATE directives SET expires_at = now()"))
    async with DirectiveRunner(database, settings, owner="worker-1", types=TYPES) as runner:
        (outcome,) = await runner.drain()
    # Nobody knows what the lost attempt did, so that it is not told as never started.
    assert outcome.state == "unknown"
    assert (outcome.error_message or "").endswith("; it is too late for another")
    assert await states(database, tenant) == {"too late": ("unknown", "failed")}


async def test_what_is_too_late_for_another_attempt_tells_how_the_last_one_ended(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async def fail(_context: HandlerContext, _params: Kind) -> dict[str, Any]:
        raise DirectiveFailed("network", "refused", retry_after=60)

    failing = {"test.work": DirectiveType("test.work", "Works.", Kind, fail, retry=QUICK)}
    later = system_clock() + timedelta(hours=1)
    await ask(database, tenant, "too late", expires_at=later)
    async with DirectiveRunner(database, settings, owner="worker-1", types=failing) as runner:
        assert [one.state for one in await runner.drain()] == ["pending"]
        async with database.tenant(tenant.schema) as session:
            await session.execute(
                text("UPDATE directives SET expires_at = now(), available_at = now()")
            )
        (outcome,) = await runner.drain()
    assert (outcome.state, outcome.error_message) == (
        "cancelled", "too late for another attempt; of the last one: refused",
    )  # fmt: skip


async def test_a_worker_that_stops_inside_a_transaction_holds_its_rows_for_no_longer_than_a_lease(
    database: Database, tenant: Tenant
) -> None:
    """T12 with SIGSTOP: rows that it has locked are passed over by all others until it is cut off."""
    for opened in (database.tenant(tenant.schema), database.platform()):
        async with opened as session:
            milliseconds = await session.scalar(
                text(
                    "SELECT setting::int FROM pg_settings"
                    " WHERE name = 'idle_in_transaction_session_timeout'"
                )
            )
        assert 1000 <= milliseconds <= LEASE_SECONDS * 1000
