"""Working directives off: leases, fencing, retries, rescue, fairness, wake-ups."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import due, leases, service
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.end_writer import EndWriter
from fleetprompt.directives.ending import AttemptEnd
from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import Settlement
from fleetprompt.directives.models import Directive
from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.taking import Taken, take
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    Failure,
    RetryPolicy,
)
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import NotFoundError, StaleLeaseError
from fleetprompt.executions import service as executions
from fleetprompt.executions.running import RunningExecution
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, delete_tenant

ADMIN = Actor("user:ada", "admin")
QUICK = RetryPolicy(max_attempts=3, first_bound=0.01, longest_bound=0.02)
Handler = Callable[[HandlerContext, DirectiveParams], Awaitable[dict[str, Any]]]


def types(handler: Handler, **more: Any) -> Mapping[str, AnyDirectiveType]:
    kind = DirectiveType(
        "test.work", "Works.", DirectiveParams, handler, **{"retry": QUICK, **more}
    )
    return {"test.work": kind}


async def ask(
    database: Database,
    tenant: Tenant,
    known: Mapping[str, AnyDirectiveType],
    key: str = "",
    **more: Any,
) -> UUID:
    async with database.tenant(tenant.schema) as session:
        directive, _ = await service.request_directive(
            session, tenant, "test.work", {}, idempotency_key=key or new_id().hex, actor=ADMIN,
            correlation_id="corr-1", types=known, **more,
        )  # fmt: skip
        return directive.id


async def read(database: Database, tenant: Tenant, directive_id: UUID) -> Directive:
    async with database.tenant(tenant.schema) as session:
        return await service.get(session, directive_id)


async def states(database: Database, tenant: Tenant, directive_id: UUID) -> list[str]:
    """The states by transitions, after checking that the lifecycle signals tell the same (T16)."""
    async with database.tenant(tenant.schema) as session:
        steps = [s.to_state for s in await service.transitions(session, directive_id)]
        told = await session.scalars(
            text("SELECT type FROM signals WHERE subject_id = :id ORDER BY id"),
            {"id": str(directive_id)},
        )
        assert [t.removeprefix("directive.") for t in told] == steps
    return steps


def runner(
    database: Database, settings: Settings, known: Mapping[str, AnyDirectiveType], **more: Any
) -> DirectiveRunner:
    options = {"owner": "worker-1", "poll_seconds": 0.05, **more}
    return DirectiveRunner(database, settings, types=known, **options)


async def test_a_directive_runs_once_and_its_execution_tells_how(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        await context.execution.log("info", "at work", password="hunter2-hunter2")
        return {"done": context.tenant.slug}

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known, dagster_run_id="run-7") as one:
        (outcome,) = await one.drain()
        assert await one.drain() == []
    assert (outcome.state, outcome.attempt, outcome.tenant) == ("succeeded", 1, tenant.slug)
    directive = await read(database, tenant, directive_id)
    assert directive.result == {"done": tenant.slug}
    assert (directive.dagster_run_id, directive.lease_token) == ("run-7", None)
    assert await states(database, tenant, directive_id) == [
        "requested", "pending", "running", "succeeded",
    ]  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        (execution,) = await executions.list_executions(session, directive_id=directive_id)
        lines = await executions.logs(session, execution.id)
    assert (execution.state, execution.kind, execution.correlation_id) == (
        "completed", "test.work", "corr-1",
    )  # fmt: skip
    assert execution.result == {"done": tenant.slug}
    assert [line.message for line in lines] == ["at work", "attempt 1 of 3 succeeded"]
    assert lines[0].fields == {"password": "[redacted]"}


@pytest.mark.parametrize(
    ("failure", "attempts", "final"),
    [
        (DirectiveFailed("auth", "the webhook is gone"), 1, "failed"),
        (DirectiveFailed("validation", "no such channel"), 1, "failed"),
        (DirectiveFailed("network", "refused"), 3, "failed"),
        (DirectiveFailed("rate_limit", "slow down", retry_after=0.01), 3, "failed"),
        (DirectiveFailed("unknown", "strange"), 3, "failed"),
        (OutcomeUnknown("no answer after the text was sent", error_kind="network"), 1, "unknown"),
        (NotFoundError("no such installation"), 1, "failed"),
        (ZeroDivisionError(), 3, "failed"),
    ],
    ids=lambda value: getattr(value, "error_kind", None) or str(value)[:20],
)
async def test_retries_go_by_the_class_of_failure(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    failure: Exception,
    attempts: int,
    final: str,
) -> None:
    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        raise failure

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known) as one:
        outcomes = await one.drain(linger_seconds=0.3)
    assert [o.attempt for o in outcomes] == list(range(1, attempts + 1))
    directive = await read(database, tenant, directive_id)
    assert (directive.state, directive.attempt) == (final, attempts)
    steps = await states(database, tenant, directive_id)
    assert steps == ["requested", *["pending", "running"] * attempts, final]
    async with database.tenant(tenant.schema) as session:
        (execution,) = await executions.list_executions(session, directive_id=directive_id)
    assert (execution.state, execution.error_kind) == ("failed", directive.error_kind)


def test_a_delay_grows_is_drawn_from_zero_and_never_undercuts_retry_after() -> None:
    policy = RetryPolicy(first_bound=5, longest_bound=60)
    highest = [policy.delay(n, "network", None, lambda low, high: high) for n in range(1, 7)]
    assert highest == [5, 10, 20, 40, 60, 60]
    assert policy.delay(3, "network", None, lambda low, high: low) == 0
    assert policy.delay(1, "rate_limit", 30.0, lambda low, high: low) == 30
    assert policy.delay(1, "auth", None) is None
    assert policy.delay(10_000, "network", None, lambda low, high: high) == 60


async def test_retry_after_moves_the_next_attempt(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        raise DirectiveFailed("rate_limit", "slow down", retry_after=120)

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known) as one:
        assert [o.state for o in await one.drain()] == ["pending"]
    directive = await read(database, tenant, directive_id)
    assert 118 < (directive.available_at - system_clock()).total_seconds() < 121
    waiting = await due.peek(database, system_clock())
    assert waiting == []


async def claim_as(
    database: Database, tenant: Tenant, directive_id: UUID, owner: str, lease: float = 45
) -> Taken:
    async with database.tenant(tenant.schema) as session:
        return await take(
            session, tenant, limit=1, owner=owner, lease_seconds=lease, ids=[directive_id],
            types=types(nothing),
        )  # fmt: skip


async def nothing(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
    return {}


async def test_an_attempt_that_lost_its_lease_cannot_finish_the_next_one(
    database: Database, tenant: Tenant
) -> None:
    """Trap T12, for every way in which an attempt may end, and for heartbeats."""
    directive_id = await ask(database, tenant, types(nothing))
    (zombie,) = (await claim_as(database, tenant, directive_id, "zombie", lease=0)).claimed
    (current,) = (await claim_as(database, tenant, directive_id, "current")).claimed
    assert (zombie.attempt, current.attempt) == (1, 2)
    for state in ("succeeded", "failed", "unknown", "pending"):
        async with database.tenant(tenant.schema) as session:
            with pytest.raises(StaleLeaseError):
                await leases.settle(session, zombie, Settlement(state), owner="zombie")
    async with database.tenant(tenant.schema) as session:
        lost = [(zombie.id, zombie.lease_token)]
        assert await leases.heartbeat(session, lost, lease_seconds=45) == set()
        held = [(current.id, current.lease_token)]
        assert await leases.heartbeat(session, held, lease_seconds=45) == {current.lease_token}
        await leases.settle(session, current, Settlement("succeeded", {"by": 2}), owner="current")
    directive = await read(database, tenant, directive_id)
    assert (directive.state, directive.result) == ("succeeded", {"by": 2})
    assert await states(database, tenant, directive_id) == [
        "requested", "pending", "running", "pending", "running", "succeeded",
    ]  # fmt: skip


async def test_of_two_attempts_in_one_commit_only_the_one_with_the_lease_ends_the_directive(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    """Trap T12, within one worker that took its own directive again: neither order confuses them."""
    known = types(nothing)
    for stale_first in (True, False):
        directive_id = await ask(database, tenant, known)
        (stale,) = (await claim_as(database, tenant, directive_id, "worker-1", lease=0)).claimed
        taken = await claim_as(database, tenant, directive_id, "worker-1")
        (current,) = taken.claimed
        running = RunningExecution(database, tenant.schema, taken.executions[directive_id])
        ends = [
            AttemptEnd(stale, Settlement("failed", None, "auth", "stale"), running),
            AttemptEnd(current, Settlement("succeeded", {"by": 2}), running),
        ]
        async with database.tenant(tenant.schema) as session:
            leased = [(stale.id, stale.lease_token), (current.id, current.lease_token)]
            kept = await leases.heartbeat(session, leased, lease_seconds=45)
        assert kept == {current.lease_token}
        writer = EndWriter(database, known, owner="worker-1", patience_seconds=10)
        ordered = ends if stale_first else ends[::-1]
        written = await asyncio.gather(*(writer.write(tenant, end) for end in ordered))
        assert written == [end is ends[1] for end in ordered]
        directive = await read(database, tenant, directive_id)
        assert (directive.state, directive.result) == ("succeeded", {"by": 2})
        async with database.tenant(tenant.schema) as session:
            lines = [one.message for one in await executions.logs(session, running.id)]
        assert [line for line in lines if "stale" in line] == []


async def test_a_worker_that_takes_its_own_lost_directive_again_finishes_it(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    """After an outage longer than a lease: the old attempt's end must not stop the new attempt."""
    begun: asyncio.Queue[int] = asyncio.Queue()
    may_end = {1: asyncio.Event(), 2: asyncio.Event()}

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        begun.put_nowait(context.directive.attempt)
        await may_end[context.directive.attempt].wait()
        return {"by": context.directive.attempt}

    known = types(work)
    directive_id = await ask(database, tenant, known)
    first_ended = asyncio.Event()

    def ended(outcome: DirectiveOutcome) -> None:
        if outcome.attempt == 1:
            first_ended.set()

    async with runner(database, settings, known) as one:
        draining = asyncio.create_task(one.drain(on_done=ended))
        assert await asyncio.wait_for(begun.get(), 10) == 1
        async with database.tenant(tenant.schema) as session:
            await session.execute(
                text("UPDATE directives SET lease_expires_at = now() - interval '1 second'")
            )
        assert await asyncio.wait_for(begun.get(), 10) == 2
        may_end[1].set()
        await asyncio.wait_for(first_ended.wait(), 10)
        may_end[2].set()
        outcomes = await asyncio.wait_for(draining, 10)
    assert [(o.attempt, o.state) for o in outcomes] == [(1, "lost"), (2, "succeeded")]
    directive = await read(database, tenant, directive_id)
    assert (directive.state, directive.result) == ("succeeded", {"by": 2})


