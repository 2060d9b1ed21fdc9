"""Drains: started when needed, one at a time, and what they show."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.packages import service
from fleetprompt.tenants.service import Tenant
from tests.dagster.conftest import Bench
from tests.packages.installed import ADMIN, SLUG

_AT_ONCE = {"ops": {"drain": {"config": {"linger_seconds": 0.0}}}}


def _ask(bench: Bench, tenant: Tenant) -> UUID:
    """Ask for a directive, for real: the installation of the digest."""

    async def ask(database: Database) -> UUID:
        async with database.tenant(tenant.schema) as session:
            directive, _ = await service.install(session, tenant, SLUG, {}, ADMIN)
            return directive.id

    return bench.run(ask)


def _later(bench: Bench, seconds: float) -> None:
    bench.now = lambda: system_clock() + timedelta(seconds=seconds)


def _state(bench: Bench, tenant: Tenant, directive_id: UUID) -> str:
    [row] = bench.sql(
        "SELECT state FROM directives WHERE id = :id", schema=tenant.schema, id=directive_id
    )
    return str(row.state)


def _worker(bench: Bench, run: dg.DagsterRun, *, seen: float = 0, **more: Any) -> None:
    """Have the run's drain say that it is at work, last seen so many seconds ago."""
    columns = {"retiring": False, "started": seen, **more}
    bench.sql(
        "INSERT INTO fleetprompt.workers (owner, started_at, seen_at, retiring) VALUES"
        " (:owner, now() - make_interval(secs => :started), now() - make_interval(secs => :seen),"
        " :retiring)",
        owner=f"dagster:{run.run_id}",
        seen=seen,
        **columns,
    )


