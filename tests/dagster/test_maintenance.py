"""The grid's tenants, and the platform's runs as signals that do not feed themselves."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fleetprompt.clock import system_clock
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.tenants.service import Tenant
from fleetprompt_dagster import partitions
from fleetprompt_dagster.defs.maintenance.workflow_runs import MOST_AT_ONCE
from tests.dagster.conftest import Bench


def _apply(bench: Bench, requests: list[Any]) -> None:
    """What the daemon does with a tick's answer."""
    for request in requests:
        if isinstance(request, dg.AddDynamicPartitionsRequest):
            bench.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
        else:
            for key in request.partition_keys:
                bench.instance.delete_dynamic_partition(request.partitions_def_name, key)


def test_tenants_come_and_go_with_their_organizations(bench: Bench) -> None:
    one, other = bench.tenant(), bench.tenant()
    bench.add_partitions(Tenant(one.id, "long-gone", "org_long-gone"))
    _apply(bench, list(bench.sensor("tenant_partitions").dynamic_partitions_requests))
    assert set(bench.instance.get_dynamic_partitions("tenants")) == {one.slug, other.slug}
    assert "All 2 tenants" in bench.sensor("tenant_partitions").skip_message

    bench.sql(
        "UPDATE fleetprompt.organizations SET state = 'deleting' WHERE slug = :slug", slug=one.slug
    )
    _apply(bench, list(bench.sensor("tenant_partitions").dynamic_partitions_requests))
    assert bench.instance.get_dynamic_partitions("tenants") == [other.slug]


def test_every_tenant_that_may_exist_is_in_the_grid(bench: Bench) -> None:
    """Trap 9: a key with ``|`` would vanish; slugs cannot hold one, and all others appear."""
    tenants = [bench.tenant(slug) for slug in ("a", "0", "a-b-c", "x" * 48)]
    _apply(bench, list(bench.sensor("tenant_partitions").dynamic_partitions_requests))
    today = datetime.now(UTC).date()
    with dg.partition_loading_context(dynamic_partitions_store=bench.instance):
        keys = set(partitions.utc_days.get_partition_keys())
    assert {f"{today}|{tenant.slug}" for tenant in tenants} <= keys
    assert len(keys) == partitions.DAYS * 4


def test_the_grid_never_grows_beyond_its_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 10."""
    for _ in range(3):
        bench.tenant()
    monkeypatch.setattr("fleetprompt_dagster.partitions.MOST_PARTITIONS", 2 * (partitions.DAYS + 2))
    tick = bench.sensor("tenant_partitions")
    [request] = tick.dynamic_partitions_requests
    assert len(request.partition_keys) == 2
    # The grid's first day is that of its loading: a process that runs for long has more and more days.
    loaded = system_clock()
    bench.now = lambda: loaded + timedelta(days=partitions.DAYS)
    [request] = bench.sensor("tenant_partitions").dynamic_partitions_requests
    assert len(request.partition_keys) == 1


def _signals(bench: Bench, tenant: Tenant) -> list[Any]:
    return bench.sql(
        "SELECT type, data, subject_id, dedupe_key FROM signals"
        " WHERE type LIKE 'workflow.run.%' ORDER BY occurred_at, type",
        schema=tenant.schema,
    )


def _operations(bench: Bench) -> Tenant:
    """The operator's own tenant of this test."""
    tenant = bench.tenant()
    bench.settings = bench.settings.model_copy(update={"operations_tenant": tenant.slug})
    return tenant


def test_runs_become_signals_once(bench: Bench) -> None:
    operations = _operations(bench)
    result = bench.execute("check_everything")
    tick = bench.sensor("workflow_run_signals")
    assert "Told 2 of 2" in tick.skip_message
    # A tick that could not store its cursor tells again; nothing is doubled.
    bench.sensor("workflow_run_signals")
    started, completed = _signals(bench, operations)
    assert started.type == "workflow.run.started"
    assert completed.type == "workflow.run.completed"
    assert completed.subject_id == result.run_id
    assert completed.dedupe_key == f"workflow_run:{result.run_id}:completed"
    assert completed.data["job"] == "check_everything"
    assert completed.data["failed_steps"] == 0
    assert completed.data["duration_seconds"] >= 0
    # The cursor moves on.
    assert "Told 0 of 0" in bench.sensor("workflow_run_signals", tick.cursor).skip_message


