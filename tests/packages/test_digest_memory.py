"""Digest after digest: each is told against what those before it kept, and how they were delivered."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import text, update

from fleetprompt.packages.digest.delivery_record import delivery_record
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN
from fleetprompt.packages.scheduling import request_slots
from fleetprompt.schedules import slots as schedule_slots
from fleetprompt.schedules.models import ScheduleSlot
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import Platform, connected


async def send(platform: Platform, slot: ScheduleSlot) -> None:
    """Let the slot's minute come and its digest be posted."""
    platform.now = slot.due_at + timedelta(seconds=20)
    async with platform.database.platform() as session:
        due = await schedule_slots.due(session, platform.now)
    own = [one for one in due if one.tenant_schema == platform.tenant.schema]
    async with platform.database.tenant(platform.tenant.schema) as session:
        await request_slots(session, platform.tenant, own, platform.now, platform.settings)
    await platform.work()


async def kept(platform: Platform) -> list[dict[str, Any]]:
    """What the digests' executions kept, oldest first."""
    async with platform.database.tenant(platform.tenant.schema) as session:
        rows = await session.execute(
            text("SELECT result FROM executions WHERE kind = :kind ORDER BY id"), {"kind": RUN}
        )
        return [row.result for row in rows]


async def test_digests_of_following_days_are_told_against_each_other(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(platform, mattermost)
    slots = (await platform.slots())[:6]
    failures = (("a.failed",), ("a.failed", "b.failed"), ("b.failed",), (), (), ("a.failed",) * 9)
    for slot, types in zip(slots, failures, strict=True):
        for type_ in ("shop.order.created", *types):
            await platform.commit_late(type_, slot.due_at - timedelta(hours=1))
        await send(platform, slot)
    texts = [post.original for post in mattermost.posts]
    assert len(texts) == 6
    assert "1 error (+1)" in texts[0], "the window before is counted where nobody told of it"
    second = texts[1].splitlines()
    assert second[0].endswith("2 errors (+1) · 1 new kind")
    assert any("`b.failed` **new**" in line for line in second)
    assert "`a.failed` 1" in next(x for x in texts[2].splitlines() if x.startswith("**Gone"))
    assert "new kind" not in texts[2]
    assert "🟢" in texts[3]
    # The sixth day has five before it: what is usual is known, and nine errors are not.
    assert "9 errors (+9, usually 1)" in texts[5]
    assert "**Unusual** · 9 errors (usually 1, from 0 to 2)" in texts[5]
    assert "**Course** of 6 digests, this one last" in texts[5]
    assert "errors ▂▃▂▁▁█" in texts[5]
    # Known from earlier than yesterday is not new.
    assert "new" not in texts[5].splitlines()[0]
    assert "in 30 days on time" not in texts[0]
    assert "5 of 5 digests in 30 days on time" in texts[5]
    results = await kept(platform)
    for before, after in pairwise(results):
        assert before["window"]["end"] == after["window"]["start"]
    told = await platform.signals("value.digest.posted")
    assert [data["window"]["end"] for _, data in told] == [
        data["window"]["end"].replace("+00:00", "Z") for data in results
    ]
    assert all(
        set(data) <= {"installation_id", "trigger", "window", "destination"} for _, data in told
    )
    # By hand the day before is counted anew, and nothing is told twice.
    await platform.commit_late("b.failed", platform.clock() - timedelta(minutes=1))
    platform.now = slots[5].due_at + timedelta(hours=6)
    await platform.run_now(installation.id)
    await platform.work()
    by_hand = mattermost.posts[-1].original
    assert "10 errors (+10, usually 1)" in by_hand


async def test_the_record_counts_how_the_digests_slots_ended(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(platform, mattermost)
    slots = (await platform.slots())[:7]
    await send(platform, slots[0])
    ends = {
        1: {"state": "done", "settled_at": slots[1].due_at + timedelta(hours=2)},
        2: {"state": "failed", "settled_at": slots[2].due_at},
        3: {"state": "skipped_missed", "settled_at": slots[3].due_at},
        4: {"state": "skipped_paused", "settled_at": slots[4].due_at},
        5: {"state": "failed", "settled_at": slots[5].due_at},
    }
    async with platform.database.tenant(platform.tenant.schema) as session:
        for number, values in ends.items():
            await session.execute(
                update(ScheduleSlot)
                .where(ScheduleSlot.local_date == slots[number].local_date)
                .values(**values)
            )
        record = await delivery_record(session, installation.id, slots[6].due_at)
        assert record.ends == (("on time", 1), ("late", 1), ("failed", 2), ("missed", 1))
        # The one that nobody knows of: its message went out, its answer was lost.
        await session.execute(
            text(
                "UPDATE outbound_messages SET state = 'unknown', error_kind = 'network',"
                " error_message = 'lost'"
            )
        )
        await session.execute(
            update(ScheduleSlot)
            .where(ScheduleSlot.local_date == slots[0].local_date)
            .values(state="failed")
        )
        record = await delivery_record(session, installation.id, slots[6].due_at)
        assert record.told() == (
            "0 of 5 digests in 30 days on time, 1 late, 1 uncertain, 2 failed, 1 missed"
        )

        much_later = slots[6].due_at + timedelta(days=40)
        assert (await delivery_record(session, installation.id, much_later)).told() == ""
