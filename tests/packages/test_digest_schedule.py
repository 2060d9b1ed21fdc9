"""Slots of the digest: when they run, which windows they tell of, what editing changes."""

import itertools
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.executions import service as executions
from fleetprompt.ids import new_id
from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.email_daily_digest.requests import KIND as EMAIL
from fleetprompt.packages.mattermost_daily_ops_digest.requests import KIND as MATTERMOST
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN
from fleetprompt.packages.scheduling import keep_filled, request_slots
from fleetprompt.schedules import slots as schedule_slots
from fleetprompt.tenants.service import Tenant, create_tenant, delete_tenant
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import ADMIN, Platform, connected

UTC = ZoneInfo("UTC")


async def test_a_slot_runs_with_its_own_window_and_the_next_one_continues_it(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(
        platform, mattermost, timezone="Europe/Berlin", schedule_time="09:00"
    )
    first, second, *_ = await platform.slots()
    assert first.window_end == first.due_at
    assert second.window_start == first.window_end
    for slot in (first, second):
        platform.now = slot.due_at + timedelta(seconds=30)
        ids = await request(platform)
        assert len(ids) == 1
        assert await request(platform) == []
        await platform.work()
        directive = await platform.directive(ids[0])
        assert directive.state == "succeeded"
        assert directive.idempotency_key == (
            f"dir:digest:{platform.tenant.slug}:{installation.id}:{slot.local_date}"
        )
        assert (
            directive.correlation_id == f"digest:{platform.tenant.slug}:{slot.local_date}:default"
        )
    assert len(mattermost.posts) == 2
    assert [slot.state for slot in (await platform.slots())[:3]] == ["done", "done", "planned"]
    keys = [entry.dedupe_key for entry in await platform.ledger()]
    assert keys[0] == f"mattermost_post:{platform.tenant.slug}:{installation.id}:{first.local_date}"
    async with platform.database.tenant(platform.tenant.schema) as session:
        later, earlier = await executions.list_executions(session, kind=RUN)
    assert earlier.result is not None
    assert later.result is not None
    assert earlier.result["window"]["end"] == later.result["window"]["start"]
    assert len(mattermost.requests) == 3, "one check and two posts"


async def request(platform: Platform) -> list[Any]:
    """What the minute's tick does, for this tenant."""
    async with platform.database.platform() as session:
        due = [
            slot
            for slot in await schedule_slots.due(session, platform.clock())
            if slot.tenant_schema == platform.tenant.schema
        ]
    async with platform.database.tenant(platform.tenant.schema) as session:
        return await request_slots(
            session, platform.tenant, due, platform.clock(), platform.settings
        )


async def test_a_signal_that_is_committed_after_its_windows_digest_is_told_by_the_next(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 27."""
    await connected(platform, mattermost)
    first, second, *_ = await platform.slots()
    for slot in (first, second):
        platform.now = slot.due_at
        await request(platform)
        await platform.work()
        if slot is first:
            await platform.commit_late("shop.order.created", first.due_at - timedelta(hours=1))
    told = ["shop.order.created" in post.original for post in mattermost.posts]
    assert told == [False, True]


async def test_a_slot_after_downtime_runs_within_grace_and_is_skipped_beyond(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 26."""
    await connected(platform, mattermost)
    first, second, third, *_ = await platform.slots()
    platform.now = third.due_at + timedelta(hours=5)
    assert len(await request(platform)) == 1
    await platform.work()
    states = {slot.local_date: slot.state for slot in await platform.slots()}
    assert [states[slot.local_date] for slot in (first, second, third)] == [
        "skipped_missed",
        "skipped_missed",
        "done",
    ]
    assert len(mattermost.posts) == 1


async def test_editing_the_time_after_todays_digest_posts_no_second_one_today(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Traps 21 and 24: the local date is the key; the next window starts where the last one ended."""
    installation = await connected(platform, mattermost, timezone="UTC", schedule_time="09:00")
    first = (await platform.slots())[0]
    platform.now = first.due_at + timedelta(minutes=1)
    await request(platform)
    await platform.work()
    for time_of_day, zone in (("09:30", "UTC"), ("07:00", "America/Los_Angeles"), ("23:00", "UTC")):
        await platform.configure(installation.id, schedule_time=time_of_day, timezone=zone)
        slots = await platform.slots()
        assert [s.local_date for s in slots if s.local_date == first.local_date] == [
            first.local_date
        ]
        assert slots[0].state == "done"
        assert slots[1].window_start == first.window_end
        assert all(a.window_end == b.window_start for a, b in itertools.pairwise(slots))
    platform.now = first.due_at + timedelta(hours=14)
    assert await request(platform) == []
    assert len(mattermost.posts) == 1


async def test_after_a_month_of_pause_one_digest_comes_of_one_day_and_says_since_when(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 25."""
    installation = await connected(platform, mattermost, timezone="UTC", schedule_time="09:00")
    first = (await platform.slots())[0]
    platform.now = first.due_at + timedelta(minutes=1)
    await request(platform)
    await platform.work()
    await platform.configure(installation.id, enabled=False)
    platform.now += timedelta(days=30)
    await platform.configure(installation.id, enabled=True)
    again = [slot for slot in await platform.slots() if slot.state == "planned"]
    platform.now = again[0].due_at + timedelta(minutes=1)
    await request(platform)
    await platform.work()
    assert [slot.state for slot in await platform.slots()].count("done") == 2
    assert again[0].window_end - again[0].window_start == timedelta(hours=24)
    before, after = mattermost.posts
    assert "no digest since" not in before.message
    assert f"no digest since {wording.day(first.due_at, UTC, year=True)} 09:00" in after.message


def test_trap_21_the_key_of_a_message_is_its_day_whatever_else_changes() -> None:
    """And another one for each kind of digest, each run by hand and each test."""
    tenant, installation_id, execution_id = Tenant(new_id(), "acme", "org_acme"), new_id(), new_id()
    start = datetime(2026, 3, 7, 9, tzinfo=UTC)

    def key(kind: DigestKind, hours: int, **which: Any) -> str:
        window = {"start": start, "end": start + timedelta(hours=hours)}
        params = kind.digest.model_validate(
            {"installation_id": installation_id, "window": window, **which}
        )
        return params.dedupe_key(tenant)

    daily = {"trigger": "scheduled", "local_date": date(2026, 3, 8)}
    manual = {"trigger": "manual", "execution_id": execution_id}
    kinds = (MATTERMOST, EMAIL)
    for kind in kinds:
        assert key(kind, 23, **daily) == key(kind, 24, **daily)
    tests = [
        kind.trial(installation_id=installation_id, execution_id=execution_id) for kind in kinds
    ]
    keys = [key(kind, 24, **which) for kind in kinds for which in (daily, manual)]
    keys += [test.dedupe_key(tenant) for test in tests]
    assert len(set(keys)) == 6


def test_trap_23_no_iteration_over_cron_expressions_decides_when_a_digest_is_sent(
    repository: Path,
) -> None:
    imported = {
        name.split(".")[0]
        for folder in ("fleetprompt", "fleetprompt_dagster", "api/fleetprompt_api")
        for path in (repository / folder).rglob("*.py")
        for name in re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
    }
    assert "zoneinfo" in imported
    assert imported.isdisjoint({"croniter", "cronsim", "apscheduler"})


async def test_slots_are_kept_filled_and_a_cancelled_ones_is_closed(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    await connected(platform, mattermost)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO installations (id, package, version, state, config_checksum)"
                " VALUES (gen_random_uuid(), 'no_longer_shipped', '1', 'installed', '')"
            )
        )
    first = (await platform.slots())[0]
    platform.now = first.due_at
    (directive_id,) = await request(platform)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await directives.cancel(session, platform.tenant, directive_id, ADMIN)
    await keep_filled(platform.database, platform.now + timedelta(days=3))
    found = await platform.slots()
    assert (found[0].state, len(found)) == ("failed", 10)
    assert await keep_filled(platform.database, platform.now + timedelta(days=3)) == 0
    platform.now += timedelta(minutes=1)
    assert await request(platform) == []
    assert mattermost.posts == []


async def test_a_tenant_that_cannot_be_kept_fails_the_round_and_holds_up_no_other(
    platform: Platform, mattermost: RunningMattermost, owner: Database
) -> None:
    """Its tables may lie behind this version, where a migration was halted."""
    await connected(platform, mattermost)
    slots = await platform.slots()
    slug = f"a{new_id().hex[-12:]}"  # before every other tenant of the tests
    broken = await create_tenant(platform.settings, slug=slug, name="Behind")
    try:
        async with owner.platform() as session:
            await session.execute(text(f"ALTER TABLE {broken.schema}.approvals RENAME TO gone"))
        with pytest.raises(ProgrammingError):
            await keep_filled(platform.database, slots[0].due_at + timedelta(days=2))
        assert len(await platform.slots()) > len(slots)
    finally:
        await delete_tenant(platform.settings, slug=slug, typed=slug)


async def test_running_by_hand_does_not_use_up_the_slot(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 20."""
    installation = await connected(platform, mattermost)
    slot = (await platform.slots())[0]
    platform.now = slot.due_at + timedelta(seconds=1)
    await platform.run_now(installation.id)
    await request(platform)
    await platform.work()
    assert len(mattermost.posts) == 2
    assert (await platform.slots())[0].state == "done"


async def test_a_slot_that_was_asked_for_is_not_skipped_afterwards(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    await connected(platform, mattermost)
    first = (await platform.slots())[0]
    platform.now = first.due_at
    (directive_id,) = await request(platform)
    asked = (await platform.slots())[0]
    later = first.due_at + timedelta(days=2)
    async with platform.database.tenant(platform.tenant.schema) as session:
        again = await request_slots(session, platform.tenant, [asked], later, platform.settings)
    assert again == [directive_id]
    assert (await platform.slots())[0].state == "requested"
