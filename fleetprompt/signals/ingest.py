"""Group commit: whatever arrived while the previous commit ran goes into the next.

1. ``submit`` puts a request's rows into its tenant's queue and waits.
2. A writer takes requests from the tenants in turn, up to ``ingest_flush_rows`` rows.
3. One pipeline carries BEGIN, each tenant's role and rows, and COMMIT: one round trip, one fsync.
   Where handlers asked for directives, those that need approval have it opened before the COMMIT.
4. After the commit everybody in it is answered, and listeners are told by one coalesced NOTIFY.

No timer delays a lone request, and under load the batches grow by themselves. If PostgreSQL refuses
a row, the requests of that flush are written one by one, so that it fails alone. If the
connection breaks, everybody in the flush hears 503: whether the commit happened is then
unknown, and the dedupe key makes asking again safe.
"""

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import tuple_row

from fleetprompt.db.engine import ENTER_TENANT, tenant_path
from fleetprompt.directives.approvals.opening import (
    needing_approval,
    open_for_handlers,
    waiting_of,
)
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.errors import (
    DatabaseUnavailableError,
    FleetPromptError,
    OverloadedError,
)
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Accepted, Metadata
from fleetprompt.signals.handlers import Handlers
from fleetprompt.signals.refusals import REFUSALS, explain
from fleetprompt.signals.statements import COMPARE, REQUEST, STORE
from fleetprompt.signals.wakeups import Notifier
from fleetprompt.telemetry import events, tracing
from fleetprompt.telemetry.process import PROCESS

log = logging.getLogger(__name__)

_metadata = msgspec.json.Decoder(Metadata)