def test_a_failed_run_is_told_even_of_quiet_upkeep(bench: Bench) -> None:
    operations = _operations(bench)
    days = [{"tenant": "nobody", "day": "2026-03-08"}]
    config = {"ops": {"rebuild_tenant_days": {"config": {"days": days}}}}
    assert not bench.execute("rebuild_stale_days", config).success
    bench.sensor("workflow_run_signals")
    [failed] = _signals(bench, operations)
    assert failed.type == "workflow.run.failed"
    assert (failed.data["job"], failed.data["failed_steps"]) == ("rebuild_stale_days", 1)


def test_partitions_are_counted(bench: Bench) -> None:
    operations = _operations(bench)
    bench.add_partitions(operations)
    today = datetime.now(UTC).date()
    assert bench.execute("__ASSET_JOB", partition_key=f"{today}|{operations.slug}").success
    bench.sensor("workflow_run_signals")
    completed = _signals(bench, operations)[-1]
    # signals, daily_counts and conversations
    assert completed.data["partitions"] == 3


def test_without_an_operations_tenant_nothing_happens_and_it_says_so(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"operations_tenant": "nobody"})
    bench.execute("check_everything")
    message = bench.sensor("workflow_run_signals").skip_message
    assert "There is no tenant 'nobody'" in message
    assert "fleetprompt tenants create nobody" in message


def test_a_tick_without_a_database_keeps_its_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = _operations(bench)
    first = bench.sensor("workflow_run_signals")
    bench.execute("check_everything")

    async def away(*_: object) -> None:
        raise DatabaseUnavailableError

    with monkeypatch.context() as patched:
        patched.setattr("fleetprompt_dagster.defs.maintenance.sensors.tell", away)
        with pytest.raises(DatabaseUnavailableError):
            bench.sensor("workflow_run_signals", first.cursor)
    bench.sensor("workflow_run_signals", first.cursor)
    assert len(_signals(bench, operations)) == 2


def test_a_burst_of_failures_is_told_in_one_tick(bench: Bench) -> None:
    """Trap 16: Dagster's own run-status sensors take five runs a tick and fall days behind."""
    assert MOST_AT_ONCE >= 200
    operations = _operations(bench)
    job = bench.defs.resolve_job_def("check_everything")
    for _ in range(30):
        run = bench.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        bench.instance.report_run_failed(run)
    bench.sensor("workflow_run_signals")
    assert len(_signals(bench, operations)) == 30


def test_signals_of_runs_do_not_feed_themselves(bench: Bench) -> None:
    """A run is told, which makes a day stale, which makes a run … and there it ends."""
    operations = _operations(bench)
    assert bench.execute("check_everything").success
    cursors: dict[str, str | None] = {"stale_days": None, "workflow_run_signals": None}
    now = system_clock()
    runs_by_round = []
    for minute in range(0, 40, 4):
        now_here = now + timedelta(minutes=minute)
        bench.now = lambda at=now_here: at  # type: ignore[misc]
        started = 0
        for name in ("workflow_run_signals", "stale_days"):
            tick = bench.sensor(name, cursors[name])
            cursors[name] = tick.cursor
            for request in tick.run_requests or ():
                started += 1
                assert bench.execute(
                    "rebuild_stale_days", request.run_config, tags=request.tags
                ).success
        runs_by_round.append(started)
    # One rebuild of the operations tenant's day, after it has settled, and then quiet for good.
    assert sum(runs_by_round) == 1
    assert runs_by_round[-5:] == [0] * 5
    assert len(_signals(bench, operations)) == 2
    assert bench.sql("SELECT FROM fleetprompt.stale_partitions") == []


def test_a_rebuild_that_always_fails_is_tried_less_and_less_often(bench: Bench) -> None:
    """Its failures are told, so its own tenant's day stays stale: the wait must grow."""
    operations = _operations(bench)
    assert bench.execute("check_everything").success
    folder = Path(str(bench.settings.lake)) / "signals"
    folder.mkdir(parents=True)
    (folder / f"tenant={operations.slug}").write_text("in the way")
    cursors: dict[str, str | None] = {"stale_days": None, "workflow_run_signals": None}
    now = system_clock()
    started = []
    for minute in range(0, 6 * 60, 4):
        at = now + timedelta(minutes=minute)
        bench.now = lambda at=at: at  # type: ignore[misc]
        for name in ("workflow_run_signals", "stale_days"):
            tick = bench.sensor(name, cursors[name])
            cursors[name] = tick.cursor
            for request in tick.run_requests or ():
                started.append(minute)
                assert not bench.execute("rebuild_stale_days", request.run_config).success
    gaps = [later - earlier for earlier, later in pairwise(started)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 60
    assert len(started) <= 11
    assert len(json.dumps(cursors)) < 2_000
