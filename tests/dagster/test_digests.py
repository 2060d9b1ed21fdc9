"""Digests by the minute's schedule: batched, sent once, recorded, and never lost."""

import json
import os
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.tenants.service import Tenant
from fleetprompt_dagster.defs.digests.schedules import slots_a_run
from tests.dagster.conftest import Bench
from tests.doubles.mattermost import RunningMattermost, running_mattermost
from tests.packages.installed import Platform, connected

DIGEST = dg.AssetKey("daily_digest")


def _install(bench: Bench, mattermost: RunningMattermost) -> tuple[Tenant, ScheduleSlot]:
    """A tenant with a connected digest, and its next slot; the clock stands half a minute after it."""
    tenant = bench.tenant()

    async def work(database: Database) -> ScheduleSlot:
        platform = Platform(database, bench.settings, tenant)
        await connected(platform, mattermost, timezone="Asia/Kolkata", schedule_time="09:00")
        return (await platform.slots())[0]

    slot = bench.run(work)
    _at(bench, slot.due_at + timedelta(seconds=30))
    return tenant, slot


def _at(bench: Bench, instant: datetime) -> None:
    bench.now = lambda: instant


def _told(bench: Bench, result: Any, kind: dg.DagsterEventType) -> list[Any]:
    """What Dagster keeps of the run's events of this kind about digests."""
    entries = bench.instance.all_logs(result.run_id, of_type=kind)
    events = [entry.get_dagster_event() for entry in entries]
    return [event for event in events if event.asset_key == DIGEST]


def _digests(bench: Bench, result: Any) -> list[dg.AssetMaterialization]:
    return [
        event.step_materialization_data.materialization
        for event in _told(bench, result, dg.DagsterEventType.ASSET_MATERIALIZATION)
    ]


def _state(bench: Bench, tenant: Tenant, slot: ScheduleSlot) -> str:
    [row] = bench.sql(
        "SELECT state FROM fleetprompt.schedule_slots WHERE local_date = :day",
        schema=tenant.schema,
        day=slot.local_date,
    )
    return str(row.state)


def test_a_due_digest_is_sent_and_shown_with_its_exact_window(
    bench: Bench, mattermost: RunningMattermost
) -> None:
    tenant, slot = _install(bench, mattermost)
    _at(bench, slot.due_at - timedelta(seconds=1))
    assert not bench.schedule("due_digests").run_requests
    _at(bench, slot.due_at + timedelta(seconds=30))
    [request] = bench.schedule("due_digests").run_requests
    result = bench.execute("send_digests", request.run_config)
    assert result.success
    assert len(mattermost.posts) == 1
    [digest] = _digests(bench, result)
    assert digest.partition == f"{slot.local_date}|{tenant.slug}"
    metadata = digest.metadata
    assert metadata["digest"].value == mattermost.posts[0].message
    assert metadata["utc_window"].value == (
        f"{slot.window_start.isoformat()} to {slot.window_end.isoformat()}"
    )
    assert (metadata["zone"].value, metadata["window_hours"].value) == ("Asia/Kolkata", 24.0)
    assert len(str(metadata["sha256"].value)) == 64
    assert result.run_id in str(metadata["run"].value)
    assert str(metadata["correlation_id"].value).startswith("digest:")
    assert "/console/timeline/digest%3A" in str(metadata["timeline"].value)
    assert _state(bench, tenant, slot) == "done"
    assert not bench.schedule("due_digests").run_requests
    # Trap 20: the webhook's URL is a secret.
    assert mattermost.state.hook_id not in bench.stored()

    # The same run again sends nothing twice.
    assert bench.execute("send_digests", request.run_config).success
    assert len(mattermost.posts) == 1


@pytest.mark.parametrize(
    ("slots", "cores", "each"),
    [(1, 2, 125), (300, 2, 150), (1000, 1, 500), (1000, 2, 500), (1000, 4, 250), (1000, 64, 125)],
)
def test_there_are_as_many_runs_as_cores_that_have_enough_to_do(
    slots: int, cores: int, each: int
) -> None:
    assert slots_a_run(slots, cores) == each


def test_a_thousand_due_tenants_are_at_most_eight_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 3."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    bench.sql(
        "INSERT INTO fleetprompt.schedule_slots (tenant_schema, installation_id, local_date, due_at,"
        " window_start, window_end, zone) SELECT 'org_many-' || n, gen_random_uuid(), current_date,"
        " now() - interval '1 minute', now() - interval '1 day', now() - interval '1 minute', 'UTC'"
        " FROM generate_series(1, 1000) n"
    )
    requests = bench.schedule("due_digests").run_requests
    assert len(requests) == 2
    slots = [
        (one["tenant"], one["installation"])
        for request in requests
        for one in request.run_config["ops"]["send_due_digests"]["config"]["slots"]
    ]
    assert len(set(slots)) == len(slots) == 1000
    assert len({request.run_key for request in requests}) == 2
    for request in requests:
        assert request.tags["fleetprompt/tenants"] == request.tags["fleetprompt/slots"] == "500"
    assert sum(len(json.dumps(request.run_config)) for request in requests) < 256 * 1024


def test_a_failed_run_is_asked_for_again_with_another_key(
    bench: Bench, mattermost: RunningMattermost
) -> None:
    """Trap 4; and while it waits or has only just failed, it is not asked for twice."""
    _, slot = _install(bench, mattermost)
    real_now = datetime.now(slot.due_at.tzinfo)
    bench.sql("UPDATE fleetprompt.schedule_slots SET due_at = now() - interval '1 minute'")
    _at(bench, real_now)
    [request] = bench.schedule("due_digests").run_requests
    run = bench.enqueue("send_digests", request.run_config, dg.DagsterRunStatus.STARTING)
    assert not bench.schedule("due_digests").run_requests
    _at(bench, real_now + timedelta(minutes=20))
    assert not bench.schedule("due_digests").run_requests
    bench.instance.report_run_failed(run)
    _at(bench, real_now + timedelta(minutes=2))
    assert not bench.schedule("due_digests").run_requests
    _at(bench, real_now + timedelta(minutes=6))
    [again] = bench.schedule("due_digests").run_requests
    assert again.run_key != request.run_key
    assert again.run_config == request.run_config


