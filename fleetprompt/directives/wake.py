"""Waking workers: one coalesced NOTIFY after a commit, and listeners that may lose it.

A NOTIFY inside a transaction would serialise commits (research/platform.md, finding 5), so it goes
out afterwards, on its own. It is a hint only: workers poll as well, because a notification is lost
whenever the connection is (T11).
"""

import asyncio
import logging
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.telemetry.process import PROCESS, ListeningState

CHANNEL = "fleetprompt_directives"
_RECONNECT_SECONDS = 2.0
_CANCEL_AGAIN_SECONDS = 0.1

logger = logging.getLogger(__name__)


async def notify_directives(database: Database) -> None:
    """Tell workers that directives were committed."""
    await database.statement(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: the driver, too, may lose a single cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.result()


class WakeUps:
    """Listens for as long as the block runs; ``wait`` returns at a notification or after a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._heard = asyncio.Event()
        self._listening = asyncio.Event()
        self._state = ListeningState("directives")
        self._task: asyncio.Task[None] | None = None

    async def wait(self, seconds: float) -> bool:
        """Whether a notification came within ``seconds``; one that came before counts once."""
        try:
            # Not wait_for, which in Python 3.11 loses a cancellation that meets what it waits for.
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        return True

    async def __aenter__(self) -> Self:
        PROCESS.watch(self._state)
        self._task = asyncio.create_task(self._listen())
        try:
            async with asyncio.timeout(_RECONNECT_SECONDS):
                await self._listening.wait()
        except TimeoutError:
            logger.warning("nothing is heard of directives yet; polling")
        except asyncio.CancelledError:
            PROCESS.forget(self._state)
            await end_task(self._task)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        PROCESS.forget(self._state)
        if self._task is not None:
            await end_task(self._task)

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=5
                ) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    # What was committed while nobody listened is found by one look at the queue.
                    self._heard.set()
                    self._listening.set()
                    self._state.up()
                    async for _ in connection.notifies():
                        self._state.heard()
                        self._heard.set()
            except psycopg.OperationalError:
                logger.warning("the connection that listens for directives is gone; polling on")
            self._state.lost()
            await asyncio.sleep(_RECONNECT_SECONDS)
