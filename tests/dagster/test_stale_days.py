"""Days that change are written again: batched, retried, never lost, and not for ever."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from sqlalchemy.exc import DBAPIError

from fleetprompt.clock import system_clock
from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.layout import day_file
from fleetprompt.lake.rebuild import describe
from fleetprompt.tenants.service import Tenant
from fleetprompt_dagster.runs import op_config
from tests.dagster.conftest import Bench

YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(
    days=1
)


def _later(bench: Bench, seconds: float) -> None:
    bench.now = lambda: system_clock() + timedelta(seconds=seconds)


def _run(bench: Bench, request: dg.RunRequest) -> Any:
    return bench.execute("rebuild_stale_days", request.run_config)


def _config(*days: tuple[str, date]) -> dict[str, object]:
    return {
        "ops": {
            "rebuild_tenant_days": {
                "config": {"days": [{"tenant": slug, "day": str(day)} for slug, day in days]}
            }
        }
    }


def _events(bench: Bench, result: Any, asset: str) -> dict[str, dg.AssetMaterialization]:
    """What Dagster keeps of the run's materialisations of this asset."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    entries = bench.instance.all_logs(result.run_id, of_type=kind)
    events = [entry.get_dagster_event() for entry in entries]
    return {
        event.partition: event.step_materialization_data.materialization
        for event in events
        if event.asset_key == dg.AssetKey(asset) and event.partition
    }


def test_a_changed_day_is_written_again_and_its_marks_are_gone(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY, many=3)
    assert bench.sensor("stale_days").run_requests == []
    _later(bench, 30)
    tick = bench.sensor("stale_days")
    [request] = tick.run_requests
    assert (
        request.tags.items() >= {"fleetprompt/tenant": tenant.slug, "fleetprompt/days": "1"}.items()
    )
    result = _run(bench, request)
    assert result.success
    key = f"{YESTERDAY.date()}|{tenant.slug}"
    assert _events(bench, result, "signals")[key].metadata["dagster/row_count"].value == 3
    assert _events(bench, result, "daily_counts")[key].metadata["signals"].value == 3
    assert bench.sensor("stale_days", tick.cursor).run_requests == []
    assert bench.sql("SELECT FROM fleetprompt.stale_partitions") == []

    # A late one comes: the day is written again, and says how many came after it had ended.
    bench.insert(tenant, YESTERDAY)
    tick = bench.sensor("stale_days", tick.cursor)
    [again] = tick.run_requests
    assert again.run_key != request.run_key
    result = _run(bench, again)
    metadata = _events(bench, result, "signals")[key].metadata
    assert metadata["dagster/row_count"].value == 4
    assert metadata["late_rows"].value == 4
    path = day_file(bench.settings.lake, SIGNALS, tenant.slug, YESTERDAY.date())
    assert pq.read_metadata(path).num_rows == 4


def test_a_thousand_stale_tenants_are_at_most_eight_runs(bench: Bench) -> None:
    """Trap 3."""
    bench.sql(
        "INSERT INTO fleetprompt.organizations (id, slug, name, schema_name)"
        " SELECT gen_random_uuid(), 'many-' || n, 'many', 'org_many-' || n FROM generate_series(1, 1000) n"
    )
    try:
        bench.sql(
            "INSERT INTO fleetprompt.stale_partitions (tenant_schema, day)"
            " SELECT 'org_many-' || n, current_date - 1 FROM generate_series(1, 1000) n"
        )
        _later(bench, 30)
        tick = bench.sensor("stale_days")
    finally:
        bench.sql("DELETE FROM fleetprompt.organizations WHERE slug LIKE 'many-%'")
    assert len(tick.run_requests) == 4
    asked = [
        each["tenant"]
        for request in tick.run_requests
        for each in request.run_config["ops"]["rebuild_tenant_days"]["config"]["days"]
    ]
    assert len(set(asked)) == len(asked) == 1000
    assert sum(len(json.dumps(request.run_config)) for request in tick.run_requests) < 256 * 1024
    assert len(tick.cursor) < 64 * 1024


def test_a_failed_batch_is_asked_for_again_with_another_key(bench: Bench) -> None:
    """Trap 4: a used key is spent for ever. And the same state twice makes no second request."""
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)
    _later(bench, 30)
    first = bench.sensor("stale_days")
    [request] = first.run_requests
    # The run is asked for but has not started: nothing more is asked for.
    assert bench.sensor("stale_days", first.cursor).run_requests == []

    folder = Path(str(bench.settings.lake)) / "signals"
    folder.parent.mkdir()
    folder.write_text("in the way")
    assert not _run(bench, request).success
    assert len(bench.sql("SELECT FROM fleetprompt.stale_partitions")) == 1

    _later(bench, 100)
    assert bench.sensor("stale_days", first.cursor).run_requests == []
    _later(bench, 160)
    second = bench.sensor("stale_days", first.cursor)
    [again] = second.run_requests
    assert again.run_key != request.run_key
    assert again.run_config == request.run_config
    # Twice as long after the second time.
    _later(bench, 160 + 130)
    assert bench.sensor("stale_days", second.cursor).run_requests == []

    folder.unlink()
    assert _run(bench, again).success
    assert bench.sql("SELECT FROM fleetprompt.stale_partitions") == []