@pytest.mark.parametrize("held", [True, False], ids=["held", "lost"])
async def test_a_handler_commits_a_fact_with_its_end_and_only_an_attempt_that_holds_its_lease_ends(
    database: Database, settings: Settings, tenant: Tenant, held: bool
) -> None:
    """Trap T12 where the handler itself writes the end: the fact stands, the end does not."""
    heard: list[str] = []

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        if not held:
            async with database.tenant(tenant.schema) as session:
                await session.execute(text("UPDATE directives SET lease_expires_at = now()"))
            await claim_as(database, tenant, context.directive.id, "other")
        async with context.database.tenant(context.tenant.schema) as session:
            await context.succeed(session, {"done": 1})
            await executions.log(session, context.execution.id, "info", "the fact")
            seen = await service.get(session, context.directive.id)
            heard.append(seen.state)
        # Committed: a worker that dies now has ended its attempt.
        heard.append((await read(database, tenant, context.directive.id)).state)
        return {"done": 1}

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known) as one:
        (outcome,) = await one.work(tenant, [directive_id])
    assert outcome.state == ("succeeded" if held else "lost")
    assert heard == (["succeeded"] * 2 if held else ["running"] * 2)
    directive = await read(database, tenant, directive_id)
    assert directive.result == ({"done": 1} if held else None)
    async with database.tenant(tenant.schema) as session:
        (execution,) = await executions.list_executions(session, directive_id=directive_id)
        lines = [line.message for line in await executions.logs(session, execution.id)]
    assert "the fact" in lines
    assert (execution.state, "attempt 1 of 3 succeeded" in lines) == (
        ("completed", True) if held else ("running", False)
    )
    ended = ["requested", "pending", "running", "succeeded"]
    taken_over = ["requested", "pending", "running", "pending", "running"]
    assert await states(database, tenant, directive_id) == (ended if held else taken_over)


