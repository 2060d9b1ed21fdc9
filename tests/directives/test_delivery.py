"""Directives that connectors work off: who gets them, leases, reports, and what a lost one becomes."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import delivery, service
from fleetprompt.directives.delivery import Connector, Report
from fleetprompt.directives.doorbell import Doorbell
from fleetprompt.directives.due import peek, reserve
from fleetprompt.directives.models import Directive, DirectiveReport
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import DirectiveType
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import (
    ConflictError,
    IdempotencyMismatchError,
    InvalidError,
    NotFoundError,
    SecretFoundError,
    StaleLeaseError,
)
from fleetprompt.executions.models import Execution
from fleetprompt.executions.service import list_executions
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.directives.connector_types import ADMIN, CARRY, TYPES, Letter, connector_directive
from tests.directives.test_service import TYPES as PLATFORM_TYPES
from tests.directives.test_service import ask

DONE = Report("succeeded", result={"carried": True})


@pytest.fixture
def laptop(tenant: Tenant) -> Connector:
    return Connector(tenant, "laptop", "connector:laptop")


async def asked(database: Database, tenant: Tenant, **rest: Any) -> Directive:
    async with database.tenant(tenant.schema) as session:
        return await connector_directive(session, tenant, **rest)


async def leased(database: Database, connector: Connector, limit: int = 10) -> list[Directive]:
    async with database.tenant(connector.tenant.schema) as session:
        return await delivery.lease(session, connector, limit=limit, types=TYPES)


async def reported(
    database: Database, connector: Connector, held: Directive, said: Report = DONE
) -> DirectiveReport:
    assert held.lease_token is not None
    async with database.tenant(connector.tenant.schema) as session:
        return await delivery.report(
            session, connector, held.id, held.attempt, held.lease_token, said, types=TYPES
        )


async def extended(database: Database, connector: Connector, held: Directive) -> None:
    assert held.lease_token is not None
    async with database.tenant(connector.tenant.schema) as session:
        await delivery.extend(
            session, connector, held.id, held.attempt, held.lease_token, types=TYPES
        )


async def stored(database: Database, tenant: Tenant, directive: Directive) -> Directive:
    async with database.tenant(tenant.schema) as session:
        return await service.get(session, directive.id)


async def run_out(database: Database, tenant: Tenant) -> None:
    """Let every lease of the tenant run out."""
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            update(Directive)
            .where(Directive.state == "running")
            .values(lease_expires_at=text("now() - interval '1 second'"))
        )


async def states(database: Database, tenant: Tenant, directive: Directive) -> list[str]:
    async with database.tenant(tenant.schema) as session:
        return [one.to_state for one in await service.transitions(session, directive.id)]


async def test_t42_twenty_polls_at_once_lease_each_directive_once(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    made = {(await asked(database, tenant)).id for _ in range(50)}
    found: list[Directive] = []
    while len(found) < len(made):
        got = await asyncio.gather(*(leased(database, laptop, 5) for _ in range(20)))
        assert any(got), "polls that meet take something"
        found += [one for some in got for one in some]
    assert sorted(one.id for one in found) == sorted(made)
    assert {one.attempt for one in found} == {1}
    assert len({one.lease_token for one in found}) == len(made)
    assert await leased(database, laptop) == []


async def test_a_connector_gets_its_own_directives_and_nobody_elses(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    own = await asked(database, tenant)
    await asked(database, tenant, connector_id="server")
    await ask(database, tenant)
    assert [one.id for one in await leased(database, laptop)] == [own.id]


async def test_the_platforms_workers_leave_a_connectors_directives_alone(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    own, _ = await ask(database, tenant)
    theirs = await asked(database, tenant)
    types = {**PLATFORM_TYPES, **TYPES}
    found = await reserve(database, 10, most_of_tenant=10, types=types)
    assert found[tenant.schema] == [own]
    async with DirectiveRunner(database, settings, owner="test", types=types) as runner:
        done = await runner.work(tenant, [own, theirs.id])
    assert [one.directive_id for one in done] == [own]
    assert (await stored(database, tenant, theirs)).state == "pending"


async def test_a_type_is_either_the_platforms_with_a_handler_or_a_connectors_without() -> None:
    with pytest.raises(ValueError, match=r"test\.both"):
        DirectiveType("test.both", "Both.", Letter, PLATFORM_TYPES["test.say"].handler,
                      target="connector")  # fmt: skip
    with pytest.raises(ValueError, match=r"test\.nobody"):
        DirectiveType("test.nobody", "Nobody.", Letter)


@pytest.mark.parametrize("target", [None, "", "platform", "a" * 129, "a\nb"])
async def test_asking_names_a_connector_and_never_the_platform(
    database: Database, tenant: Tenant, target: str | None
) -> None:
    with pytest.raises(InvalidError) as caught:
        await asked(database, tenant, connector_id=target)
    assert caught.value.errors[0]["pointer"] == "/target"


async def test_the_platforms_own_work_takes_no_target(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant.schema) as session:
        with pytest.raises(InvalidError) as caught:
            await service.request_directive(
                session, tenant, "test.say", {"words": "x"}, idempotency_key="k", actor=ADMIN,
                target="laptop", types=PLATFORM_TYPES,
            )  # fmt: skip
    assert caught.value.errors[0]["pointer"] == "/target"


async def test_one_key_for_two_connectors_is_refused(database: Database, tenant: Tenant) -> None:
    first = await asked(database, tenant, idempotency_key="k")
    assert (await asked(database, tenant, idempotency_key="k")).id == first.id
    with pytest.raises(IdempotencyMismatchError):
        await asked(database, tenant, idempotency_key="k", connector_id="server")


async def test_a_report_ends_the_directive_and_its_execution_with_signals(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    directive = await asked(database, tenant, correlation_id="c-1")
    (held,) = await leased(database, laptop)
    answer = await reported(database, laptop, held)
    assert (answer.state, answer.outcome, answer.available_at) == ("succeeded", "succeeded", None)
    ended = await stored(database, tenant, directive)
    assert (ended.state, ended.result, ended.changed_by) == (
        "succeeded", {"carried": True}, "connector:laptop",
    )  # fmt: skip
    assert await states(database, tenant, directive) == [
        "requested", "pending", "running", "succeeded",
    ]  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        execution = (await session.scalars(select(Execution))).one()
        types = list(
            await session.scalars(
                text("SELECT type FROM signals WHERE subject_id = :id ORDER BY id"),
                {"id": str(directive.id)},
            )
        )
    assert (execution.directive_id, execution.state) == (directive.id, "completed")
    assert execution.correlation_id == "c-1"
    assert types == [f"directive.{one}" for one in ("requested", "pending", "running", "succeeded")]


async def test_t43_the_same_report_again_gets_the_first_answer_and_changes_nothing(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    directive = await asked(database, tenant)
    (held,) = await leased(database, laptop)
    answers = await asyncio.gather(*(reported(database, laptop, held) for _ in range(10)))
    assert len({one.reported_at for one in answers}) == 1
    assert (await states(database, tenant, directive)).count("succeeded") == 1
    with pytest.raises(ConflictError) as caught:
        await reported(database, laptop, held, Report("failed", error_kind="network"))
    assert not isinstance(caught.value, StaleLeaseError)
    with pytest.raises(ConflictError):
        await reported(database, laptop, held, Report("succeeded", result={"carried": False}))
    held.lease_token = uuid4()
    with pytest.raises(StaleLeaseError):
        await reported(database, laptop, held)
    assert (await stored(database, tenant, directive)).result == {"carried": True}


async def test_t43_a_report_is_remembered_when_later_attempts_have_come_and_gone(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    directive = await asked(database, tenant)
    (first,) = await leased(database, laptop)
    again = Report("retry", error_kind="network", error_message="no route")
    answer = await reported(database, laptop, first, again)
    assert answer.state == "pending"
    assert answer.available_at is not None
    await asyncio.sleep(0.02)
    (second,) = await leased(database, laptop)
    assert (second.id, second.attempt) == (directive.id, 2)
    assert (await reported(database, laptop, first, again)).reported_at == answer.reported_at
    await reported(database, laptop, second)
    assert (await reported(database, laptop, first, again)).state == "pending"
    assert (await stored(database, tenant, directive)).state == "succeeded"


async def test_t12_an_attempt_that_lost_its_lease_can_neither_go_on_nor_finish(
    database: Database, tenant: Tenant, laptop: Connector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    directive = await asked(database, tenant)
    (lost,) = await leased(database, laptop)
    await run_out(database, tenant)
    (held,) = await leased(database, laptop)
    assert (held.id, held.attempt) == (directive.id, 2)
    for late in (extended(database, laptop, lost), reported(database, laptop, lost)):
        with pytest.raises(StaleLeaseError):
            await late
    assert "refused to renew a lease that is gone" in caplog.text
    assert "refused the report of a lease that is gone" in caplog.text
    # Not with the other attempt's number either.
    lost.attempt = 2
    for late in (extended(database, laptop, lost), reported(database, laptop, lost)):
        with pytest.raises(StaleLeaseError):
            await late
    assert (await stored(database, tenant, directive)).lease_token == held.lease_token
    await reported(database, laptop, held)
    assert await states(database, tenant, directive) == [
        "requested", "pending", "running", "pending", "running", "succeeded",
    ]  # fmt: skip


async def test_a_heartbeat_keeps_a_directive_from_other_polls(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    await asked(database, tenant)
    (held,) = await leased(database, laptop)
    await run_out(database, tenant)
    await extended(database, laptop, held)
    assert await leased(database, laptop) == []
    await reported(database, laptop, held)
    with pytest.raises(StaleLeaseError):
        await extended(database, laptop, held)


async def test_leases_that_run_out_until_the_attempts_are_spent_end_in_unknown(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    directive = await asked(database, tenant)
    for attempt in range(1, CARRY.retry.max_attempts + 1):
        (held,) = await leased(database, laptop)
        assert held.attempt == attempt
        await run_out(database, tenant)
    assert await leased(database, laptop) == []
    ended = await stored(database, tenant, directive)
    assert (ended.state, ended.error_kind) == ("unknown", "unknown")
    with pytest.raises(StaleLeaseError):
        await reported(database, laptop, held)
    async with database.tenant(tenant.schema) as session:
        assert (await session.scalars(select(Execution.state))).one() == "failed"


async def test_a_directive_that_was_called_off_is_stale_to_the_one_at_work(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    directive = await asked(database, tenant)
    (held,) = await leased(database, laptop)
    async with database.tenant(tenant.schema) as session:
        await service.cancel(session, tenant, directive.id, ADMIN, types=TYPES)
    with pytest.raises(StaleLeaseError):
        await extended(database, laptop, held)
    with pytest.raises(StaleLeaseError):
        await reported(database, laptop, held)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (Report("failed", error_kind="network", error_message="away"), "failed"),
        (Report("unknown", error_kind="network", error_message="no answer"), "unknown"),
        (Report("retry", error_kind="rate_limit", retry_after=60), "pending"),
        (Report("retry", error_kind="auth"), "failed"),
        (Report("retry", error_kind="validation"), "failed"),
    ],
)
async def test_what_a_failure_becomes_is_by_its_class(
    database: Database, tenant: Tenant, laptop: Connector, said: Report, state: str
) -> None:
    directive = await asked(database, tenant)
    (held,) = await leased(database, laptop)
    assert (await reported(database, laptop, held, said)).state == state
    ended = await stored(database, tenant, directive)
    assert (ended.state, ended.error_kind) == (state, said.error_kind)
    if said.retry_after is not None:
        waits = (ended.available_at - ended.created_at).total_seconds()
        assert waits >= said.retry_after
        assert await leased(database, laptop) == []


async def test_retry_with_spent_attempts_is_the_end(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    directive = await asked(database, tenant)
    ends = []
    for _ in range(CARRY.retry.max_attempts):
        (held,) = await leased(database, laptop)
        said = Report("retry", error_kind="network")
        ends.append((await reported(database, laptop, held, said)).state)
        await asyncio.sleep(0.02)
    assert ends == ["pending", "pending", "failed"]
    assert (await stored(database, tenant, directive)).state == "failed"


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        (Report("succeeded", result={"text": "x" * delivery.RESULT_LIMIT}), "/result"),
        (Report("failed", result={}), "/result"),
        (Report("succeeded", error_kind="network"), "/error_kind"),
        (Report("succeeded", error_message="x"), "/error_message"),
        (Report("failed", error_message="x" * 1001), "/error_message"),
        (Report("failed", retry_after=1), "/retry_after_seconds"),
        (Report("retry", retry_after=-1), "/retry_after_seconds"),
        (Report("retry", retry_after=float("nan")), "/retry_after_seconds"),
    ],
)
async def test_a_report_that_makes_no_sense_is_refused_and_the_lease_stays(
    database: Database, tenant: Tenant, laptop: Connector, said: Report, pointer: str
) -> None:
    await asked(database, tenant)
    (held,) = await leased(database, laptop)
    with pytest.raises(InvalidError) as caught:
        await reported(database, laptop, held, said)
    assert [one["pointer"] for one in caught.value.errors] == [pointer]
    await reported(database, laptop, held)


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        (Report("succeeded", result={"smtp": {"password": "hunter22"}}), "/result/smtp/password"),
        (
            Report("failed", error_message="Authorization: Bearer abcdefghijklmnop"),
            "/error_message",
        ),
    ],
)
async def test_a_secret_in_a_report_is_refused_by_its_place_and_stored_nowhere(
    database: Database, tenant: Tenant, laptop: Connector, said: Report, pointer: str
) -> None:
    directive = await asked(database, tenant)
    (held,) = await leased(database, laptop)
    with pytest.raises(SecretFoundError) as caught:
        await reported(database, laptop, held, said)
    assert [one["pointer"] for one in caught.value.errors] == [pointer]
    assert "hunter22" not in str(caught.value.errors)
    assert (await stored(database, tenant, directive)).state == "running"


async def test_other_connectors_directives_do_not_exist(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    await asked(database, tenant)
    (held,) = await leased(database, laptop)
    server = Connector(tenant, "server", "connector:server")
    for strange in (extended(database, server, held), reported(database, server, held)):
        with pytest.raises(NotFoundError):
            await strange


async def test_a_report_cannot_be_rewritten(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    await asked(database, tenant)
    (held,) = await leased(database, laptop)
    await reported(database, laptop, held)
    for statement in (
        "UPDATE directive_reports SET state = 'failed'",
        "DELETE FROM directive_reports",
    ):
        with pytest.raises(Exception, match="permission denied"):
            async with database.tenant(tenant.schema) as session:
                await session.execute(text(statement))


async def test_t11_the_bell_rings_at_a_notice_and_without_one_for_that_connector_alone(
    database: Database, tenant: Tenant
) -> None:
    bell = Doorbell(database, poll_seconds=30)
    bell.start()
    with (
        bell.waiting(tenant.schema, "laptop") as own,
        bell.waiting(tenant.schema, "server") as other,
    ):
        assert bell.number_waiting(tenant.schema) == 2
        await asyncio.sleep(0.3)
        await asked(database, tenant)
        await asyncio.sleep(0.3)
        assert not own.is_set()
        await notify_directives(database)
        await asyncio.wait_for(own.wait(), 2)
        assert not other.is_set()
    assert bell.number_waiting(tenant.schema) == 0
    await bell.close()
    bell = Doorbell(database, poll_seconds=0.1)
    bell.start()
    with bell.waiting(tenant.schema, "laptop") as own:
        await asyncio.wait_for(own.wait(), 2)
    await bell.close()


async def test_an_attempt_is_not_kept_alive_beyond_the_time_of_its_type(
    database: Database, tenant: Tenant, laptop: Connector
) -> None:
    """A heartbeat says that the connector lives; the timeout, that the attempt is worth finishing."""
    await asked(database, tenant)
    (held,) = await leased(database, laptop)
    await extended(database, laptop, held)
    short = {CARRY.name: replace(CARRY, timeout=0.001)}
    assert held.lease_token is not None
    async with database.tenant(tenant.schema) as session:
        with pytest.raises(StaleLeaseError):
            await delivery.extend(
                session, laptop, held.id, held.attempt, held.lease_token, types=short
            )


async def test_what_a_connector_that_never_returns_left_behind_is_sorted_out(
    database: Database, settings: Settings, tenant: Tenant, laptop: Connector
) -> None:
    """The platform's workers do it: nobody polls for this connector any more."""
    lost, late = await asked(database, tenant), await asked(database, tenant)
    (held,) = await leased(database, laptop, limit=1)
    lost, late = (lost, late) if held.id == lost.id else (late, lost)
    await run_out(database, tenant)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            update(Directive)
            .where(Directive.id == late.id)
            .values(expires_at=text("now() - interval '1 second'"))
        )
    waiting = await peek(database, system_clock())
    assert [(one.type, one.count) for one in waiting if one.type == CARRY.name] == [(CARRY.name, 2)]
    for state, attempts in (("pending", 1), ("pending", 2), ("unknown", 3)):
        async with DirectiveRunner(database, settings, owner="platform-1", types=TYPES) as runner:
            await runner.drain()
        assert ((await stored(database, tenant, lost)).state) == state
        async with database.tenant(tenant.schema) as session:
            (execution,) = await list_executions(session, directive_id=lost.id)
        assert (execution.state == "failed") == (state == "unknown")
        if state == "pending":
            assert [one.attempt for one in await leased(database, laptop)] == [attempts + 1]
            await run_out(database, tenant)
    assert (await stored(database, tenant, late)).state == "cancelled"
    assert [one.type for one in await peek(database, system_clock())] == []
