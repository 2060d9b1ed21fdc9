"""Reading signals: newest first in pages, and forward without losing a late commit.

Forward means by the inserting transaction, up to the oldest one that is still running: ids and times
are made before the commit, so that a cursor on them would pass over what commits late.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from sqlalchemy import ColumnElement, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.signals.models import Signal

PAGE_LIMIT = 200
_NO_ID = UUID(int=0)


@dataclass(frozen=True)
class Filter:
    """Which signals. ``type`` is exact, or a prefix when it ends in ``.*``."""

    type: str | None = None
    source: str | None = None
    subject_type: str | None = None
    subject_id: str | None = None
    correlation_id: str | None = None
    occurred_from: datetime | None = None
    occurred_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        found: list[ColumnElement[bool]] = []
        if self.type is not None:
            if self.type.endswith(".*"):
                prefix = self.type[:-1]
                # A range, which the index serves; types are in collation C.
                found += [Signal.type >= prefix, Signal.type < prefix[:-1] + chr(ord(".") + 1)]
            else:
                found.append(Signal.type == self.type)
        for column, value in (
            (Signal.source, self.source),
            (Signal.subject_type, self.subject_type),
            (Signal.subject_id, self.subject_id),
            (Signal.correlation_id, self.correlation_id),
        ):
            if value is not None:
                found.append(column == value)
        if self.occurred_from is not None:
            found.append(Signal.occurred_at >= self.occurred_from)
        if self.occurred_before is not None:
            found.append(Signal.occurred_at < self.occurred_before)
        return found


@dataclass(frozen=True, order=True)
class Position:
    """Where forward reading stands: everything up to this signal has been seen."""

    txid: int = 0
    id: UUID = _NO_ID

    def __str__(self) -> str:
        return f"{self.txid}-{self.id.hex}"

    @classmethod
    def parse(cls, text_: str) -> Self:
        """The inverse of ``str``; InvalidError otherwise."""
        first, _, second = text_.partition("-")
        try:
            txid = int(first)
            if not (first.isascii() and 0 <= txid < 2**63 and len(second) == 32):
                raise ValueError(text_)
            return cls(txid, UUID(hex=second))
        except ValueError:
            raise InvalidError(
                "This is no position in the stream; use the id of the last event that you received."
            ) from None


async def get_signal(session: AsyncSession, signal_id: UUID) -> Signal:
    """One signal; NotFoundError in another tenant or after retention."""
    found = await session.get(Signal, signal_id)
    if found is None:
        raise NotFoundError(f"There is no signal {signal_id}.")
    return found


async def list_signals(
    session: AsyncSession, filter_: Filter, *, before: UUID | None = None, limit: int = 50
) -> Sequence[Signal]:
    """A page of signals, newest first: those whose id is below ``before``, at most ``limit``."""
    query = select(Signal).where(*filter_.conditions())
    if before is not None:
        query = query.where(Signal.id < before)
    return list(
        await session.scalars(query.order_by(Signal.id.desc()).limit(min(limit, PAGE_LIMIT)))
    )


_HORIZON = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


async def horizon(session: AsyncSession) -> int:
    """The oldest transaction that may still commit; all below it are settled."""
    found = await session.scalar(_HORIZON)
    return int(found or 0)


async def end_position(session: AsyncSession) -> Position:
    """The position behind all that is settled now: reading on from here yields what comes later."""
    return Position(await horizon(session) - 1, UUID(int=2**128 - 1))


async def read_forward(
    session: AsyncSession, after: Position, filter_: Filter | None = None, *, limit: int = 500
) -> Sequence[Signal]:
    """The next settled signals after a position, in the order of their transactions."""
    query = (
        select(Signal)
        .where(
            # The first condition is what the index serves; the second is what is meant.
            Signal.txid >= after.txid,
            tuple_(Signal.txid, Signal.id) > tuple_(after.txid, after.id),
            Signal.txid < await horizon(session),
            *(filter_ or Filter()).conditions(),
        )
        .order_by(Signal.txid, Signal.id)
        .limit(limit)
    )
    return list(await session.scalars(query))


def position_of(signal: Signal) -> Position:
    """Where a reader stands after this signal."""
    return Position(signal.txid, signal.id)
