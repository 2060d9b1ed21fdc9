"""What earlier digests kept, found for the next one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TIMESTAMP, cast, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.executions.models import Execution
from fleetprompt.packages.digest.chart import BARS, Bar
from fleetprompt.packages.digest.collect import Collected, Cut, Previous
from fleetprompt.packages.digest.config import DigestConfig
from fleetprompt.packages.digest.history import WEEK, Past
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.params import DigestParams
from fleetprompt.schedules.local_time import Window

Kept = Mapping[str, Any]


def kept_of(collected: Collected) -> dict[str, Any]:
    """What an execution keeps of what it collected, for later digests."""
    return {"cut": collected.cut.as_json(), **collected.facts.as_past().as_json()}


async def kept_before(
    session: AsyncSession, kind: DigestKind, installation_id: UUID, end: datetime
) -> list[Kept]:
    """What the last scheduled digests of windows that ended by ``end`` kept, oldest first.

    As many as stand in a chart before the digest at hand, which is more than the week to compare with.
    """
    ended = cast(Execution.result["window"]["end"].astext, TIMESTAMP(timezone=True))
    found = await session.scalars(
        select(Execution.result)
        .where(
            Execution.installation_id == installation_id,
            Execution.kind == kind.run,
            Execution.result["trigger"].astext == "scheduled",
            ended <= end,
        )
        .order_by(ended.desc(), Execution.id.desc())
        .limit(BARS - 1)
    )
    latest = [one for one in found if one is not None]
    # One for each window: the last that was made.
    return list({one["window"]["end"]: one for one in reversed(latest)}.values())


def earlier(params: DigestParams, kept: Sequence[Kept]) -> Previous:
    """The window before and those of a week, of what ``kept_before`` found.

    A scheduled window continues the digest that ended where it starts. Where there is none, and by
    hand, the window before has this one's length and is counted anew.
    """
    window = params.window.as_window()
    pasts = [Past.from_json(one) for one in kept]
    history = [past for past in pasts if past.window.end > window.start - WEEK]
    if params.trigger == "scheduled" and history and history[-1].window.end == window.start:
        cut = Cut.from_json(kept[-1]["cut"])
        return Previous(history[-1].window, cut, history[-1], tuple(history[:-1]))
    before = Window(window.start - window.length, window.start)
    # What overlaps the window that is counted anew would be told twice.
    return Previous(
        before, history=tuple(past for past in history if past.window.end <= before.start)
    )


def last_told(params: DigestParams, kept: Sequence[Kept]) -> datetime | None:
    """Where the last scheduled digest ended, if this scheduled one does not continue it, as after a pause."""
    if params.trigger != "scheduled" or not kept:
        return None
    ended = Past.from_json(kept[-1]).window.end
    return ended if ended < params.window.start else None


def bars(collected: Collected, config: DigestConfig, kept: Sequence[Kept]) -> list[Bar]:
    """This digest's figures after those of the digests before it, else of the window before."""
    facts = collected.facts
    pasts = [Past.from_json(one) for one in kept]
    told = [(past.window.end, past.totals) for past in pasts]
    if not told and facts.previous is not None:
        told = [(facts.window.start, facts.previous)]
    return [
        Bar(end.astimezone(config.zone).date().isoformat(), totals.signals, totals.errors)
        for end, totals in (*told, (facts.window.end, facts.totals))
    ]
