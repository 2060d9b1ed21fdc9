"""Slots in the database: once a local date, tiling windows, moved only where still to come."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.schedules import slots
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import Schedule
from fleetprompt.tenants.service import Tenant

NINE = Schedule(time(9), ZoneInfo("America/New_York"))
START = datetime(2026, 3, 6, 0, 0, tzinfo=UTC)


async def all_slots(database: Database, tenant: Tenant) -> list[ScheduleSlot]:
    async with database.tenant(tenant.schema) as session:
        return list(await session.scalars(select(ScheduleSlot).order_by(ScheduleSlot.due_at)))


async def test_filling_again_adds_only_what_is_missing(database: Database, tenant: Tenant) -> None:
    installation_id = new_id()

    async def fill(now: datetime) -> int:
        async with database.tenant(tenant.schema) as session:
            return await slots.fill(session, installation_id, NINE, now)

    assert await fill(START) == 7
    assert await fill(START) == 0
    assert await fill(START + timedelta(days=2)) == 2
    assert sum(await asyncio.gather(*(fill(START + timedelta(days=5)) for _ in range(8)))) == 3
    found = await all_slots(database, tenant)
    assert len({slot.local_date for slot in found}) == len(found) == 12
    assert all(a.window_end == b.window_start for a, b in pairwise(found))
    lengths = {slot.local_date: slot.window_end - slot.window_start for slot in found}
    assert lengths[date(2026, 3, 8)] == timedelta(hours=23), "the clocks went forward"
    assert lengths[date(2026, 3, 9)] == timedelta(hours=24)


async def test_re_planning_moves_what_is_to_come_and_nothing_else(
    database: Database, tenant: Tenant
) -> None:
    """Trap 24: a settled date gets no second slot, east or west; no window is lost."""
    installation_id = new_id()
    async with database.tenant(tenant.schema) as session:
        await slots.fill(session, installation_id, NINE, START)
        first, *_ = await slots.slots_of(session, installation_id)
    first = (await all_slots(database, tenant))[0]
    async with database.tenant(tenant.schema) as session:
        assert await slots.mark_requested(session, first, new_id())
        assert await slots.settle(session, first, "done")
        assert not await slots.settle(session, first, "failed")
    now = first.due_at + timedelta(minutes=5)
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Tokyo"):
        for hour in (0, 9, 23):
            async with database.tenant(tenant.schema) as session:
                await slots.replan(
                    session, installation_id, Schedule(time(hour), ZoneInfo(zone)), now
                )
            found = await all_slots(database, tenant)
            assert [s.state for s in found if s.local_date == first.local_date] == ["done"]
            assert found[1].window_start == first.window_end
            assert all(a.window_end == b.window_start for a, b in pairwise(found))
            assert all(s.due_at > now for s in found[1:])
    async with database.tenant(tenant.schema) as session:
        assert await slots.replan(session, installation_id, None, now) == 0
    assert [s.state for s in await all_slots(database, tenant)] == ["done"]


async def test_the_farthest_edit_loses_no_window(database: Database, tenant: Tenant) -> None:
    """Trap 24: after today's digest, from where a date begins to where it ends, and to its last minute."""
    installation_id = new_id()
    first_east = Schedule(time(0), ZoneInfo("Pacific/Kiritimati"))
    last_west = Schedule(time(23, 59), ZoneInfo("Etc/GMT+12"))
    async with database.tenant(tenant.schema) as session:
        await slots.fill(session, installation_id, first_east, START, days=3)
        last, *_ = await slots.slots_of(session, installation_id)
        now = last.due_at + timedelta(seconds=1)
        await slots.replan(session, installation_id, last_west, now)
    found = await all_slots(database, tenant)
    assert len({slot.local_date for slot in found}) == len(found)
    assert all(a.window_end == b.window_start for a, b in pairwise(found))
    (longest,) = [s for s in found if s.window_end - s.window_start > timedelta(hours=48)]
    assert longest.local_date == last.local_date + timedelta(days=1)


async def test_what_is_due_but_not_asked_for_survives_an_edit(
    database: Database, tenant: Tenant
) -> None:
    installation_id = new_id()
    async with database.tenant(tenant.schema) as session:
        await slots.fill(session, installation_id, NINE, START)
    first = (await all_slots(database, tenant))[0]
    async with database.tenant(tenant.schema) as session:
        await slots.replan(session, installation_id, NINE, first.due_at + timedelta(seconds=1))
    assert (await all_slots(database, tenant))[0].due_at == first.due_at


async def test_after_a_long_pause_the_window_is_a_usual_one(
    database: Database, tenant: Tenant
) -> None:
    """Trap 25."""
    installation_id = new_id()
    async with database.tenant(tenant.schema) as session:
        await slots.fill(session, installation_id, NINE, START, days=1)
        await slots.fill(session, installation_id, NINE, START + timedelta(days=30), days=1)
    _, later = await all_slots(database, tenant)
    assert later.window_end - later.window_start == timedelta(hours=24)


async def test_due_is_a_query_over_all_tenants_that_each_tenant_cannot_make(
    database: Database, tenant: Tenant, new_tenant: object
) -> None:
    other: Tenant = await new_tenant()  # type: ignore[operator]
    for one in (tenant, other):
        async with database.tenant(one.schema) as session:
            await slots.fill(session, new_id(), NINE, START)
    schemas = {tenant.schema, other.schema}
    first = (await all_slots(database, tenant))[0]
    async with database.platform() as session:
        before = await slots.due(session, first.due_at - timedelta(seconds=1))
        at = await slots.due(session, first.due_at)
    assert not schemas & {slot.tenant_schema for slot in before}
    assert schemas <= {slot.tenant_schema for slot in at}
    async with database.tenant(other.schema) as session:
        assert not await slots.settle(session, first, "done"), "another tenant's slot"


@pytest.mark.parametrize(("late", "missed"), [(5.99, False), (6.0, False), (6.01, True)])
async def test_grace(database: Database, tenant: Tenant, late: float, missed: bool) -> None:
    async with database.tenant(tenant.schema) as session:
        await slots.fill(session, new_id(), NINE, START)
    slot = (await all_slots(database, tenant))[0]
    assert slots.is_missed(slot, slot.due_at + timedelta(hours=late), 6.0) is missed
