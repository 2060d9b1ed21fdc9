"""The switch to dates alone, for very many tenants: partitions are dates, their tenants rows of a table."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from fleetprompt.lake.columns import DAILY_COUNTS, SIGNALS
from fleetprompt.lake.layout import day_file
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.settings import get_settings
from fleetprompt.tenants.service import Tenant
from tests.dagster.conftest import Bench

YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(
    days=1
)
DAY = YESTERDAY.date()


def _ours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "fleetprompt_dagster"]


@pytest.fixture
def by_date(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The test's platform with the code location loaded anew, as a process with the setting loads it."""
    before = {name: sys.modules.pop(name) for name in _ours()}
    monkeypatch.setenv("FLEETPROMPT_DAGSTER_GRID", "date")
    get_settings.cache_clear()
    try:
        definitions = import_module("fleetprompt_dagster.definitions")
        bench.defs = definitions.build_defs({"platform": bench.platform})
        yield bench
    finally:
        for name in _ours():
            del sys.modules[name]
        sys.modules.update(before)
        monkeypatch.undo()
        get_settings.cache_clear()


def _materialize(bench: Bench, *assets: str, day: date = DAY) -> Any:
    return dg.materialize(
        [bench.defs.get_assets_def(name) for name in assets],
        instance=bench.instance,
        resources={"platform": bench.platform},
        partition_key=day.isoformat(),
        raise_on_error=False,
    )


def _rows(metadata: Any) -> dict[str, list[str]]:
    lines = str(metadata["by_tenant"].value).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if len(row) > 1}


def _break_folder_of(bench: Bench, tenant: Tenant) -> None:
    """A folder that is a file: this tenant's days cannot be written."""
    assert isinstance(bench.settings.lake, Path)
    broken = bench.settings.lake / "signals" / f"tenant={tenant.slug}"
    broken.parent.mkdir(parents=True)
    broken.touch()


def test_the_grids_are_dates_and_no_number_of_tenants_breaks_their_bound(by_date: Bench) -> None:
    """Trap 10: beyond about 1,500 tenants; and trap 6: a digest still depends on four days."""
    graph = by_date.defs.resolve_asset_graph()
    for name in ("signals", "daily_counts", "conversations", "daily_digest"):
        grid = graph.get(dg.AssetKey(name)).partitions_def
        assert isinstance(grid, dg.DailyPartitionsDefinition), name
        assert len(grid.get_partition_keys()) <= 33
    by_date.tenant()
    tick = by_date.sensor("tenant_partitions")
    assert not tick.dynamic_partitions_requests
    assert "rows of each date" in tick.skip_message
    tenants = {f"t{number:04}": {"rows": dg.MetadataValue.int(number)} for number in range(2_000)}
    found = import_module("fleetprompt_dagster.grid").date_metadata(tenants)
    assert found["tenants"].value == 2_000
    assert found["rows"].value == sum(range(2_000))
    assert found["by_tenant"].value.endswith("and 1500 more")
    assert len(found["by_tenant"].value) < 100_000
    signals, digests = dg.AssetKey("signals"), dg.AssetKey("daily_digest")
    local, utc = graph.get(digests).partitions_def, graph.get(signals).partitions_def
    assert local is not None
    assert utc is not None
    day = datetime.now(UTC).date() - timedelta(days=5)
    upstream = (
        graph.get_partition_mapping(digests, signals)
        .get_upstream_mapped_partitions_result_for_partitions(
            local.subset_with_partition_keys([day.isoformat()]), local, utc
        )
        .partitions_subset
    )
    assert sorted(upstream.get_partition_keys()) == [
        (day + timedelta(days=shift)).isoformat() for shift in (-2, -1, 0, 1)
    ]


