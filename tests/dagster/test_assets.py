"""The assets in Dagster's own hands: by hand, several at once, and their checks."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow.parquet as pq

from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.layout import day_file
from fleetprompt_dagster.defs.signals.assets import daily_counts, signals
from tests.dagster.conftest import Bench

YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(
    days=1
)
DAY = YESTERDAY.date()


def test_one_run_of_three_tenants_has_three_events_with_their_own_counts(bench: Bench) -> None:
    """Trap 12: no IO manager pickles several partitions; trap 13: the range is one whole date."""
    tenants = [bench.tenant() for _ in range(3)]
    bench.add_partitions(*tenants)
    for many, tenant in enumerate(tenants, start=1):
        bench.insert(tenant, YESTERDAY, many=many)
    result = dg.materialize(
        [signals, daily_counts],
        instance=bench.instance,
        resources={"platform": bench.platform},
        tags={
            "dagster/asset_partition_range_start": f"{DAY}|{tenants[0].slug}",
            "dagster/asset_partition_range_end": f"{DAY}|{tenants[2].slug}",
        },
    )
    assert result.success
    for asset, name in ((signals, "dagster/row_count"), (daily_counts, "signals")):
        counts = {
            event.partition: event.step_materialization_data.materialization.metadata[name].value
            for event in result.all_events
            if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
            and event.asset_key == asset.key
        }
        assert counts == {f"{DAY}|{tenant.slug}": many for many, tenant in enumerate(tenants, 1)}


def test_one_tenants_day_by_hand_shows_what_operators_need(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.add_partitions(tenant)
    bench.insert(tenant, YESTERDAY, many=2, kind="a.pipe|type")
    result = bench.execute("__ASSET_JOB", partition_key=f"{DAY}|{tenant.slug}")
    assert result.success
    [event] = result.asset_materializations_for_node("signals")
    metadata = event.metadata
    assert metadata["dagster/row_count"].value == 2
    assert metadata["late_rows"].value == 2
    path = day_file(bench.settings.lake, SIGNALS, tenant.slug, DAY)
    assert metadata["bytes"].value == path.stat().st_size
    assert (
        metadata["utc_window"].value
        == f"{DAY}T00:00:00+00:00 to {DAY + timedelta(1)}T00:00:00+00:00"
    )
    assert "a.pipe\\|type" in metadata["top_types"].value
    assert metadata["by_hour"].value.startswith(
        "![signals by UTC hour, 00 to 23; most at 12:00, 2](data:image/png;base64,iVBOR"
    )
    schema = bench.defs.resolve_asset_graph().get(signals.key).metadata["dagster/column_schema"]
    assert [column.name for column in schema.value.columns] == pq.read_schema(path).names
    assert all(column.description for column in schema.value.columns)


def test_failures_and_cost_of_a_day_are_numbers_and_pictures(bench: Bench) -> None:
    """Whatever producers send as a cost, the day is written and shown."""
    tenant = bench.tenant()
    bench.add_partitions(tenant)
    done, failed = "agent.execution.completed", "agent.execution.failed"
    bench.insert(tenant, YESTERDAY, kind=done, data='{"cost_usd": 0.25}', many=3)
    bench.insert(tenant, YESTERDAY.replace(hour=7), kind=failed, data='{"cost_usd": 0.5}', many=2)
    for odd in ("1e308", "-3", "null", '"much"'):
        bench.insert(tenant, YESTERDAY, kind=done, data=f'{{"cost_usd": {odd}}}')
    result = bench.execute("__ASSET_JOB", partition_key=f"{DAY}|{tenant.slug}")
    assert result.success
    metadata = result.asset_materializations_for_node("signals")[0].metadata
    assert metadata["failures"].value == 2
    assert metadata["cost_usd"].value == 1.75
    for name, told in (
        ("failures_by_hour", "failures by UTC hour, 00 to 23; most at 07:00, 2"),
        ("cost_by_hour", "dollars of cost by UTC hour, 00 to 23; most at 07:00, 1"),
    ):
        assert metadata[name].value.startswith(f"![{told}](data:image/png;base64,iVBOR")

    other = bench.tenant()
    bench.add_partitions(other)
    bench.insert(other, YESTERDAY)
    result = bench.execute("__ASSET_JOB", partition_key=f"{DAY}|{other.slug}")
    metadata = result.asset_materializations_for_node("signals")[0].metadata
    assert (metadata["failures"].value, metadata["cost_usd"].value) == (0, 0.0)
    assert not {"failures_by_hour", "cost_by_hour"} & set(metadata)


def test_by_hand_a_bad_partition_fails_the_run_after_the_others_are_written(bench: Bench) -> None:
    """Trap 11, by hand: nothing shows green that was not written."""
    good, gone = bench.tenant(), bench.tenant()
    bench.add_partitions(gone, good)
    bench.insert(good, YESTERDAY)
    bench.sql(
        "UPDATE fleetprompt.organizations SET state = 'deleting' WHERE slug = :slug", slug=gone.slug
    )
    result = dg.materialize(
        [signals],
        instance=bench.instance,
        resources={"platform": bench.platform},
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": f"{DAY}|{gone.slug}",
            "dagster/asset_partition_range_end": f"{DAY}|{good.slug}",
        },
    )
    assert not result.success
    assert result.asset_materializations_for_node("signals") == []
    assert day_file(bench.settings.lake, SIGNALS, good.slug, DAY).exists()
    [failure] = [event for event in result.all_events if event.is_step_failure]
    told = str(failure.step_failure_data.error)
    assert f"{DAY}|{gone.slug}: There is no tenant" in told
    assert good.slug not in told


def _checks(bench: Bench) -> dict[str, dg.AssetCheckEvaluation]:
    result = bench.execute("check_everything")
    assert result.success
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_checks_pass_when_days_are_right_and_say_what_to_do_when_not(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.add_partitions(tenant)
    bench.insert(tenant, YESTERDAY, many=2)
    # A day that waits to be written is no difference.
    assert _checks(bench)["signals_match_postgresql"].passed
    key = f"{DAY}|{tenant.slug}"
    assert bench.execute("__ASSET_JOB", partition_key=key).success
    bench.sql("DELETE FROM fleetprompt.stale_partitions")
    found = _checks(bench)
    assert all(check.passed for check in found.values())

    # Somebody deletes a row behind the platform's back.
    bench.sql(
        "DELETE FROM signals WHERE id = (SELECT id FROM signals LIMIT 1)", schema=tenant.schema
    )
    wrong = _checks(bench)["signals_match_postgresql"]
    assert not wrong.passed
    assert wrong.metadata["different_days"].value == 1
    assert f"| {tenant.slug} | {DAY} | 1 | 2 |" in str(wrong.metadata["sample"].value)
    assert "Materialise" in (wrong.description or "")

    # The advice works.
    assert bench.execute("__ASSET_JOB", partition_key=key).success
    assert _checks(bench)["signals_match_postgresql"].passed


def test_a_missing_file_is_a_difference(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)
    bench.sql("DELETE FROM fleetprompt.stale_partitions")
    wrong = _checks(bench)["signals_match_postgresql"]
    assert not wrong.passed
    assert f"| {tenant.slug} | {DAY} | 1 | no file |" in str(wrong.metadata["sample"].value)


def test_repeated_dedupe_keys_are_found(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY, many=2)
    bench.sql("UPDATE signals SET dedupe_key = 'same'", schema=tenant.schema)
    wrong = _checks(bench)["dedupe_keys_are_unique"]
    assert not wrong.passed
    assert wrong.metadata["repeated_keys"].value == 1


def test_a_secret_that_came_past_ingest_is_found_and_not_told(bench: Bench) -> None:
    """Trap 20: named by its place and shape, as a warning."""
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY, data='{"password_changed": true, "note": "the token ring"}')
    found = _checks(bench)["no_secret_is_found"]
    assert found.passed
    assert found.metadata["signals"].value == 1
    bench.insert(tenant, YESTERDAY, data='{"steps": [{"password": "canary-of-a-secret"}]}')
    wrong = _checks(bench)["no_secret_is_found"]
    assert not wrong.passed
    assert wrong.severity is dg.AssetCheckSeverity.WARN
    assert f"| {tenant.slug} | " in str(wrong.metadata["sample"].value)
    assert "/data/steps/0/password" in str(wrong.metadata["sample"].value)
    assert "canary-of-a-secret" not in bench.stored()


def test_a_day_that_nobody_writes_is_found(bench: Bench) -> None:
    tenant = bench.tenant()
    bench.insert(tenant, YESTERDAY)
    assert _checks(bench)["no_day_stays_stale"].passed
    bench.sql("UPDATE fleetprompt.stale_partitions SET marked_at = now() - interval '20 minutes'")
    wrong = _checks(bench)["no_day_stays_stale"]
    assert not wrong.passed
    assert wrong.metadata["overdue_days"].value == 1