WRITE_TIMEOUT = 15.0  # seconds after which a silent server counts as gone


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one signal. A duplicate carries the id that was there before."""

    id: UUID
    status: Literal["created", "duplicate"]
    content: Literal["same", "different", "expired"] | None = None


@dataclass(slots=True, eq=False)
class _Request:
    schema: str
    items: Sequence[Accepted]
    done: asyncio.Future[list[Stored]]
    directives: list[msgspec.Raw] = field(default_factory=list)
    spans: tracing.SpanContexts = ()

    @property
    def failed(self) -> bool:
        """Whether it was told that it is not stored."""
        return self.done.done() and (self.done.cancelled() or self.done.exception() is not None)

    def answer(self, results: dict[UUID, Stored]) -> None:
        if not self.done.done():
            self.done.set_result([results[item.row.id] for item in self.items])

    def fail(self, error: FleetPromptError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


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
        self._url = url
        self._limit = settings.ingest_queue_limit
        self._flush_rows = settings.ingest_flush_rows
        self._writer_count = settings.ingest_writers
        self._handlers = handlers or Handlers()
        self._types = types
        self._queues: dict[str, deque[_Request]] = {}
        self._waiting = 0
        self._work = asyncio.Event()
        self._closing = False
        self._writers: list[asyncio.Task[None]] = []
        self._notifier = Notifier(url)

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
        request = _Request(schema, items, asyncio.get_running_loop().create_future())
        if tracing.on():
            request.spans = _spans_of(items)
        if self._handlers.by_type:
            for item in items:
                request.directives.extend(self._handlers.requests(item.row))
        self._queues.setdefault(schema, deque()).append(request)
        self._waiting += len(items)
        self._work.set()
        return await request.done

    def _take(self) -> list[_Request]:
        """Requests for one flush: one of each tenant in turn, so that none starves another."""
        taken: list[_Request] = []
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
                connection = await self._flush(connection, taken)
        finally:
            if connection is not None:
                await connection.close()

    async def _flush(
        self, connection: psycopg.AsyncConnection[Any] | None, taken: list[_Request]
    ) -> psycopg.AsyncConnection[Any] | None:
        """Write ``taken`` and answer; returns the connection to go on with, if it still serves."""
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                if connection is None or connection.closed:
                    connection = await self._connect()
                try:
                    created = await self._commit(connection, taken)
                except REFUSALS:
                    await connection.rollback()
                    await self._one_by_one(connection, taken)
                else:
                    await self._answer(connection, taken, created)
        except (psycopg.OperationalError, psycopg.InternalError, OSError, TimeoutError) as error:
            log.warning(
                "signals were not stored: PostgreSQL does not answer",
                extra={"requests": len(taken), "reason": type(error).__name__},
            )
            self._fail(taken)
            await _abandon(connection)
            return None
        except Exception as error:  # noqa: BLE001 - a writer that ended would leave all waiting for ever
            log.error(  # noqa: TRY400 - the error's own words may quote a signal
                "signals were not stored: an error that was not foreseen",
                extra={
                    "requests": len(taken),
                    "reason": type(error).__name__,
                    "where": [
                        f"{frame.filename}:{frame.lineno}"
                        for frame in traceback.extract_tb(error.__traceback__)
                    ],
                },
            )
            self._fail(taken)
            await _abandon(connection)
            return None
        except BaseException:
            self._fail(taken)
            await _abandon(connection)
            raise
        finally:
            if tracing.on():
                spans = [span for request in taken for span in request.spans]
                tracing.flushed(started_ns, spans, failed=any(r.failed for r in taken))
        events.flushed(sum(len(r.items) for r in taken), time.perf_counter() - started)
        return connection

    def _fail(self, taken: list[_Request]) -> None:
        for request in taken:
            request.fail(
                DatabaseUnavailableError(
                    "PostgreSQL did not confirm the commit. Send the same signals again; dedupe keys "
                    "keep them from being stored twice.",
                    retry_after=2,
                )
            )

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=3,
            application_name="fleetprompt-ingest",
            row_factory=tuple_row,
            prepare_threshold=0,
        )

    async def _commit(
        self, connection: psycopg.AsyncConnection[Any], taken: list[_Request]
    ) -> set[UUID]:
        """One transaction with everything in ``taken``; returns the ids of what was new."""
        by_schema = _by_schema(taken)
        cursors = []
        asked: dict[str, psycopg.AsyncCursor[Any]] = {}
        async with connection.pipeline():
            await connection.execute("BEGIN")
            for schema in sorted(by_schema):
                requests = by_schema[schema]
                await connection.execute(
                    ENTER_TENANT, {"schema": schema, "path": tenant_path(schema)}
                )
                rows = b",".join(item.encoded for r in requests for item in r.items)
                cursors.append(await connection.execute(STORE, (f"[{rows.decode()}]",)))
                if directives := [d for r in requests for d in r.directives]:
                    asked[schema] = await connection.execute(
                        REQUEST,
                        (
                            needing_approval(self._known_types()),
                            msgspec.json.encode(directives).decode(),
                        ),
                    )
            if not asked:
                await connection.execute("COMMIT")
        if asked:
            await self._open_approvals(connection, asked)
            await connection.execute("COMMIT")
        created: set[UUID] = set()
        for cursor in cursors:
            created.update(row[0] for row in await cursor.fetchall())
        return created

    async def _open_approvals(
        self,
        connection: psycopg.AsyncConnection[Any],
        asked: Mapping[str, psycopg.AsyncCursor[Any]],
    ) -> None:
        for schema, cursor in asked.items():
            if waiting := waiting_of(await cursor.fetchall()):
                await connection.execute(
                    ENTER_TENANT, {"schema": schema, "path": tenant_path(schema)}
                )
                await open_for_handlers(connection, waiting, self._known_types())

    def _known_types(self) -> Mapping[str, AnyDirectiveType]:
        return directive_types() if self._types is None else self._types

    async def _answer(
        self,
        connection: psycopg.AsyncConnection[Any],
        taken: list[_Request],
        created: set[UUID],
    ) -> None:
        """Tell everybody what was committed: first those with nothing but new signals.

        Looking up duplicates may fail, which must not touch the answer to anybody else.
        """
        results = {id_: Stored(id_, "created") for id_ in created}
        unanswered: list[_Request] = []
        for request in taken:
            if all(item.row.id in created for item in request.items):
                request.answer(results)
            else:
                unanswered.append(request)
        events.signals_stored(len(created), sum(len(r.items) for r in taken) - len(created))
        self._notifier.tell(
            {r.schema for r in taken if any(item.row.id in created for item in r.items)},
            directives=any(request.directives for request in taken),
        )
        for schema, requests in _by_schema(unanswered).items():
            duplicates = [item for r in requests for item in r.items if item.row.id not in created]
            try:
                results.update(await self._compare(connection, schema, duplicates))
            except REFUSALS:
                self._fail(requests)
                continue
            for request in requests:
                request.answer(results)

    async def _compare(
        self, connection: psycopg.AsyncConnection[Any], schema: str, items: list[Accepted]
    ) -> dict[UUID, Stored]:
        rows = b",".join(item.encoded for item in items)
        async with connection.transaction():
            await connection.execute(ENTER_TENANT, {"schema": schema, "path": tenant_path(schema)})
            found = await connection.execute(COMPARE, (f"[{rows.decode()}]",))
            return {
                id_: Stored(stored_id, "duplicate", content)
                for id_, stored_id, content in await found.fetchall()
            }

    async def _one_by_one(
        self, connection: psycopg.AsyncConnection[Any], taken: list[_Request]
    ) -> None:
        for request in taken:
            refusal = await self._alone(connection, request)
            if refusal is not None and request.directives:
                # What a handler asks for may not be what loses a signal.
                request.directives = []
                without = await self._alone(connection, request)
                if without is None:
                    log.error(
                        "PostgreSQL refused what a signal handler asked for; the signals are stored",
                        extra={"schema": request.schema, "sqlstate": refusal.sqlstate},
                    )
                refusal = without
            if refusal is not None:
                request.fail(await explain(connection, request.schema, request.items, refusal))

    async def _alone(
        self, connection: psycopg.AsyncConnection[Any], request: _Request
    ) -> psycopg.Error | None:
        """Write and answer one request; returns why PostgreSQL refuses it, if it does."""
        try:
            created = await self._commit(connection, [request])
        except REFUSALS as error:
            await connection.rollback()
            return error
        await self._answer(connection, [request], created)
        return None


def _by_schema(requests: Sequence[_Request]) -> dict[str, list[_Request]]:
    found: dict[str, list[_Request]] = {}
    for request in requests:
        found.setdefault(request.schema, []).append(request)
    return found


def _spans_of(items: Sequence[Accepted]) -> tracing.SpanContexts:
    return tracing.signals_submitted(
        [
            (item.row.id, item.row.type, _metadata.decode(item.row.metadata).correlation_id)
            for item in items
        ]
    )


async def _abandon(connection: psycopg.AsyncConnection[Any] | None) -> None:
    if connection is not None:
        await connection.close()
