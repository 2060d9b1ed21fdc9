"""How this digest itself was delivered in the last 30 days, for its footer."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.digest import wording
from fleetprompt.schedules.models import ScheduleSlot

DAYS = 30
_ON_TIME = timedelta(minutes=10)
# In the order in which they are told.
_ENDS = ("on time", "late", "uncertain", "failed", "missed", "still open")


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """Scheduled digests by how they ended; ``read_back`` of them were proven by reading back."""

    ends: tuple[tuple[str, int], ...] = ()
    read_back: int = 0

    def told(self) -> str:
        """``29 of 30 digests in 30 days on time, 1 late``; nothing before the first one."""
        counts = dict(self.ends)
        total = sum(counts.values())
        if not total:
            return ""
        on_time = wording.number(counts.get("on time", 0))
        parts = [f"{on_time} of {wording.many(total, 'digest')} in {DAYS} days on time"]
        parts += [f"{wording.number(counts[end])} {end}" for end in _ENDS[1:] if counts.get(end)]
        if self.read_back:
            parts.append(f"{wording.number(self.read_back)} proven by reading back")
        return ", ".join(parts)


async def delivery_record(
    session: AsyncSession, installation_id: UUID, until: datetime
) -> DeliveryRecord:
    """Of the slots that were due in the 30 days before ``until``, in the tenant's transaction.

    Pauses are not counted: nothing was to be sent.
    """
    rows = await session.execute(
        select(
            ScheduleSlot.state,
            ScheduleSlot.due_at,
            ScheduleSlot.settled_at,
            OutboundMessage.state.label("message"),
            OutboundMessage.proof,
        )
        .outerjoin(
            OutboundMessage,
            and_(
                ScheduleSlot.directive_id.is_not(None),
                OutboundMessage.directive_id == ScheduleSlot.directive_id,
            ),
        )
        .where(
            ScheduleSlot.installation_id == installation_id,
            ScheduleSlot.due_at >= until - timedelta(days=DAYS),
            ScheduleSlot.due_at < until,
            ScheduleSlot.state != "skipped_paused",
        )
    )
    ends: Counter[str] = Counter()
    read_back = 0
    for row in rows:
        ends[_end(row.state, row.due_at, row.settled_at, row.message)] += 1
        read_back += row.proof == "read_back"
    return DeliveryRecord(tuple((end, ends[end]) for end in _ENDS if ends[end]), read_back)


def _end(state: str, due_at: datetime, settled_at: datetime | None, message: str | None) -> str:
    if state == "done":
        return "on time" if settled_at is None or settled_at <= due_at + _ON_TIME else "late"
    if state == "skipped_missed":
        return "missed"
    if state == "failed":
        return "uncertain" if message == "unknown" else "failed"
    return "still open"
