"""Collecting on a real PostgreSQL: each signal counted once, whenever its commit came."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.packages.digest.collect import (
    Collected,
    Cut,
    Previous,
    collect,
)
from fleetprompt.packages.digest.facts import facts_from_rows
from fleetprompt.packages.digest.history import Totals
from fleetprompt.packages.digest.rows import Outcome, Waiting
from fleetprompt.schedules.local_time import Window
from fleetprompt.tenants.service import Tenant

DAY = timedelta(days=1)
START = datetime(2026, 3, 8, 14, tzinfo=UTC)
FIRST, SECOND = Window(START, START + DAY), Window(START + DAY, START + 2 * DAY)
INSERT = text(
    "INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, data, metadata,"
    " inserted_at) VALUES (:id, :type, 'test', :occurred_at, :subject_type, :subject_id,"
    " CAST(:data AS jsonb), CAST(:metadata AS jsonb), :inserted_at)"
)
EXECUTION = text(
    "INSERT INTO executions (id, kind, state, correlation_id, finished_at, cost_usd, tokens_in,"
    " tokens_out, error_kind, error_message) VALUES (:id, :kind, :state, :correlation_id,"
    " :finished_at, :cost_usd, :tokens_in, :tokens_out, :error_kind, :error_message)"
)


async def signal(
    session: AsyncSession,
    type_: str,
    at: datetime,
    *,
    occurred: datetime | None = None,
    subject: str | None = None,
    corr: str | None = None,
    **data: Any,
) -> None:
    """Store one signal, at a time of the test's choosing."""
    await session.execute(
        INSERT,
        {
            "id": new_id(),
            "type": type_,
            "occurred_at": occurred or at,
            "subject_type": "directive" if subject else None,
            "subject_id": subject,
            "data": json.dumps(data),
            "metadata": json.dumps({"correlation_id": corr} if corr else {}),
            "inserted_at": at,
        },
    )


async def execution(session: AsyncSession, **values: Any) -> None:
    """Store one execution that has ended."""
    names = ("correlation_id", "cost_usd", "tokens_in", "tokens_out", "error_kind", "error_message")
    await session.execute(EXECUTION, {"id": new_id(), **dict.fromkeys(names), **values})


