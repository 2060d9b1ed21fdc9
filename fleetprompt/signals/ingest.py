"""Group commit: whatever arrived while the previous commit ran goes into the next.

1. ``submit`` puts a request's rows into its tenant's queue and waits.
2. A writer takes requests from the tenants in turn, up to ``ingest_flush_rows`` rows.
3. One pipeline carries BEGIN, each tenant's role and rows, and COMMIT: one round trip, one fsync.
   Where handlers asked for directives, those that need approval have it opened before the COMMIT.
4. After the commit everybody in it is answered, and listeners are told by one coalesced NOTIFY.

No timer delays a lone request, and under load the batches grow by themselves. Steps 3 and 4, and what
may go wrong there, are in ``flush.py``.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import OverloadedError
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Accepted
from fleetprompt.signals.flush import Flusher
from fleetprompt.signals.handlers import Handlers
from fleetprompt.signals.submitted import Stored, Submitted, spans_of
from fleetprompt.signals.wakeups import Notifier
from fleetprompt.telemetry import tracing
from fleetprompt.telemetry.process import PROCESS


class SignalWriter:
    """Stores signals for the whole process; ``start`` before, ``close`` after.

    ``types`` replaces the registry of directive types in tests.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        handlers: Handlers | None = None,
        *,
        types: Mapping[str, AnyDirectiveType] | None = None,
    ) -> None:
        self._limit = settings.ingest_queue_limit
        self._flush_rows = settings.ingest_flush_rows
        self._writer_count = settings.ingest_writers
        self._handlers = handlers or Handlers()
        self._queues: dict[str, deque[Submitted]] = {}
        self._waiting = 0
        self._work = asyncio.Event()
        self._closing = False
        self._writers: list[asyncio.Task[None]] = []
        self._notifier = Notifier(url)
        self._flusher = Flusher(url, self._notifier, types)

    @property
    def waiting(self) -> int:
        """Signals that wait for a commit."""
        return self._waiting

    async def start(self) -> None:
        """Begin to write."""
        PROCESS.waiting_signals = lambda: self._waiting
        self._notifier.start()
        self._writers = [
            asyncio.create_task(self._write_on(), name=f"signal-writer-{number}")
            for number in range(self._writer_count)
        ]

    async def close(self) -> None:
        """Take no more, write what waits, and answer everybody."""
        self._closing = True
        self._work.set()
        await asyncio.gather(*self._writers)
        await self._notifier.close()

    async def submit(self, schema: str, items: Sequence[Accepted]) -> list[Stored]:
        """Store signals of one tenant, all or none; returns when they are committed.

        Raises OverloadedError when the queue is full, DatabaseUnavailableError when PostgreSQL is away
        and InvalidError when it refuses a row.
        """
        if not items:
            return []
        if self._closing:
            raise OverloadedError("This process is shutting down.", retry_after=1)
        if self._waiting + len(items) > self._limit:
            raise OverloadedError(
                f"{self._waiting} signals wait for the database already.", retry_after=1
            )
        request = Submitted(schema, items, asyncio.get_running_loop().create_future())
        if tracing.on():
            request.spans = spans_of(items)
        if self._handlers.by_type:
            for item in items:
                request.directives.extend(self._handlers.requests(item.row))
        self._queues.setdefault(schema, deque()).append(request)
        self._waiting += len(items)
        self._work.set()
        return await request.done

    def _take(self) -> list[Submitted]:
        """Requests for one flush: one of each tenant in turn, so that none starves another."""
        taken: list[Submitted] = []
        rows = 0
        while self._queues and rows < self._flush_rows:
            schema, queue = next(iter(self._queues.items()))
            if taken and rows + len(queue[0].items) > self._flush_rows:
                break
            request = queue.popleft()
            taken.append(request)
            rows += len(request.items)
            del self._queues[schema]
            if queue:
                self._queues[schema] = queue  # to the end of the round
        self._waiting -= rows
        return taken

    async def _write_on(self) -> None:
        connection: psycopg.AsyncConnection[Any] | None = None
        try:
            while True:
                taken = self._take()
                if not taken:
                    if self._closing:
                        return
                    self._work.clear()
                    await self._work.wait()
                    continue
                connection = await self._flusher.write(connection, taken)
        finally:
            if connection is not None:
                await connection.close()
