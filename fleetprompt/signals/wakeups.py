"""Telling other processes that there is something new, and hearing it.

One NOTIFY for many commits, on a connection of its own and after them: NOTIFY inside the ingest
transaction takes a lock that lets only one commit at a time (measured: a third of the throughput at 32
writers). A notice may be lost, so whoever listens polls as well.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable
from typing import Any

import msgspec
import psycopg

from fleetprompt.telemetry.process import PROCESS, ListeningState

log = logging.getLogger(__name__)

SIGNALS = "fleetprompt_signals"
DIRECTIVES = "fleetprompt_directives"

_PAUSE = 0.02  # seconds between notices
_MOST_SCHEMAS = 100  # in one notice, whose payload PostgreSQL limits to 8000 bytes
_EVERYBODY = "*"


class Notifier:
    """Sends coalesced notices; losing one costs a listener its polling interval and no more."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._schemas: set[str] = set()
        self._directives = False
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="notifier")

    def tell(self, schemas: Iterable[str], *, directives: bool = False) -> None:
        """Note that these tenants have new signals, and whether somebody has new directives."""
        self._schemas.update(schemas)
        self._directives |= directives
        if self._schemas or self._directives:
            self._something.set()

    async def close(self) -> None:
        """Stop; what was not sent is found by polling."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=3
                ) as connection:
                    while True:
                        await self._something.wait()
                        await self._send(connection)
                        await asyncio.sleep(_PAUSE)
            except (psycopg.Error, OSError) as error:
                log.warning("notices pause", extra={"reason": type(error).__name__})
                await asyncio.sleep(1)

    async def _send(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._something.clear()
        schemas, self._schemas = self._schemas, set()
        directives, self._directives = self._directives, False
        if schemas:
            names = sorted(schemas) if len(schemas) <= _MOST_SCHEMAS else [_EVERYBODY]
            await connection.execute("SELECT pg_notify(%s, %s)", (SIGNALS, json.dumps(names)))
        if directives:
            await connection.execute("SELECT pg_notify(%s, '')", (DIRECTIVES,))


class Listener:
    """Hears of new signals; one connection serves every waiter of the process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._state = ListeningState("signals")

    @property
    def healthy(self) -> bool:
        """Whether the connection is there."""
        return self._state.connected

    def start(self) -> None:
        """Begin to listen."""
        PROCESS.watch(self._state)
        self._task = asyncio.create_task(self._run(), name="listener")

    async def wait(self, schema: str, timeout: float) -> None:
        """Return when the tenant may have new signals, and after ``timeout`` seconds at the latest."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(schema, set())
        waiters.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout)
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiters.pop(schema, None)

    async def close(self) -> None:
        """Stop listening."""
        PROCESS.forget(self._state)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=3
                ) as connection:
                    await connection.execute(f"LISTEN {SIGNALS}")
                    self._state.up()
                    async for notice in connection.notifies():
                        self._state.heard()
                        self._wake(notice.payload)
            except (psycopg.Error, OSError) as error:
                log.warning("listening pauses", extra={"reason": type(error).__name__})
            self._state.lost()
            await asyncio.sleep(1)

    def _wake(self, payload: str) -> None:
        try:
            schemas = msgspec.json.decode(payload, type=list[str])
        except msgspec.MsgspecError:
            # Every login of the database may send on this channel.
            log.warning("a notice that is not ours was passed over")
            return
        if schemas == [_EVERYBODY]:
            schemas = list(self._waiters)
        for schema in schemas:
            for event in self._waiters.get(schema, ()):
                event.set()