def test_a_date_by_hand_is_every_tenants_day(
    by_date: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 11: of very many tenants one that fails does not keep the date from being written."""
    tenants = [by_date.tenant() for _ in range(3)]
    for many, tenant in enumerate(tenants, start=1):
        by_date.insert(tenant, YESTERDAY, many=many)
    _break_folder_of(by_date, tenants[2])
    # More than a tenth of three: nothing shows green that was not written.
    failed = _materialize(by_date, "signals")
    assert not failed.success
    assert failed.asset_materializations_for_node("signals") == []

    monkeypatch.setattr("fleetprompt_dagster.defs.signals.assets.NOT_PROCESSED_LIMIT", 0.4)
    result = _materialize(by_date, "signals")
    assert result.success
    [event] = result.asset_materializations_for_node("signals")
    assert event.partition == DAY.isoformat()
    assert event.metadata["tenants"].value == 2
    assert event.metadata["row_count"].value == 3
    assert "dagster/row_count" not in event.metadata
    rows = _rows(event.metadata)
    assert [rows[tenant.slug][0] for tenant in tenants[:2]] == ["1", "2"]
    assert all(
        day_file(by_date.settings.lake, SIGNALS, one.slug, DAY).exists() for one in tenants[:2]
    )
    assert f"1 of 3 were not written: {DAY}|{tenants[2].slug}" in by_date.stored()


def test_changed_days_of_many_tenants_are_one_event_a_date(by_date: Bench) -> None:
    tenants = [by_date.tenant() for _ in range(3)]
    for tenant in tenants:
        by_date.insert(tenant, YESTERDAY, many=2)
        by_date.insert(tenant, YESTERDAY - timedelta(days=1))
    days = [
        {"tenant": tenant.slug, "day": str(DAY - timedelta(days=ago))}
        for tenant in tenants
        for ago in (0, 1)
    ]
    config = {"ops": {"rebuild_tenant_days": {"config": {"days": days}}}}
    assert by_date.execute("rebuild_stale_days", config).success
    key = dg.AssetKey("signals")
    both = {str(DAY), str(DAY - timedelta(days=1))}
    assert by_date.instance.get_materialized_partitions(key) == both
    records = by_date.instance.fetch_materializations(key, limit=10).records
    assert len(records) == 2
    latest = {one.partition_key: one.asset_materialization for one in records}[str(DAY)]
    assert latest is not None
    assert latest.metadata["row_count"].value == 6
    assert set(_rows(latest.metadata)) >= {tenant.slug for tenant in tenants}
    assert by_date.sql("SELECT 1 FROM fleetprompt.stale_partitions") == []
    assert all(
        day_file(by_date.settings.lake, DAILY_COUNTS, one.slug, DAY).exists() for one in tenants
    )


def test_partitions_of_the_grid_before_do_not_disturb(by_date: Bench) -> None:
    """The switch is one setting: what was told by tenant and day stays in the log and counts for nothing."""
    key = dg.AssetKey("signals")
    by_date.instance.report_runless_asset_event(
        dg.AssetMaterialization(key, partition=f"{DAY}|acme")
    )
    by_date.tenant()
    assert _materialize(by_date, "signals").success
    grid = by_date.defs.resolve_asset_graph().get(key).partitions_def
    with dg.partition_loading_context(dynamic_partitions_store=by_date.instance):
        cached = get_and_update_asset_status_cache_value(by_date.instance, key, grid)
    assert cached is not None
    assert grid is not None
    shown = cached.deserialize_materialized_partition_subsets(grid)
    assert set(shown.get_partition_keys()) == {str(DAY)}


def test_digests_of_a_date_are_rows_with_their_windows_and_states(by_date: Bench) -> None:
    records = import_module("fleetprompt_dagster.defs.digests.records")
    grid = import_module("fleetprompt_dagster.grid")
    start = datetime(2026, 3, 7, 8, tzinfo=UTC)

    def record(tenant: str, state: str, zone: str) -> Any:
        slot = ScheduleSlot(
            tenant_schema=f"org_{tenant}",
            installation_id=uuid4(),
            local_date=date(2026, 3, 8),
            zone=zone,
            state=state,
            due_at=start + timedelta(days=1),
            settled_at=start + timedelta(days=1, seconds=3),
            window_start=start,
            window_end=start + timedelta(days=1),
        )
        kept = {"text": "canary\nlines", "line_count": 2, "counts": {}, "ledger_state": "posted"}
        return records.DigestRecord(tenant, slot, f"digest:{tenant}", None, None, kept)

    events = records.digest_events(
        [
            record("acme", "done", "Europe/Berlin"),
            record("bay", "done", "America/New_York"),
            record("cove", "failed", "Asia/Tokyo"),
        ],
        by_date.settings,
    )
    posted, failed = grid.dates_together(events)
    assert isinstance(posted, dg.AssetMaterialization)
    assert posted.partition == failed.partition == "2026-03-08"
    assert posted.metadata["tenants"].value == 2
    assert posted.metadata["lines"].value == 4
    assert posted.metadata["state"].value == "done"
    assert "canary" not in str(posted.metadata["by_tenant"].value)
    assert "Europe/Berlin" in _rows(posted.metadata)["acme"]
    assert any(
        cell.endswith("/console/timeline/digest%3Abay") for cell in _rows(posted.metadata)["bay"]
    )
    assert isinstance(failed, dg.AssetObservation)
    assert failed.metadata["tenants"].value == 1