async def test_a_success_that_was_rolled_back_is_ended_as_the_handler_ends(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        async with context.database.tenant(context.tenant.schema) as session:
            await context.succeed(session, {"done": 1})
            raise DirectiveFailed("validation", "not after all")

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known) as one:
        (outcome,) = await one.work(tenant, [directive_id])
    assert (outcome.state, outcome.error_message) == ("failed", "not after all")
    assert await states(database, tenant, directive_id) == [
        "requested", "pending", "running", "failed",
    ]  # fmt: skip


async def test_what_is_asked_for_and_worked_on_at_once_is_claimed_in_the_same_commit(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    """Nobody else ever sees it pending; all its states are told of all the same."""
    known = types(nothing)

    async def asking(session: AsyncSession) -> list[UUID]:
        directive, _ = await service.request_directive(
            session, tenant, "test.work", {}, idempotency_key="at once", actor=ADMIN, types=known
        )
        return [directive.id]

    told: list[DirectiveOutcome] = []
    async with runner(database, settings, known) as one:
        (outcome,) = await one.work_asked(tenant, asking, on_done=told.append)
    assert (outcome.state, told) == ("succeeded", [outcome])
    assert await states(database, tenant, outcome.directive_id) == [
        "requested", "pending", "running", "succeeded",
    ]  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        written = await session.scalars(
            text("SELECT DISTINCT txid FROM signals WHERE type IN ('directive.requested',"
                 " 'directive.pending', 'directive.running')")
        )  # fmt: skip
        assert len(written.all()) == 1


async def test_a_live_lease_is_not_taken(database: Database, tenant: Tenant) -> None:
    directive_id = await ask(database, tenant, types(nothing))
    assert (await claim_as(database, tenant, directive_id, "first")).claimed
    assert not (await claim_as(database, tenant, directive_id, "second")).claimed


async def test_20_claimers_at_once_share_the_work_without_overlap(
    database: Database, tenant: Tenant
) -> None:
    known = types(nothing)
    wanted = {await ask(database, tenant, known) for _ in range(40)}

    async def one(number: int) -> list[UUID]:
        async with database.tenant(tenant.schema) as session:
            found = await take(
                session, tenant, limit=5, owner=f"w{number}", lease_seconds=45, types=known
            )
        return [directive.id for directive in found.claimed]

    taken = [i for ids in await asyncio.gather(*(one(n) for n in range(20))) for i in ids]
    assert len(taken) == len(set(taken))
    assert set(taken) <= wanted


async def test_work_of_a_worker_that_died_is_taken_up_and_ended_as_unknown_when_spent(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    ended: list[Failure] = []

    async def after_failure(
        session: Any, of: Tenant, directive: Any, params: Any, failure: Failure
    ) -> None:
        ended.append(failure)

    known = types(nothing, after_failure=after_failure, retry=RetryPolicy(max_attempts=2))
    directive_id = await ask(database, tenant, known)
    for _ in range(2):
        assert (await claim_as(database, tenant, directive_id, "dies", lease=0)).claimed
    async with runner(database, settings, known) as one:
        (outcome,) = await one.drain()
    assert (outcome.state, outcome.attempt) == ("unknown", 2)
    assert [failure.state for failure in ended] == ["unknown"]
    assert (await states(database, tenant, directive_id))[-2:] == ["running", "unknown"]


async def test_a_handler_that_blocks_its_loop_for_longer_than_its_lease_keeps_it(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    """Traps T13 and T14: the heartbeat does not run on the handler's loop."""
    runs: list[int] = []

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        runs.append(context.directive.attempt)
        time.sleep(2.0)  # noqa: ASYNC251 - blocking is what is tested
        async with context.database.tenant(tenant.schema) as session:
            left = await session.scalar(text("SELECT lease_expires_at - now() FROM directives"))
        return {"seconds_left": left.total_seconds() if left else 0.0}

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known, lease_seconds=0.9) as one:
        (outcome,) = await one.drain()
    assert (outcome.state, runs) == ("succeeded", [1])
    directive = await read(database, tenant, directive_id)
    assert directive.attempt == 1
    assert directive.result is not None
    assert directive.result["seconds_left"] > 0, "it was free for others to take"


async def test_cancelling_a_running_directive_stops_its_handler(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    at_work = asyncio.Event()
    stopped = asyncio.Event()

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        at_work.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.set()
            raise
        return {}

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known, lease_seconds=0.6) as one:
        draining = asyncio.create_task(one.drain())
        await asyncio.wait_for(at_work.wait(), 5)
        async with database.tenant(tenant.schema) as session:
            await service.cancel(session, tenant, directive_id, ADMIN, types=known)
        (outcome,) = await asyncio.wait_for(draining, 5)
    assert stopped.is_set()
    assert outcome.state == "lost"
    assert (await read(database, tenant, directive_id)).state == "cancelled"
    async with database.tenant(tenant.schema) as session:
        (execution,) = await executions.list_executions(session, directive_id=directive_id)
    assert (execution.state, execution.finished_at is None) == ("cancelled", False)


async def test_a_handler_over_its_time_is_stopped_and_tried_again(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    attempts: list[int] = []

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        attempts.append(context.directive.attempt)
        if len(attempts) == 1:
            await asyncio.sleep(30)
        return {}

    known = types(work, timeout=0.1)
    await ask(database, tenant, known)
    async with runner(database, settings, known) as one:
        outcomes = await one.drain(linger_seconds=0.3)
    assert [o.state for o in outcomes] == ["pending", "succeeded"]
    assert "0.1 s" in (outcomes[0].error_message or "")


async def test_never_more_handlers_at_once_than_allowed_and_no_fewer(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    now, most = 0, 0

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return {}

    known = types(work)
    ids = [await ask(database, tenant, known) for _ in range(12)]
    async with runner(database, settings, known, concurrency=3) as one:
        assert len(await one.drain()) == 12
        assert most == 3
        assert await one.work(tenant, ids) == []


async def test_the_work_of_many_tenants_is_done_with_few_connections(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    known = types(nothing)
    tenants = [tenant, await new_tenant(), await new_tenant()]
    work = {one: [await ask(database, one, known) for _ in range(5)] for one in tenants}
    told: list[str] = []
    async with runner(database, settings, known, concurrency=2) as one:
        outcomes = await one.work_many(work, on_done=lambda outcome: told.append(outcome.state))
    assert [outcome.state for outcome in outcomes] == ["succeeded"] * 15 == told
    assert {outcome.tenant for outcome in outcomes} == {one.slug for one in tenants}


async def test_a_tenant_with_a_long_queue_does_not_hold_up_another(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    known = types(nothing)
    other = await new_tenant()
    for _ in range(30):
        await ask(database, tenant, known)
    await ask(database, other, known)
    async with runner(database, settings, known, concurrency=4) as one:
        order = [outcome.tenant for outcome in await one.drain()]
    assert order.index(other.slug) < 8
    assert len(order) == 31


async def test_higher_priority_goes_first_and_the_future_waits(
    database: Database, tenant: Tenant
) -> None:
    known = types(nothing)
    low = await ask(database, tenant, known)
    high = await ask(database, tenant, known, priority=5)
    async with database.tenant(tenant.schema) as session:
        later = (await session.execute(text("SELECT now() + interval '1 hour'"))).scalar_one()
    await ask(database, tenant, known, available_at=later)
    async with database.tenant(tenant.schema) as session:
        found = await take(session, tenant, limit=5, owner="w", lease_seconds=45, types=known)
    assert [d.id for d in found.claimed] == [high, low]
    assert await due.peek(database, system_clock()) == []
    (count,) = await due.peek(database, later)
    assert (count.type, count.count) == ("test.work", 3), "what runs is due when its lease is over"


async def test_a_directive_that_was_not_started_in_time_is_cancelled(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    known = types(nothing)
    directive_id = await ask(database, tenant, known, expires_at=system_clock())
    async with runner(database, settings, known) as one:
        (outcome,) = await one.drain()
    assert (outcome.state, outcome.error_message) == ("cancelled", "not started in time")
    assert await states(database, tenant, directive_id) == ["requested", "pending", "cancelled"]


async def test_a_lingering_runner_is_woken_by_a_notification(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    known = types(nothing)
    async with runner(database, settings, known, poll_seconds=20) as one:
        draining = asyncio.create_task(one.drain(linger_seconds=2))
        await asyncio.sleep(0.5)
        await ask(database, tenant, known)
        await notify_directives(database)
        (outcome,) = await asyncio.wait_for(draining, 15)
    assert outcome.waited < 1.0


async def test_a_lost_notification_costs_no_more_than_a_poll(
    database: Database, settings: Settings, owner: Database, tenant: Tenant
) -> None:
    """Trap T11: the listening connection is killed; work still starts."""
    known = types(nothing)
    async with runner(database, settings, known, poll_seconds=0.2) as one:
        draining = asyncio.create_task(one.drain(linger_seconds=1.5))
        await asyncio.sleep(0.3)
        async with owner.platform() as session:
            killed = await session.scalars(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE query LIKE 'LISTEN %' AND pid <> pg_backend_pid()"
                )
            )
            assert any(killed)
        await ask(database, tenant, known)
        (outcome,) = await asyncio.wait_for(draining, 10)
    assert outcome.state == "succeeded"
    assert outcome.waited < 1.0


async def test_a_type_that_this_platform_does_not_know_fails_for_good(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    directive_id = await ask(database, tenant, types(nothing))
    async with runner(database, settings, {}) as one:
        (outcome,) = await one.drain()
    assert (outcome.state, outcome.error_kind) == ("failed", "validation")
    assert (await read(database, tenant, directive_id)).state == "failed"


async def test_a_secret_in_an_error_message_is_masked_everywhere(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    """Trap T25."""
    canary = "https://chat.example.org/hooks/canarycanarycanarycanary12"

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        raise DirectiveFailed("validation", f"POST {canary} answered 404")

    known = types(work)
    directive_id = await ask(database, tenant, known)
    async with runner(database, settings, known) as one:
        await one.drain()
    async with database.tenant(tenant.schema) as session:
        for table in (
            "directives",
            "directive_transitions",
            "signals",
            "executions",
            "execution_logs",
        ):
            rows = await session.scalars(text(f"SELECT row_to_json(t)::text FROM {table} t"))
            assert not [row for row in rows if "canarycanary" in row], table
    assert "answered 404" in ((await read(database, tenant, directive_id)).error_message or "")


async def test_a_clean_up_that_fails_does_not_keep_a_directive_from_ending(
    database: Database, settings: Settings, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    async def after_failure(
        session: Any, of: Tenant, directive: Any, params: Any, failure: Failure
    ) -> None:
        await session.execute(text("DELETE FROM signals"))
        raise ZeroDivisionError

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        raise DirectiveFailed("auth", "no")

    known = types(work, after_failure=after_failure)
    failing = await ask(database, tenant, known)
    misfit = await ask(database, tenant, known)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text("UPDATE directives SET params = '{\"old\": 1}', changed_by = 't' WHERE id = :id"),
            {"id": misfit},
        )
    async with runner(database, settings, known) as one:
        assert [outcome.state for outcome in await one.drain()] == ["failed", "failed"]
    for directive_id in (failing, misfit):
        assert (await states(database, tenant, directive_id))[-1] == "failed"
    assert caplog.text.count("cleaning up after test.work failed") == 2


async def test_a_tenant_that_is_deleted_meanwhile_stops_nobody_elses_work(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    leaving = await new_tenant()

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        if context.tenant == leaving:
            await delete_tenant(settings, slug=leaving.slug, typed=leaving.slug)
        await asyncio.sleep(0.5)
        return {}

    known = types(work)
    for one_tenant in (leaving, tenant):
        await ask(database, one_tenant, known)
    async with runner(database, settings, known, lease_seconds=0.6) as one:
        outcomes = {outcome.tenant: outcome.state for outcome in await one.drain()}
    assert outcomes == {leaving.slug: "lost", tenant.slug: "succeeded"}