def test_the_schedule_writes_nothing(bench: Bench, mattermost: RunningMattermost) -> None:
    """Trap 5."""
    _install(bench, mattermost)
    before = bench.sql("SELECT * FROM fleetprompt.schedule_slots ORDER BY local_date")
    assert bench.schedule("due_digests").run_requests
    assert bench.sql("SELECT * FROM fleetprompt.schedule_slots ORDER BY local_date") == before


def test_what_is_too_late_is_skipped_and_visible(
    bench: Bench, mattermost: RunningMattermost
) -> None:
    """Trap 8."""
    tenant, slot = _install(bench, mattermost)
    _at(bench, slot.due_at + timedelta(hours=7))
    [request] = bench.schedule("due_digests").run_requests
    result = bench.execute("send_digests", request.run_config)
    assert result.success
    assert mattermost.posts == []
    assert _digests(bench, result) == []
    [event] = _told(bench, result, dg.DagsterEventType.ASSET_OBSERVATION)
    assert event.event_specific_data.asset_observation.metadata["state"].value == "skipped_missed"
    assert _state(bench, tenant, slot) == "skipped_missed"
    assert not bench.schedule("due_digests").run_requests


def test_one_failing_tenant_fails_only_a_small_run(
    bench: Bench, mattermost: RunningMattermost
) -> None:
    """Trap 11: the good one is posted; one of two is more than 10 %, so the run says so."""
    good, slot = _install(bench, mattermost)
    with running_mattermost() as broken:
        bad, _ = _install(bench, broken)
        broken.set(hook_deleted=True)
        [request] = bench.schedule("due_digests").run_requests
        result = bench.execute("send_digests", request.run_config)
    assert not result.success
    assert len(mattermost.posts) == 1
    [digest] = _digests(bench, result)
    assert digest.partition == f"{slot.local_date}|{good.slug}"
    [event] = _told(bench, result, dg.DagsterEventType.ASSET_OBSERVATION)
    assert event.event_specific_data.asset_observation.partition == f"{slot.local_date}|{bad.slug}"
    assert "auth" in event.event_specific_data.asset_observation.metadata["error"].value
    [failure] = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data.metadata
    assert told["not_processed"].value == 1
    assert bad.slug in told["failures"].value
    assert good.slug not in told["failures"].value
    assert _state(bench, bad, slot) == "failed"


def test_a_digest_that_must_wait_is_sent_and_recorded_by_a_drain(
    bench: Bench, mattermost: RunningMattermost
) -> None:
    tenant, slot = _install(bench, mattermost)
    mattermost.set(rate_limited=True, retry_after_seconds=1)
    [request] = bench.schedule("due_digests").run_requests
    assert not bench.execute("send_digests", request.run_config).success
    assert _state(bench, tenant, slot) == "requested"
    mattermost.set(rate_limited=False)

    async def time_passes(database: Database) -> None:
        await Platform(database, bench.settings, tenant).hours_pass()
        async with database.tenant(tenant.schema) as session:
            await session.execute(
                text(
                    "UPDATE directives SET available_at = now(), changed_by = 'test' WHERE state = 'pending'"
                )
            )

    bench.run(time_passes)
    result = bench.execute(
        "drain_directives", {"ops": {"drain": {"config": {"linger_seconds": 0.0}}}}
    )
    assert result.success
    assert len(mattermost.posts) == 1
    [digest] = _digests(bench, result)
    assert digest.partition == f"{slot.local_date}|{tenant.slug}"
    assert _state(bench, tenant, slot) == "done"


def test_a_digest_whose_record_was_lost_is_put_into_the_grid(
    bench: Bench, mattermost: RunningMattermost
) -> None:
    tenant, slot = _install(bench, mattermost)
    [request] = bench.schedule("due_digests").run_requests
    assert bench.execute("send_digests", request.run_config).success
    bench.instance.wipe_assets([DIGEST])
    _at(bench, datetime.now(slot.due_at.tzinfo))
    result = bench.execute("keep_digests")
    assert [one.partition for one in _digests(bench, result)] == [
        f"{slot.local_date}|{tenant.slug}"
    ]
    assert _digests(bench, bench.execute("keep_digests")) == []


def test_slots_are_kept_ahead(bench: Bench, mattermost: RunningMattermost) -> None:
    _, slot = _install(bench, mattermost)
    _at(bench, bench.now() + timedelta(days=3))
    assert bench.execute("keep_digests").success
    dates = [
        row.local_date
        for row in bench.sql("SELECT local_date FROM fleetprompt.schedule_slots ORDER BY 1")
    ]
    # Seven days from the new time on, after those that were there.
    assert dates == [slot.local_date + timedelta(days=ahead) for ahead in range(3 + 7 + 1)]


def test_a_late_digest_is_found_by_the_check(bench: Bench, mattermost: RunningMattermost) -> None:
    """Trap 14: the check looks at every slot, not at the last materialisation."""
    _, slot = _install(bench, mattermost)

    assert bench.check("every_digest_is_on_time").passed
    _at(bench, slot.due_at + timedelta(minutes=16))
    late = bench.check("every_digest_is_on_time")
    assert not late.passed
    assert "due_digests" in (late.description or "")
