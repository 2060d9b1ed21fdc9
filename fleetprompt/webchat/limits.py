"""How much may come from where: counts in fixed windows, exact however many processes take at once.

The buckets of one request are taken in its transaction, from the narrowest to the widest, so that what
a narrow one refuses takes nothing of a wide one, and two requests wait for one another in one order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import RateLimitedError

Scope = Literal["conversation", "visitor", "address", "site"]
ORDER: tuple[Scope, ...] = ("conversation", "visitor", "address", "site")

_TAKE = text(
    """
    INSERT INTO website_chat_limits AS l (bucket, ends_at, taken) VALUES (:bucket, :ends_at, 1)
    ON CONFLICT (bucket, ends_at) DO UPDATE SET taken = l.taken + 1 WHERE l.taken < :most
    RETURNING taken
    """
)
_REMOVE_ENDED = text(
    """
    DELETE FROM website_chat_limits WHERE (bucket, ends_at) IN (
        SELECT bucket, ends_at FROM website_chat_limits WHERE ends_at < :now
        ORDER BY ends_at LIMIT 20 FOR UPDATE SKIP LOCKED)
    """
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """``most`` of one ``kind`` from one place in each window of ``seconds``."""

    scope: Scope
    kind: str
    place: str
    most: int
    seconds: int

    def end(self, now: datetime) -> datetime:
        """When the window that ``now`` is in ends."""
        return datetime.fromtimestamp((now.timestamp() // self.seconds + 1) * self.seconds, UTC)


async def take(session: AsyncSession, buckets: Iterable[Bucket], now: datetime) -> dict[Scope, int]:
    """Take one of each; how many are taken by now in each scope.

    RateLimitedError with the scope that is full; the caller's transaction then takes nothing.
    """
    taken: dict[Scope, int] = {}
    for bucket in sorted(buckets, key=lambda one: ORDER.index(one.scope)):
        end = bucket.end(now)
        name = f"{bucket.kind}:{bucket.scope}:{bucket.place}"
        found = await session.scalar(_TAKE, {"bucket": name, "ends_at": end, "most": bucket.most})
        if found is None:
            raise full(bucket, now)
        taken[bucket.scope] = found
    return taken


def full(bucket: Bucket, now: datetime) -> RateLimitedError:
    """The refusal of what is too much for a bucket, until its window ends."""
    return RateLimitedError(
        f"Too much for this {bucket.scope} at once; what was written is not lost.",
        retry_after=(bucket.end(now) - now).total_seconds(),
        scope=bucket.scope,
    )


async def use_once(session: AsyncSession, name: str, until: datetime) -> bool:
    """Whether this is the first use of something that is good once, until then."""
    found = await session.scalar(_TAKE, {"bucket": f"once:{name}", "ends_at": until, "most": 1})
    return found is not None


async def remove_ended(session: AsyncSession, now: datetime) -> None:
    """Remove some of the windows that have ended; called where new ones are made."""
    await session.execute(_REMOVE_ENDED, {"now": now})