def after(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def outcomes(found: Collected) -> dict[tuple[str, str, str | None], int]:
    return {(o.family, o.state, o.name): o.count for o in found.facts.outcomes}


async def test_a_window_is_told_by_family_state_and_name(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        for package in ("crm", "crm", "mail"):
            await signal(session, "package.install.requested", after(1), package=package)
            await signal(session, "package.install.completed", after(2), package=package)
        await signal(
            session, "package.upgrade.failed", after(3), package="crm", error_kind="network"
        )
        for minute, state in enumerate(("requested", "pending", "running", "failed")):
            await signal(
                session, f"directive.{state}", after(minute), subject="a", directive_type="x.y"
            )
        for minute, state in enumerate(("requested", "pending", "running", "unknown", "succeeded")):
            await signal(
                session, f"directive.{state}", after(minute), subject="b", directive_type="x.y"
            )
        await signal(session, "workflow.run.completed", after(4), job="drain")
        await signal(session, "workflow.run.failed", after(5), job="drain", run_id="r1")
        await signal(session, "email.inbound.received", after(6))
        await execution(session, kind="digest", state="completed", finished_at=after(7))
        await execution(session, kind="digest", state="completed", finished_at=SECOND.start)
    async with database.tenant(tenant.schema) as session:
        found = await collect(session, FIRST)
    assert outcomes(found) == {
        ("package", "install.completed", "crm"): 2,
        ("package", "install.completed", "mail"): 1,
        ("package", "upgrade.failed", "crm"): 1,
        ("directive", "failed", "x.y"): 1,
        ("directive", "succeeded", "x.y"): 1,
        ("run", "completed", "drain"): 1,
        ("run", "failed", "drain"): 1,
        ("execution", "completed", "digest"): 1,
    }
    assert found.facts.signals == 6 + 1 + 9 + 2 + 1
    assert [(t.name, t.count) for t in found.facts.types if not t.told] == [
        ("email.inbound.received", 1)
    ]
    assert [(e.name, e.what, e.kind, e.count) for e in found.facts.errors] == [
        ("directive.failed", "x.y", "unknown", 1),
        ("package.upgrade.failed", "crm", "network", 1),
        ("workflow.run.failed", "drain", "unknown", 1),
    ]
    assert found.facts.totals == Totals(
        signals=19,
        errors=3,
        packages_changed=3,
        packages_failed=1,
        directives_succeeded=1,
        directives_failed=1,
        executions_completed=1,
        runs_completed=1,
        runs_failed=1,
        mails_received=1,
    )


async def test_trap_27_a_commit_in_flight_is_counted_once_in_the_next_digest(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as early:
        await signal(early, "email.inbound.received", after(1))
    async with database.tenant(tenant.schema) as slow:
        await signal(slow, "email.inbound.received", after(2))
        async with database.tenant(tenant.schema) as quick:
            await signal(quick, "email.inbound.received", after(3))
        async with database.tenant(tenant.schema) as reader:
            first = await collect(reader, FIRST)
    async with database.tenant(tenant.schema) as reader:
        second = await collect(reader, SECOND, Previous(FIRST, first.cut, first.facts.as_past()))
        assert await collect(reader, FIRST, again=first.cut) == first
    # The quick one committed above the horizon that the slow one held: it waits with it.
    assert (first.facts.signals, first.facts.late) == (1, 0)
    assert (second.facts.signals, second.facts.late) == (2, 2)
    assert second.facts.earliest_late == after(2)
    assert second.facts.previous == first.facts.totals


async def test_trap_27_days_add_up_to_the_table_whatever_came_late(
    database: Database, tenant: Tenant
) -> None:
    """Signals before, within and after windows, collected late, with transactions held open."""
    windows = [Window(START + DAY * n, START + DAY * (n + 1)) for n in range(4)]
    previous: Previous | None = None
    counted = 0
    for number, window in enumerate(windows):
        async with database.tenant(tenant.schema) as session:
            for minute in (0, 5, 24 * 60 - 1):
                await signal(session, "web.hit", window.start + timedelta(minutes=minute))
            # Stored after the window's end, because the collection itself runs late.
            await signal(session, "web.hit", window.end + timedelta(minutes=number))
            await signal(session, "web.hit", window.end, occurred=window.start - DAY)
        async with database.tenant(tenant.schema) as held:
            await signal(held, "web.hit", window.end - timedelta(seconds=1))
            async with database.tenant(tenant.schema) as session:
                found = await collect(session, window, previous)
        counted += found.facts.signals
        previous = Previous(window, found.cut, found.facts.as_past())
    # Everything that is left comes with the next window.
    async with database.tenant(tenant.schema) as session:
        rest = Window(windows[-1].end, windows[-1].end + DAY)
        found = await collect(session, rest, previous)
        stored = (await session.execute(text("SELECT count(*) FROM signals"))).scalar_one()
    assert counted + found.facts.signals == stored == 24
    assert found.facts.late == 2


async def test_a_collection_that_runs_late_leaves_what_came_after_its_window(
    database: Database, tenant: Tenant
) -> None:
    """Trap 26: late within grace, with the original window."""
    async with database.tenant(tenant.schema) as session:
        await signal(session, "web.hit", FIRST.end - timedelta(seconds=1))
        await signal(session, "web.hit", FIRST.end)
    async with database.tenant(tenant.schema) as session:
        first = await collect(session, FIRST)
        assert first.facts.signals == 1
        assert first.cut.floor < first.cut.horizon
        second = await collect(session, SECOND, Previous(FIRST, first.cut))
    assert (second.facts.signals, second.facts.late) == (1, 0)
    # Without stored totals the window before is counted anew.
    assert second.facts.previous == first.facts.totals


async def test_without_a_digest_before_a_window_is_what_was_stored_in_it(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        await signal(session, "web.hit", FIRST.start - timedelta(seconds=1))
        await signal(session, "web.hit", FIRST.start, occurred=FIRST.start - DAY)
    async with database.tenant(tenant.schema) as session:
        found = await collect(session, FIRST, Previous(Window(START - DAY, START)))
    assert (found.facts.signals, found.facts.late) == (1, 1)
    assert found.facts.previous == Totals(signals=1)


async def test_a_window_of_nothing_is_not_counted_and_one_of_an_execution_alone_is(
    database: Database, tenant: Tenant
) -> None:
    """What is passed over before a first digest would have been just this."""
    empty, before = Window(START - 2 * DAY, START - DAY), Window(START - DAY, START)
    async with database.tenant(tenant.schema) as session:
        assert (await collect(session, empty)).facts == facts_from_rows(empty)
        await execution(session, kind="agent", state="completed", finished_at=START - DAY)
    async with database.tenant(tenant.schema) as session:
        nothing = await collect(session, before, Previous(empty))
        something = await collect(session, FIRST, Previous(before))
    assert nothing.facts.previous == Totals()
    assert something.facts.previous == Totals(executions_completed=1)


async def test_one_mishap_told_by_signal_directive_execution_and_run_is_one_error(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        for corr in ("one", "two"):
            await signal(
                session, "package.install.failed", after(1), corr=corr, package="crm",
                error_kind="auth", error_message="401 from https://x.test/hooks/abcdefghijk",
            )  # fmt: skip
            await signal(
                session, "directive.failed", after(2), corr=corr, subject=corr,
                directive_type="package.install", error_kind="auth",
            )  # fmt: skip
            await execution(
                session, kind="install", state="failed", finished_at=after(3),
                correlation_id=corr, error_kind="auth",
            )  # fmt: skip
            await signal(session, "workflow.run.failed", after(4), corr=corr, job="drain")
        # More directives failed than one package failure explains: those stay.
        await signal(session, "package.install.failed", after(5), corr="many", package="mail")
        for number in range(3):
            await signal(
                session, "directive.failed", after(6), corr="many", subject=f"s{number}",
                directive_type="email.send",
            )  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        found = await collect(session, FIRST)
    assert [(e.name, e.what, e.count) for e in found.facts.errors] == [
        ("directive.failed", "email.send", 3),
        ("package.install.failed", "crm", 2),
        ("package.install.failed", "mail", 1),
    ]
    assert found.facts.failed("directive") == 5
    sample = found.facts.errors[1]
    assert sample.message == "401 from https://x.test/hooks/[redacted]"
    assert (sample.first, sample.last, sample.correlation_id) == (after(1), after(1), "two")


async def test_trap_41_a_day_with_nothing_but_the_digests_own_run_is_empty(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        empty = await collect(session, FIRST)
        assert empty.facts.empty
        corr = "digest:acme:2026-03-08:ops"
        for state in ("requested", "pending", "running", "succeeded"):
            await signal(session, f"directive.{state}", after(1), corr=corr, subject="d")
        await signal(session, "mattermost.message.posted", after(2), corr=corr)
        await execution(
            session, kind="digest", state="completed", finished_at=after(3), correlation_id=corr
        )
    async with database.tenant(tenant.schema) as session:
        quiet = await collect(session, FIRST)
        assert quiet.facts.empty
        assert (quiet.facts.signals, quiet.facts.own) == (5, 5)
        await signal(session, "mattermost.message.failed", after(4), corr=corr, error_kind="auth")
    async with database.tenant(tenant.schema) as session:
        assert not (await collect(session, FIRST)).facts.empty


async def test_usage_is_summed_once_and_nonsense_passed_over(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        await execution(
            session, kind="agent", state="completed", finished_at=after(1),
            cost_usd=Decimal("1.25"), tokens_in=100, tokens_out=20,
        )  # fmt: skip
        row = (await session.execute(text("SELECT id FROM executions"))).scalar_one()
        # The agent's own report of the execution that has a row is not counted again.
        await signal(
            session, "agent.execution.completed", after(2), execution_id=str(row), cost_usd=99
        )
        await signal(
            session, "agent.execution.failed", after(2), agent="bot", execution_id="e-7",
            cost_usd=0.5, tokens_in=7,
        )  # fmt: skip
        for nonsense in ("12", -1, 1e300, True, None, [1]):
            await signal(
                session, "agent.execution.completed", after(3), cost_usd=nonsense,
                tokens_in=nonsense, tokens_out=nonsense,
            )  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        found = await collect(session, FIRST)
    usage = found.facts.usage
    assert (usage.cost_usd, usage.tokens_in, usage.tokens_out) == (Decimal("1.75"), 107, 20)
    assert outcomes(found) == {
        ("execution", "completed", "agent"): 7,
        ("execution", "failed", "bot"): 1,
    }


async def test_however_many_groups_there_are_few_rows_come_and_sums_are_exact(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO signals (id, type, source, occurred_at, data, inserted_at)"
                " SELECT gen_random_uuid(), kind || n || ending, 'test', :at,"
                " jsonb_build_object('job', 'job ' || n), :at FROM generate_series(1, 1000) AS n,"
                " (VALUES ('shop.t', '.failed'), ('shop.u', ''), ('workflow.run.completed', ''))"
                " AS kinds (kind, ending)"
            ),
            {"at": after(1)},
        )
        await session.execute(
            text(
                "UPDATE signals SET type = 'workflow.run.completed'"
                " WHERE type LIKE 'workflow.run.completed%'"
            )
        )
        # A transaction's own signals are above the horizon: it has not ended.
        assert (await collect(session, FIRST)).facts.signals == 0
    async with database.tenant(tenant.schema) as session:
        facts = (await collect(session, FIRST)).facts
    assert facts.signals == 3000
    assert [len(rows) for rows in (facts.types, facts.outcomes, facts.errors)] == [202, 201, 201]
    assert facts.errors[-1].name is None
    assert (facts.errors[-1].names, facts.errors[-1].count, facts.totals.errors) == (800, 800, 1000)
    assert facts.outcomes[-1] == Outcome("run", "completed", None, 800, names=800)
    rest = [t for t in facts.types if t.name is None]
    assert [(t.names, t.count) for t in rest] == [(1800, 1800)]


async def test_what_waits_for_approval_is_told_as_of_the_windows_end(
    database: Database, tenant: Tenant
) -> None:
    """Versions of one directive count once; what was decided before the end does not count."""
    lapses = SECOND.end
    rows = (
        # The second version of the first directive waits; the first was superseded by it.
        ("a", 1, "email.send", "superseded", after(10), after(20)),
        ("a", 2, "email.send", "waiting", after(20), None),
        ("b", 1, "email.send", "approved", after(5), SECOND.start),
        ("c", 1, "email.send", "rejected", after(5), after(6)),
        ("d", 1, "package.disable", "waiting", FIRST.start - DAY, None),
        ("e", 1, "package.disable", "waiting", SECOND.start, None),
    )
    ids = {name: new_id() for name in "abcde"}
    async with database.tenant(tenant.schema) as session:
        for name, id_ in ids.items():
            await session.execute(
                text(
                    "INSERT INTO directives (id, type, idempotency_key, state, actor, changed_by)"
                    " VALUES (:id, 'x.y', :name, 'requested', 'test', 'test')"
                ),
                {"id": id_, "name": name},
            )
        for name, version, type_, state, created, settled in rows:
            await session.execute(
                text(
                    "INSERT INTO approvals (id, directive_id, directive_type, version, action,"
                    " action_sha256, rendering_version, policy, policy_sha256, proposed_by, state,"
                    " expires_at, created_at, settled_at) VALUES (gen_random_uuid(), :directive,"
                    " :type, :version, '{}', repeat('0', 64), 1, '{}', repeat('0', 64), 'test',"
                    " :state, :lapses, :created, :settled)"
                ),
                {
                    "directive": ids[name], "type": type_, "version": version, "state": state,
                    "lapses": lapses, "created": created, "settled": settled,
                },
            )  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        facts = (await collect(session, FIRST)).facts
    assert facts.waiting == (
        Waiting("email.send", 2, after(5), lapses),
        Waiting("package.disable", 1, FIRST.start - DAY, lapses),
    )


async def test_a_connectors_errors_are_errors_and_a_renumbered_folder_is_none(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        for code in ("bridge_away", "bridge_away", "folder_renumbered"):
            await signal(
                session, "connector.error", after(1), corr="connector:c1",
                kind="network", code=code, message="Bridge does not answer",
            )  # fmt: skip
    async with database.tenant(tenant.schema) as session:
        facts = (await collect(session, FIRST)).facts
    (error,) = facts.errors
    assert (error.name, error.what, error.kind, error.count) == (
        "connector.error", "bridge_away", "network", 2,
    )  # fmt: skip
    assert (error.message, error.correlation_id) == ("Bridge does not answer", "connector:c1")


async def test_a_few_mails_are_told_beside_however_many_other_types(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        await signal(session, "email.inbound.received", after(1))
        for number in range(210):
            for _ in range(2):
                await signal(session, f"shop.t{number}", after(1))
    async with database.tenant(tenant.schema) as session:
        facts = (await collect(session, FIRST)).facts
    assert facts.totals.mails_received == 1
    assert [(t.names, t.count) for t in facts.types if t.name is None] == [(11, 22)]


async def test_a_tenant_is_told_of_its_own_signals_alone(
    database: Database, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    mine, other = await new_tenant(), await new_tenant()
    async with database.tenant(other.schema) as session:
        await signal(session, "web.hit", after(1))
    async with database.tenant(mine.schema) as session:
        assert (await collect(session, FIRST)).facts.signals == 0


def test_a_cut_reads_back_and_must_fit_its_window() -> None:
    cut = Cut(START, 7, 5)
    assert Cut.from_json(json.loads(json.dumps(cut.as_json()))) == cut


async def test_cuts_of_other_windows_are_refused(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant.schema) as session:
        with pytest.raises(ValueError, match="cut before"):
            await collect(session, FIRST, Previous(FIRST, Cut(FIRST.end, 9, 9)))
        with pytest.raises(ValueError, match="cut ends"):
            await collect(session, FIRST, again=Cut(FIRST.start, 9, 9))
