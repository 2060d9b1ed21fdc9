"""Writing a day again whose signals are partly in its file alone: what both hold, once and in order."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import ConflictError
from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.reading import day_rows
from fleetprompt.lake.removed import RemovedDay
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.erasure import ERASED_FIELDS
from fleetprompt.webchat.telling import SUBJECT

# What PostgreSQL holds of a signal, in the order in which both sides' rows have it.
STORED = tuple(column.name for column in SIGNALS.columns if column.source is None)
_ID, _OCCURRED_AT = STORED.index("id"), STORED.index("occurred_at")
Row = Sequence[Any]
Rows = AsyncIterator[Sequence[Row]]

_PRESENT = text("SELECT id::text FROM signals WHERE id = ANY(CAST(:ids AS uuid[]))")
_ERASED = text(
    "SELECT id::text FROM website_chat_conversations"
    " WHERE id::text = ANY(:ids) AND status = 'erased'"
)


async def rows_of_file_alone(
    session: AsyncSession,
    lake: LakePath,
    tenant: Tenant,
    day: date,
    removed: RemovedDay,
    *,
    rows: int,
) -> Rows:
    """The day's rows that are in its file and not in PostgreSQL any more, in their order.

    What visitors of the chat had erased since is erased here too. ConflictError if the file that should
    hold them is gone: writing the day from what is left would lose them for good.
    """
    if removed.file_removed_at is not None:
        return
    batches = day_rows(lake, SIGNALS, tenant.slug, day, rows=rows)
    try:
        while found := await asyncio.to_thread(_next, batches):
            ids = [row["id"] for row in found]
            present = set(await session.scalars(_PRESENT, {"ids": ids}))
            alone = [row for row in found if row["id"] not in present]
            if alone:
                await _erase(session, alone)
                yield [tuple(row[name] for name in STORED) for row in alone]
    except FileNotFoundError:
        raise ConflictError(
            f"The lake's file of {day} is gone, and {removed.signals} of its signals are in PostgreSQL no "
            "more. Bring the file back from a backup of the lake."
        ) from None


def _next(batches: Iterator[Any]) -> list[dict[str, Any]]:
    batch = next(batches, None)
    return [] if batch is None else batch.to_pylist()


async def _erase(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    about = {row["subject_id"] for row in rows if row["subject_type"] == SUBJECT}
    if not about:
        return
    erased = set(await session.scalars(_ERASED, {"ids": sorted(about)}))
    for row in rows:
        if row["subject_type"] == SUBJECT and row["subject_id"] in erased:
            data = json.loads(row["data"])
            if "erased" not in data:
                kept = {name: value for name, value in data.items() if name not in ERASED_FIELDS}
                row["data"] = json.dumps(kept | {"erased": True}, ensure_ascii=False)


async def merged(one: Rows, other: Rows) -> Rows:
    """The rows of both, each in the order of (occurred_at, id), in that order."""
    left, right = _Head(one), _Head(other)
    await left.fill()
    await right.fill()
    while left.rows or right.rows:
        if not right.rows or (left.rows and _place(left.rows[-1]) <= _place(right.rows[0])):
            yield left.take_all()
        elif not left.rows or _place(right.rows[-1]) <= _place(left.rows[0]):
            yield right.take_all()
        else:
            yield [(left if _place(left.first) <= _place(right.first) else right).take_one()]
        await left.fill()
        await right.fill()


def _place(row: Row) -> tuple[Any, str]:
    return row[_OCCURRED_AT], row[_ID]


class _Head:
    """What of one side was read and not taken yet."""

    def __init__(self, rows: Rows) -> None:
        self._source = rows
        self.rows: Sequence[Row] = ()

    @property
    def first(self) -> Row:
        return self.rows[0]

    async def fill(self) -> None:
        if not self.rows:
            with contextlib.suppress(StopAsyncIteration):
                self.rows = await anext(self._source)

    def take_all(self) -> Sequence[Row]:
        taken, self.rows = self.rows, ()
        return taken

    def take_one(self) -> Row:
        first, self.rows = self.rows[0], self.rows[1:]
        return first
