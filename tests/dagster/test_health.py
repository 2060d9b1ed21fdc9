"""Vital signs, and operators who are told once of what fails."""

import json
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.health.vitals import look
from fleetprompt_dagster.defs.health.episodes import (
    AGAIN_AFTER_SECONDS,
    Seen,
    follow,
    read_episodes,
    write_episodes,
)
from tests.dagster.conftest import Bench


def failure(at: float) -> Seen:
    return Seen("job:send_digests", False, at, "Run 1", "docs/x.md")


def success(at: float) -> Seen:
    return Seen("job:send_digests", True, at, "", "docs/x.md")


def test_what_fails_every_minute_is_told_at_its_beginning_every_six_hours_and_at_its_end() -> None:
    episodes, told = read_episodes(None), []
    for minute in range(24 * 60):
        at = minute * 60.0
        episodes, alerts = follow(episodes, [failure(at)], at)
        assert read_episodes(json.loads(json.dumps(write_episodes(episodes)))) == episodes
        told += alerts
    episodes, alerts = follow(episodes, [success(90_000.0)], 90_000.0)
    assert episodes == {}
    texts = [one.text for one in [*told, *alerts]]
    assert len(texts) == 24 * 3600 / AGAIN_AFTER_SECONDS + 1
    assert "docs/x.md" in texts[0]
    assert "failed 361 times" in texts[1]
    assert "well again after 1440 failures" in texts[-1]
    assert len({one.key for one in [*told, *alerts]}) == len(texts)


def test_the_same_look_again_asks_for_the_same_alerts() -> None:
    first = follow({}, [failure(10.0)], 40.0)[1]
    again = follow({}, [failure(10.0)], 75.0)[1]
    assert [one.key for one in first] == [one.key for one in again]


def test_success_alone_is_never_told() -> None:
    assert follow({}, [success(1.0), success(2.0)], 3.0) == ({}, [])
    # What began and ended between two looks either.
    assert follow({}, [failure(1.0), success(2.0)], 3.0) == ({}, [])


@pytest.fixture
def operations(bench: Bench) -> Any:
    tenant = bench.tenant()
    bench.settings = bench.settings.model_copy(update={"operations_tenant": tenant.slug})
    return tenant


def alerts_of(bench: Bench, tenant: Any) -> list[str]:
    rows = bench.sql(
        "SELECT params ->> 'subject' || ' ' || (params ->> 'text') AS told FROM directives"
        " WHERE type = 'operations.alert' ORDER BY id",
        schema=tenant.schema,
    )
    return [row.told for row in rows]


def test_a_burst_of_failures_is_one_alert_in_one_look(bench: Bench, operations: Any) -> None:
    """Trap 16: 200 failures are seen in one tick, not five at a time."""
    job = bench.defs.resolve_job_def("keep_house")
    for _ in range(200):
        run = bench.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        bench.instance.add_run_tags(run.run_id, {"n": "1"})
        bench.instance.run_storage.handle_run_event(
            run.run_id,
            dg.DagsterEvent("PIPELINE_FAILURE", "keep_house", message="x"),
            system_clock(),
        )
    tick = bench.sensor("operators")
    [told] = alerts_of(bench, operations)
    assert told.startswith("job:keep_house :warning: **job:keep_house** fails.")
    assert "docs/operator/runbooks/failed_runs.md" in told
    assert "1 alerts were asked for" in tick.skip_message
    # A tick that could not keep its cursor asks again, and there is still one.
    bench.sensor("operators")
    assert len(alerts_of(bench, operations)) == 1
    assert bench.execute(
        "keep_house", {"ops": {"apply_every_retention": {"config": {"rest": 0.0}}}}
    ).success
    bench.sensor("operators", tick.cursor)
    assert "is well again after 200 failures" in alerts_of(bench, operations)[-1]


def test_a_check_that_fails_is_told_with_its_recovery_and_vitals_are_on_the_asset(
    bench: Bench, operations: Any
) -> None:
    first = bench.sensor("operators")
    assert alerts_of(bench, operations) == []
    day = system_clock() - timedelta(days=1)
    bench.run(lambda database: _mark(database, operations.schema, day))
    assert not bench.check("no_day_stays_stale").passed
    second = bench.sensor("operators", first.cursor)
    told = alerts_of(bench, operations)
    assert any("check:no_day_stays_stale" in one and "stale_days" in one for one in told)
    assert any("runbooks/platform_is_well.md" in one for one in told)
    latest = bench.instance.get_latest_materialization_event(dg.AssetKey("platform_health"))
    assert latest is not None
    assert latest.asset_materialization is not None
    metadata = latest.asset_materialization.metadata
    assert float(str(metadata["oldest_stale_day"].value)) > 80_000
    assert "NOT WELL" in str(metadata["vitals"].value)
    # Nothing has changed: nothing more is told.
    bench.sensor("operators", second.cursor)
    assert alerts_of(bench, operations) == told
    # Nobody writes the days of a tenant that is being deleted, and nobody has to.
    bench.sql(
        "UPDATE fleetprompt.organizations SET state = 'deleting' WHERE slug = :slug",
        slug=operations.slug,
    )
    signs = {one.name: one.value for one in bench.run(look)}
    assert signs["oldest_stale_day"] == 0


async def _mark(database: Any, schema: str, day: Any) -> None:
    async with database.platform() as session:
        await session.execute(
            text(
                "INSERT INTO fleetprompt.stale_partitions (tenant_schema, day, marked_at)"
                " VALUES (:schema, CAST(:day AS timestamptz)::date, :day)"
            ),
            {"schema": schema, "day": day},
        )
