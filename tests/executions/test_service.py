"""Executions and their log lines."""

from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.errors import NotFoundError
from fleetprompt.executions import service
from fleetprompt.executions.ending import ExecutionEnd, end_executions
from fleetprompt.executions.running import LINE_LIMIT, RunningExecution
from fleetprompt.tenants.service import Tenant


async def test_an_execution_from_request_to_end_with_its_costs(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        made = await service.create(session, "digest.run", correlation_id="c")
        assert (made.state, made.started_at) == ("requested", None)
        first = ExecutionEnd(
            made.id, "requested", "warning", "no answer", cost_usd=Decimal("0.004"), tokens_in=800
        )
        last = ExecutionEnd(
            made.id, "completed", "info", "done", result={"n": 1}, cost_usd=Decimal("0.000217"),
            tokens_in=12, tokens_out=90,
        )  # fmt: skip
        await end_executions(session, [first])
        await end_executions(session, [last])
        await end_executions(session, [ExecutionEnd(made.id, "failed", "error", "too late")])
    async with database.tenant(tenant.schema) as session:
        found = await service.get(session, made.id)
        lines = await service.logs(session, made.id)
    assert (found.state, found.result) == ("completed", {"n": 1})
    assert (found.cost_usd, found.tokens_in, found.tokens_out) == (Decimal("0.004217"), 812, 90)
    assert found.finished_at is not None
    assert [line.message for line in lines] == ["no answer", "done", "too late"]


async def test_a_kept_result_stays_when_the_end_brings_none(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        made = await service.create(session, "digest.run")
    running = RunningExecution(database, tenant.schema, made.id)
    await running.keep({"text": "half"})
    assert await running.kept() == {"text": "half"}
    async with database.tenant(tenant.schema) as session:
        end = ExecutionEnd(made.id, "failed", "error", "no", error_kind="network")
        await end_executions(session, [end])
    assert await running.kept() == {"text": "half"}


async def test_lines_are_bounded_in_length_number_and_fields_and_hold_no_secret(
    database: Database, tenant: Tenant
) -> None:
    """Trap T25."""
    hook = "https://chat.example.org/hooks/canarycanarycanarycanary12"
    async with database.tenant(tenant.schema) as session:
        made = await service.create(session, "digest.run")
        await service.log(session, made.id, "info", "x" * 5000)
        await service.log(session, made.id, "info", "big", blob="y" * 9000)
        await service.log(
            session, made.id, "error", f"POST {hook}", url=hook, deep=[{"api_key": "k" * 20}]
        )
    running = RunningExecution(database, tenant.schema, made.id, lines=LINE_LIMIT - 1)
    await running.log("info", "the thousandth")
    await running.log("info", "one more")
    async with database.tenant(tenant.schema) as session:
        long, big, secret, last = await service.logs(session, made.id)
        rest = await service.logs(session, made.id, after=big.id)
    assert len(long.message) == 4000
    assert big.fields == {"left_out": "fields over 8192 bytes"}
    assert "canary" not in f"{secret.message} {secret.fields}"
    assert secret.fields["deep"] == [{"api_key": "[redacted]"}]
    assert (last.level, last.message) == ("warning", "further lines are left out")
    assert [line.id for line in rest] == [secret.id, last.id]


async def test_lists_page_newest_first_and_stay_in_their_tenant(
    database: Database, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    async with database.tenant(tenant.schema) as session:
        made = [
            (await service.create(session, "a" if n % 2 else "b", correlation_id="c")).id
            for n in range(5)
        ]
    async with database.tenant(tenant.schema) as session:
        page = await service.list_executions(session, correlation_id="c", limit=3)
        rest = await service.list_executions(session, before=page[-1].id)
        of_a = await service.list_executions(session, kind="a", state="requested")
    assert [one.id for one in [*page, *rest]] == made[::-1]
    assert len(of_a) == 2
    async with database.tenant((await new_tenant()).schema) as session:
        assert await service.list_executions(session) == []
        with pytest.raises(NotFoundError):
            await service.get(session, made[0])
