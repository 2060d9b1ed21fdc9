"""The nightly job: what is due goes, and Dagster forgets only what nobody looks at."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqlEventLogStorage
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.retention.service import apply_retention
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.runtime.environment import (
    ensure_dagster_database,
    environment,
    prepare_dagster_home,
)
from fleetprompt.settings import Settings
from fleetprompt_dagster.defs.maintenance.pruning import Pruned, prune
from tests.dagster.conftest import Bench


def test_the_job_removes_what_is_due_and_tells_it(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.add_partitions(tenant)
    today = datetime.now(UTC).date()
    bench.insert(tenant, system_clock(), many=3)
    days = [{"tenant": tenant.slug, "day": today.isoformat()}]
    config = {"ops": {"rebuild_tenant_days": {"config": {"days": days}}}}
    assert bench.execute("rebuild_stale_days", config).success
    bench.now = lambda: system_clock() + timedelta(days=40)
    fast = {"ops": {"apply_every_retention": {"config": {"rest": 0.0}}}}

    result = bench.execute("keep_house", fast)

    assert result.success
    told = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    assert told["retention"]["signals"].value == 3
    assert tenant.slug in told["retention"]["by_tenant"].value
    assert told["table_sizes"]["bytes"].value > 0
    assert "signal_keys" in told["table_sizes"]["largest"].value
    assert bench.sql("SELECT FROM signals", schema=tenant.schema) == []
    assert len(bench.sql("SELECT FROM lake_days", schema=tenant.schema)) == 1


def test_one_tenant_that_fails_does_not_stop_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 11."""
    tenants = [bench.tenant() for _ in range(10)]
    seen: list[str] = []

    async def failing(database: object, settings: object, tenant: object, *rest: object) -> object:
        seen.append(tenant.slug)  # type: ignore[attr-defined]
        if tenant.slug in bad:  # type: ignore[attr-defined]
            raise OSError("disk")
        return await apply_retention(database, settings, tenant, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(
        "fleetprompt_dagster.defs.maintenance.housekeeping.apply_retention", failing
    )
    bad = {tenants[3].slug}
    assert bench.execute("keep_house").success
    assert len(seen) == 10
    bad.add(tenants[4].slug)
    assert not bench.execute("keep_house").success
    assert len(seen) == 20


@pytest.fixture
def instance(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Dagster on PostgreSQL, as it is shipped."""
    settings = Settings(state_dir=tmp_path)
    ensure_dagster_database(postgres.owner_url, settings)
    for name, value in environment(settings, postgres.owner_url).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(settings))) as loaded:
        yield loaded


def test_trap_22_old_events_go_and_partitions_stay_materialized(
    instance: dg.DagsterInstance,
) -> None:
    now = datetime.now(UTC)
    today = now.date()
    key = dg.AssetKey("days")

    @dg.op(out=dg.Out(dg.Nothing))
    def write(context: dg.OpExecutionContext) -> None:
        for ago in (0, 5, 29, 45):
            context.log_event(
                dg.AssetMaterialization(key, partition=f"{today - timedelta(days=ago)}|acme")
            )
        context.log.info("wrote")

    @dg.job
    def rewrite() -> None:
        write()

    @dg.job
    def idle() -> None:
        @dg.op
        def nothing() -> None: ...

        nothing()

    runs = [rewrite.execute_in_process(instance=instance).run_id for _ in range(3)]
    forgotten = idle.execute_in_process(instance=instance).run_id
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)

    def events() -> int:
        with storage.index_connection() as connection:
            return int(connection.execute(text("SELECT count(*) FROM event_logs")).scalar_one())

    before = events()
    assert prune(instance, now, grid_days=31) == Pruned()
    assert events() == before

    # Twelve materializations of four partitions; the last of each that is in the grid stays.
    later = now + timedelta(days=36)
    pruned = prune(instance, later, grid_days=66)
    assert pruned.replaced == 8
    assert pruned.runs == 3
    assert pruned.events >= 4 * 8
    shown = instance.get_materialized_partitions(key)
    assert shown == {f"{today - timedelta(days=ago)}|acme" for ago in (0, 5, 29, 45)}
    assert instance.get_run_by_id(forgotten) is None
    assert [run for run in runs if instance.get_run_by_id(run)] == [runs[-1]]
    # Days that have left the grid go with their events.
    assert prune(instance, later, grid_days=35) == Pruned(events=3)
    assert instance.get_materialized_partitions(key) == {f"{today}|acme"}
    # The last one goes with its run.
    assert prune(instance, later, grid_days=1) == Pruned(events=1, runs=1)
    assert instance.get_runs() == []
