"""What earlier digests kept, found for the next one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import TIMESTAMP, cast, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.executions.models import Execution
from fleetprompt.packages.mattermost_daily_ops_digest.collect import Collected, Cut, Previous
from fleetprompt.packages.mattermost_daily_ops_digest.history import WEEK, Past
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN, DigestParams
from fleetprompt.schedules.local_time import Window


def kept_of(collected: Collected) -> dict[str, Any]:
    """What an execution keeps of what it collected, for later digests."""
    return {"cut": collected.cut.as_json(), **collected.facts.as_past().as_json()}


async def earlier(session: AsyncSession, params: DigestParams, window: Window) -> Previous:
    """The window before and those of a week, as the installation's scheduled digests kept them.

    A scheduled window continues the digest that ended where it starts. Where there is none, and by
    hand, the window before has this one's length and is counted anew.
    """
    kept = await _kept_before(session, params, window.start)
    last = kept[-1] if kept else None
    if params.trigger == "scheduled" and last is not None:
        told = Past.from_json(last)
        if told.window.end == window.start:
            history = tuple(Past.from_json(one) for one in kept[:-1])
            return Previous(told.window, Cut.from_json(last["cut"]), told, history)
    before = Window(window.start - window.length, window.start)
    history = tuple(Past.from_json(one) for one in kept)
    # What overlaps the window that is counted anew would be told twice.
    apart = tuple(past for past in history if past.window.end <= before.start)
    return Previous(before, history=apart)


async def _kept_before(
    session: AsyncSession, params: DigestParams, end: datetime
) -> list[Mapping[str, Any]]:
    """What scheduled digests of windows that ended in the week up to ``end`` kept, oldest first."""
    ended = cast(Execution.result["window"]["end"].astext, TIMESTAMP(timezone=True))
    found = await session.scalars(
        select(Execution.result)
        .where(
            Execution.installation_id == params.installation_id,
            Execution.kind == RUN,
            Execution.result["trigger"].astext == "scheduled",
            ended <= end,
            ended > end - WEEK,
        )
        .order_by(ended, Execution.id)
    )
    # One for each window: the last that was made.
    return list({one["window"]["end"]: one for one in found if one is not None}.values())