def _status(bench: Bench, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = bench.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def _tags(bench: Bench, result: Any) -> Mapping[str, str]:
    found = bench.instance.get_run_by_id(result.run_id)
    assert found is not None
    return found.tags


def test_one_drain_is_started_when_work_is_due_and_none_is_live(bench: Bench) -> None:
    tenant = bench.tenant()
    assert "No directive is due" in bench.sensor("due_directives").skip_message
    _ask(bench, tenant)
    _later(bench, 1)
    [request] = bench.sensor("due_directives").run_requests
    [again] = bench.sensor("due_directives").run_requests
    assert (
        request.tags.items()
        >= {"fleetprompt/due": "1", "fleetprompt/because": "none at work"}.items()
    )
    assert request.run_key != again.run_key, "trap 4: a key that failed once is spent for ever"
    for status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
        run = bench.enqueue("drain_directives", status=status)
        assert "a drain is about to begin" in bench.sensor("due_directives").skip_message
        bench.instance.report_run_failed(run)
    assert len(bench.sensor("due_directives").run_requests) == 1
    _worker(bench, bench.enqueue("drain_directives"))
    assert "1 drains are at work" in bench.sensor("due_directives").skip_message


def test_a_dead_drain_does_not_hold_up_work_and_its_run_is_marked_as_failed(bench: Bench) -> None:
    """Dagster cannot see that a run's process died (research, fact 10)."""
    _ask(bench, bench.tenant())
    _later(bench, 1)
    stopped = bench.enqueue("drain_directives")
    _worker(bench, stopped, seen=30)
    assert len(bench.sensor("due_directives").run_requests) == 1
    assert _status(bench, stopped) == dg.DagsterRunStatus.STARTED, "it may come back"
    killed = bench.enqueue("drain_directives")
    _worker(bench, killed, seen=61)
    assert len(bench.sensor("due_directives").run_requests) == 1
    assert _status(bench, killed) == dg.DagsterRunStatus.FAILURE


def test_a_run_that_never_began_its_work_does_not_hold_it_up(bench: Bench) -> None:
    _ask(bench, bench.tenant())
    run = bench.enqueue("drain_directives", status=dg.DagsterRunStatus.STARTING)
    started = DagsterEvent(DagsterEventType.RUN_START.value, "drain_directives")
    bench.instance.report_dagster_event(started, run.run_id)
    _later(bench, 50)
    assert "about to begin" in bench.sensor("due_directives").skip_message
    _later(bench, 62)
    assert len(bench.sensor("due_directives").run_requests) == 1
    assert _status(bench, run) == dg.DagsterRunStatus.FAILURE


def test_one_more_drain_is_started_beside_an_overloaded_one_up_to_a_bound(bench: Bench) -> None:
    _ask(bench, bench.tenant())
    _worker(bench, bench.enqueue("drain_directives"), started=120)
    _later(bench, 59)
    assert not bench.sensor("due_directives").run_requests
    _later(bench, 62)
    [request] = bench.sensor("due_directives").run_requests
    assert request.tags["fleetprompt/because"] == "busy beside 1"
    for _ in range(2):
        _worker(bench, bench.enqueue("drain_directives"), started=120)
    assert "3 drains are at work" in bench.sensor("due_directives").skip_message


def test_a_drain_that_retires_is_followed_before_it_ends(bench: Bench) -> None:
    old = bench.enqueue("drain_directives")
    _worker(bench, old, retiring=True, started=600)
    [request] = bench.sensor("due_directives").run_requests
    assert (
        request.tags.items()
        >= {"fleetprompt/due": "0", "fleetprompt/because": "one retires"}.items()
    )
    new = bench.enqueue("drain_directives")
    assert "about to begin" in bench.sensor("due_directives").skip_message
    _worker(bench, new)
    assert "1 drains are at work" in bench.sensor("due_directives").skip_message
    assert _status(bench, old) == dg.DagsterRunStatus.STARTED


def test_a_sensor_that_finds_nothing_waits_and_asks_at_once_when_something_comes(
    bench: Bench,
) -> None:
    tenant = bench.tenant()
    bench.platform = type(bench.platform)(patience_seconds=30.0)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        tick = pool.submit(bench.sensor, "due_directives")
        time.sleep(1.5)
        assert not tick.done()
        _ask(bench, tenant)
        assert len(tick.result().run_requests) == 1
    assert time.monotonic() - began < 30


def test_the_sensor_writes_nothing(bench: Bench) -> None:
    """Trap 5: the run claims, so a daemon that dies in between leaves nothing stuck."""
    tenant = bench.tenant()
    directive_id = _ask(bench, tenant)
    before = bench.sql("SELECT * FROM fleetprompt.directive_queue")
    _later(bench, 1)
    assert len(bench.sensor("due_directives").run_requests) == 1
    assert bench.sql("SELECT * FROM fleetprompt.directive_queue") == before
    assert _state(bench, tenant, directive_id) == "pending"


def test_a_hundred_thousand_due_directives_do_not_slow_the_tick(bench: Bench) -> None:
    """Trap 23: a tick has 60 seconds; it must not read what it only counts."""
    bench.sql(
        "INSERT INTO fleetprompt.directive_queue"
        " (tenant_schema, directive_id, type, target, priority, due_at)"
        " SELECT 'org_many-' || n % 1000, gen_random_uuid(), 'test.work', 'platform', 0, now()"
        " FROM generate_series(1, 100000) n"
    )
    _later(bench, 1)
    started = time.perf_counter()
    tick = bench.sensor("due_directives")
    assert time.perf_counter() - started < 2.0
    assert len(tick.run_requests) == 1


def test_a_drain_works_for_all_tenants_and_shows_what_it_did(bench: Bench) -> None:
    tenants = [bench.tenant() for _ in range(3)]
    asked = [_ask(bench, tenant) for tenant in tenants]
    result = bench.execute("drain_directives", _AT_ONCE)
    assert result.success
    for tenant, directive_id in zip(tenants, asked, strict=True):
        assert _state(bench, tenant, directive_id) == "succeeded"
        [row] = bench.sql("SELECT dagster_run_id FROM executions", schema=tenant.schema)
        assert row.dagster_run_id == result.run_id
    [output] = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    assert (metadata["attempts"].value, metadata["succeeded"].value) == (3, 3)
    tags = _tags(bench, result)
    assert tags["fleetprompt/purpose"] == "work off directives"
    assert (tags["fleetprompt/tenants"], tags["fleetprompt/attempts"]) == ("3", "3")
    assert "fleetprompt/not_succeeded" not in tags
    logged = [entry.user_message for entry in bench.instance.all_logs(result.run_id)]
    for tenant, directive_id in zip(tenants, asked, strict=True):
        assert (
            f"| {tenant.slug} | package.install | succeeded | 1 |" in metadata["directives"].value
        )
        assert f"{directive_id}" in metadata["directives"].value
        assert any(f"directive {directive_id}" in line for line in logged)


def test_a_drain_that_cannot_start_fails_its_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no drain today")

    monkeypatch.setattr("fleetprompt.directives.runner.DirectiveRunner.drain", broken)
    assert not bench.execute("drain_directives", _AT_ONCE).success


def test_one_directive_by_id_from_the_launchpad(bench: Bench) -> None:
    tenant = bench.tenant()
    directive_id = _ask(bench, tenant)

    def config(which: UUID) -> dict[str, Any]:
        given = {"tenant": tenant.slug, "directive_id": str(which)}
        return {"ops": {"work_directive": {"config": given}}}

    done = bench.execute("run_directive", config(directive_id))
    assert done.success
    tags = _tags(bench, done)
    assert (tags["fleetprompt/tenant"], tags["fleetprompt/attempts"]) == (tenant.slug, "1")
    assert _state(bench, tenant, directive_id) == "succeeded"
    for which, told in (
        (directive_id, "The directive is succeeded and not due"),
        (new_id(), "There is no directive"),
    ):
        result = bench.execute("run_directive", config(which))
        assert not result.success
        [failure] = [event for event in result.all_events if event.is_step_failure]
        assert told in failure.step_failure_data.error.message


def test_a_stuck_directive_is_found_by_the_check(bench: Bench) -> None:
    tenant = bench.tenant()
    _ask(bench, tenant)

    assert bench.check("no_directive_is_stuck").passed
    _later(bench, 301)
    stuck = bench.check("no_directive_is_stuck")
    assert not stuck.passed
    assert stuck.metadata["due"].value == 1
    assert "drain_directives" in (stuck.description or "")
