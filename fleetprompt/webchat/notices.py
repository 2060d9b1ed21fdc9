"""What processes tell one another of conversations: ids alone, never what was said.

Notices are sent after the commit on a connection of their own, several in one; one that is lost costs
a listener its polling interval.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.wake import end_task

CHANNEL = "fleetprompt_webchat"
_PAUSE = 0.01  # seconds between notices
# A schema has 63 bytes at most and an id 36, so that a notice stays below PostgreSQL's 8000 bytes.
_MOST_IN_ONE = 60

logger = logging.getLogger(__name__)


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A conversation of a tenant; ``typing`` is who is typing in it, where that is the news."""

    schema: str
    conversation_id: UUID
    typing: str | None = None


class Notice(msgspec.Struct, array_like=True):
    """From one process to all."""

    sender: UUID
    places: list[Place]


async def announce(database: Database, places: Iterable[Place]) -> None:
    """Tell every process that these conversations changed; for processes without a ``NoticeBoard``."""
    notice = msgspec.json.encode(Notice(uuid4(), list(places))).decode()
    await database.statement(
        text("SELECT pg_notify(:channel, :notice)"), {"channel": CHANNEL, "notice": notice}
    )


class NoticeBoard:
    """One connection that sends and one that listens; ``heard`` is called for others' places."""

    def __init__(self, url: str, heard: Callable[[Place], None], lost: Callable[[], None]) -> None:
        self._url, self._heard, self._lost = url, heard, lost
        self._id = uuid4()
        self._waiting: dict[Place, None] = {}
        self._something = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send and to listen."""
        self._tasks = [
            asyncio.create_task(self._keep(work), name="webchat notices")
            for work in (self._send, self._listen)
        ]

    async def close(self) -> None:
        """Stop; what was not sent is found by polling."""
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await end_task(task)

    def tell(self, place: Place) -> None:
        """Have the other processes know of a place."""
        self._waiting[place] = None
        self._something.set()

    async def _keep(self, work: Callable[[psycopg.AsyncConnection[Any]], Any]) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=3
                ) as connection:
                    await work(connection)
            except (psycopg.Error, OSError) as error:
                logger.warning("chat notices pause", extra={"reason": type(error).__name__})
            await asyncio.sleep(1)

    async def _send(self, connection: psycopg.AsyncConnection[Any]) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            places, self._waiting = list(self._waiting), {}
            for start in range(0, len(places), _MOST_IN_ONE):
                notice = Notice(self._id, places[start : start + _MOST_IN_ONE])
                await connection.execute(
                    "SELECT pg_notify(%s, %s)", (CHANNEL, msgspec.json.encode(notice).decode())
                )
            await asyncio.sleep(_PAUSE)

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        self._lost()  # what was said while nobody listened is looked for once
        async for heard in connection.notifies():
            try:
                notice = msgspec.json.decode(heard.payload, type=Notice)
            except msgspec.MsgspecError:
                # Every login of the database may send on this channel.
                logger.warning("a chat notice that is not ours was passed over")
                continue
            if notice.sender != self._id:
                for place in notice.places:
                    self._heard(place)
