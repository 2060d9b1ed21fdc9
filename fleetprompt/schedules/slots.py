"""Slots: one for each installation and local date, made ahead of time, so that *due* is a query.

A local date is the key, so nothing fires twice whatever the clocks, the settings or the callers
do. A slot's window starts where the one before it ended; editing the time or the zone moves only
what is still to come (research/mattermost_digest.md, traps 21, 24 to 26).
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.models import Directive
from fleetprompt.schedules.local_time import slots_between, window_of
from fleetprompt.schedules.models import ScheduleSlot

DAYS_AHEAD = 7
# A window that would be longer, after a pause, starts where the zone's previous slot would have. No edit
# makes one as long: a day to the next date, 26 hours from the easternmost zone to the westernmost, and less
# than a day to a later time.
LONGEST_WINDOW = timedelta(hours=24 + 26 + 24)

Settled = Literal["done", "failed", "skipped_missed", "skipped_paused"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Every day at this time of day in this zone."""

    time_of_day: time
    zone: ZoneInfo


async def fill(
    session: AsyncSession,
    installation_id: UUID,
    schedule: Schedule,
    now: datetime,
    *,
    days: int = DAYS_AHEAD,
) -> int:
    """Make the tenant's slots that are missing from ``now`` on, ``days`` ahead; how many were made.

    A date that has a slot in any state keeps it. Nothing is made for the past.
    """
    made = 0
    wanted = slots_between(now, now + timedelta(days=days), schedule.time_of_day, schedule.zone)
    for slot in wanted:
        window = window_of(slot.local_date, schedule.time_of_day, schedule.zone)
        if window is None:
            continue
        previous_end = await session.scalar(
            select(func.max(ScheduleSlot.window_end)).where(
                ScheduleSlot.installation_id == installation_id,
                ScheduleSlot.window_end < slot.due_at,
            )
        )
        start = window.start
        if previous_end is not None and slot.due_at - previous_end <= LONGEST_WINDOW:
            start = previous_end
        inserted = await session.scalar(
            insert(ScheduleSlot)
            .values(
                installation_id=installation_id,
                local_date=slot.local_date,
                due_at=slot.due_at,
                window_start=start,
                window_end=window.end,
                zone=schedule.zone.key,
            )
            .on_conflict_do_nothing()
            .returning(ScheduleSlot.local_date)
        )
        made += inserted is not None
    return made


async def replan(
    session: AsyncSession, installation_id: UUID, schedule: Schedule | None, now: datetime
) -> int:
    """Drop the slots that are still to come and make them anew; no schedule, no slots.

    What is due already, asked for or settled stays as it is. Returns how many were made.
    """
    await session.execute(
        delete(ScheduleSlot).where(
            ScheduleSlot.installation_id == installation_id,
            ScheduleSlot.state == "planned",
            ScheduleSlot.due_at > now,
        )
    )
    return 0 if schedule is None else await fill(session, installation_id, schedule, now)


async def due(session: AsyncSession, now: datetime, *, limit: int = 5000) -> list[ScheduleSlot]:
    """Planned slots of all tenants that are due at ``now``, oldest first; a platform transaction."""
    return list(
        await session.scalars(
            select(ScheduleSlot)
            .where(ScheduleSlot.state == "planned", ScheduleSlot.due_at <= now)
            .order_by(ScheduleSlot.due_at, ScheduleSlot.tenant_schema)
            .limit(limit)
        )
    )


def is_missed(slot: ScheduleSlot, now: datetime, grace_hours: float) -> bool:
    """Whether it is too late for this slot; within grace it still runs, with its own window."""
    return now - slot.due_at > timedelta(hours=grace_hours)


async def mark_requested(session: AsyncSession, slot: ScheduleSlot, directive_id: UUID) -> bool:
    """Tie a planned slot to its directive; False if it is no longer planned."""
    key = slot.installation_id, slot.local_date
    return await _move(session, *key, ("planned",), "requested", directive_id=directive_id)


async def settle(session: AsyncSession, slot: ScheduleSlot, state: Settled) -> bool:
    """``settle_date`` for a slot that was read before."""
    return await settle_date(session, slot.installation_id, slot.local_date, state)


async def settle_date(
    session: AsyncSession, installation_id: UUID, local_date: date, state: Settled
) -> bool:
    """Say how the tenant's slot of this date ended, if there is one; False if that was said before.

    A failed one may still become done.
    """
    open_states = (
        ("planned", "requested", "failed") if state == "done" else ("planned", "requested")
    )
    key = installation_id, local_date
    return await _move(session, *key, open_states, state, settled_at=func.clock_timestamp())


async def close_abandoned(session: AsyncSession) -> int:
    """Make ``failed`` the tenant's slots whose directive ended without saying so; how many.

    A directive that was cancelled leaves such a slot.
    """
    result = await session.execute(
        update(ScheduleSlot)
        .where(
            ScheduleSlot.state == "requested",
            ScheduleSlot.directive_id == Directive.id,
            Directive.state.in_(("cancelled", "failed", "unknown")),
        )
        .values(state="failed", settled_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE gives
    return result.rowcount


async def slots_of(
    session: AsyncSession, installation_id: UUID, *, limit: int = 30
) -> list[ScheduleSlot]:
    """The tenant's slots of an installation, latest date first."""
    return list(
        await session.scalars(
            select(ScheduleSlot)
            .where(ScheduleSlot.installation_id == installation_id)
            .order_by(ScheduleSlot.local_date.desc())
            .limit(limit)
        )
    )


async def _move(
    session: AsyncSession,
    installation_id: UUID,
    local_date: date,
    from_states: tuple[str, ...],
    to_state: str,
    **values: object,
) -> bool:
    result = await session.execute(
        update(ScheduleSlot)
        .where(
            # In a tenant's transaction there are its own rows alone.
            ScheduleSlot.installation_id == installation_id,
            ScheduleSlot.local_date == local_date,
            ScheduleSlot.state.in_(from_states),
        )
        .values(state=to_state, **values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE gives
    return result.rowcount == 1