def test_days_of_a_live_run_are_not_asked_for_again(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)
    _later(bench, 30)
    job = bench.defs.resolve_job_def("rebuild_stale_days")
    run = bench.instance.create_run_for_job(
        job,
        run_config=_config((tenant.slug, YESTERDAY.date())),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert op_config(run, "rebuild_tenant_days")["days"]
    assert bench.sensor("stale_days").run_requests == []
    bench.instance.report_run_failed(run)
    assert len(bench.sensor("stale_days").run_requests) == 1


def test_the_sensor_writes_nothing(bench: Bench) -> None:
    """Trap 5."""
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)
    _later(bench, 30)
    before = bench.sql("SELECT * FROM fleetprompt.stale_partitions")
    writes = (
        "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_all_tables"
        " WHERE schemaname = 'fleetprompt' OR schemaname LIKE 'org_%'"
    )
    bench.sql("SELECT pg_stat_force_next_flush()")
    written = bench.sql(writes)
    assert len(bench.sensor("stale_days").run_requests) == 1
    bench.sql("SELECT pg_stat_force_next_flush()")
    assert bench.sql(writes) == written
    assert bench.sql("SELECT * FROM fleetprompt.stale_partitions") == before


def _tenants(bench: Bench, many: int) -> list[Tenant]:
    return [bench.tenant() for _ in range(many)]


def _break(bench: Bench, tenant: Tenant) -> None:
    """Make this tenant's signals unreadable, and nobody else's."""
    folder = Path(str(bench.settings.lake)) / "signals"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"tenant={tenant.slug}").write_text("in the way")


def test_one_bad_tenant_does_not_poison_a_batch(bench: Bench) -> None:
    """Trap 11: below the threshold the run succeeds, the others are written, the bad one stays stale."""
    tenants = _tenants(bench, 11)
    for tenant in tenants:
        bench.insert(tenant, YESTERDAY)
    bad = tenants[4]
    _break(bench, bad)
    days = [(tenant.slug, YESTERDAY.date()) for tenant in tenants]
    result = bench.execute("rebuild_stale_days", _config(*days))
    assert result.success
    assert len(_events(bench, result, "signals")) == 10
    marks = bench.sql("SELECT tenant_schema FROM fleetprompt.stale_partitions")
    assert [row.tenant_schema for row in marks] == [bad.schema]
    [output] = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    assert metadata["not_processed"].value == 1
    assert bad.slug in metadata["failures"].value


def test_above_the_threshold_the_run_fails_and_the_others_are_still_written(bench: Bench) -> None:
    """Trap 11."""
    good, bad = _tenants(bench, 2)
    for tenant in (good, bad):
        bench.insert(tenant, YESTERDAY)
    _break(bench, bad)
    days = [(tenant.slug, YESTERDAY.date()) for tenant in (bad, good)]
    result = bench.execute("rebuild_stale_days", _config(*days))
    assert not result.success
    assert list(_events(bench, result, "signals")) == [f"{YESTERDAY.date()}|{good.slug}"]
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.metadata["not_processed"].value == 1


def test_a_run_that_dies_before_it_told_the_grid_leaves_the_marks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 5: a day is written, its event is not yet stored, the process dies."""
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)

    def die(*_: object, **__: object) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patched:
        patched.setattr("fleetprompt_dagster.defs.signals.jobs.signals_metadata", die)
        days = _config((tenant.slug, YESTERDAY.date()))
        assert not bench.execute("rebuild_stale_days", days).success
    assert day_file(bench.settings.lake, SIGNALS, tenant.slug, YESTERDAY.date()).exists()
    assert len(bench.sql("SELECT FROM fleetprompt.stale_partitions")) == 1
    _later(bench, 30)
    [request] = bench.sensor("stale_days").run_requests
    assert _run(bench, request).success
    assert bench.sql("SELECT FROM fleetprompt.stale_partitions") == []


def test_a_deleted_tenants_marks_make_no_runs(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)
    bench.sql(
        "UPDATE fleetprompt.organizations SET state = 'deleting' WHERE slug = :slug",
        slug=tenant.slug,
    )
    _later(bench, 30)
    assert bench.sensor("stale_days").run_requests == []


def test_no_content_of_a_signal_reaches_dagster(bench: Bench) -> None:
    """Trap 20: not by the batch, not by hand, not by the checks."""
    canary = "canary-7f3b-do-not-tell"
    tenant = bench.tenant()
    bench.add_partitions(tenant)
    bench.insert(tenant, YESTERDAY, data=json.dumps({"text": canary, "nested": [canary]}))
    days = _config((tenant.slug, YESTERDAY.date()))
    assert bench.execute("rebuild_stale_days", days).success
    key = f"{YESTERDAY.date()}|{tenant.slug}"
    assert bench.execute("__ASSET_JOB", partition_key=key).success
    assert bench.execute("check_everything").success
    stored = bench.stored()
    assert "dagster/row_count" in stored
    assert canary not in stored
    path = day_file(bench.settings.lake, SIGNALS, tenant.slug, YESTERDAY.date())
    assert canary in pq.read_table(path, partitioning=None)["data"].to_pylist()[0]


def test_errors_are_told_without_what_they_carry() -> None:
    """Trap 20: drivers put statements, params and rows into their messages."""
    error = DBAPIError("SELECT 1", {"body": "canary"}, Exception("canary in a row"))
    for one in (error, ValueError("canary"), OSError(28, "No space left on device", "/canary")):
        assert "canary" not in describe(one)
    assert "No space left" in describe(OSError(28, "No space left on device"))
