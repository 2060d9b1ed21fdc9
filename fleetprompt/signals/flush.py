"""One flush: what was taken from the queue becomes one transaction, and everybody in it is answered.

If PostgreSQL refuses a row, the requests of the flush are written one by one, so that it fails alone.
If the connection breaks, everybody hears 503: whether the commit happened is then unknown, and the
dedupe key makes asking again safe.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any
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
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.signals.envelope import Accepted
from fleetprompt.signals.refusals import REFUSALS, explain
from fleetprompt.signals.statements import COMPARE, REQUEST, STORE
from fleetprompt.signals.submitted import Stored, Submitted, by_schema
from fleetprompt.signals.wakeups import Notifier
from fleetprompt.telemetry import events, spans, tracing

log = logging.getLogger(__name__)

WRITE_TIMEOUT = 15.0  # seconds after which a silent server counts as gone


class Flusher:
    """Writes flushes on connections that its callers keep; ``types`` replaces the registry in tests."""

    def __init__(
        self, url: str, notifier: Notifier, types: Mapping[str, AnyDirectiveType] | None = None
    ) -> None:
        self._url, self._notifier, self._types = url, notifier, types

    async def write(
        self, connection: psycopg.AsyncConnection[Any] | None, taken: list[Submitted]
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
                linked = [span for request in taken for span in request.spans]
                spans.flushed(started_ns, linked, failed=any(r.failed for r in taken))
        events.flushed(sum(len(r.items) for r in taken), time.perf_counter() - started)
        return connection

    def _fail(self, taken: list[Submitted]) -> None:
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
        self, connection: psycopg.AsyncConnection[Any], taken: list[Submitted]
    ) -> set[UUID]:
        """One transaction with everything in ``taken``; returns the ids of what was new."""
        tenants = by_schema(taken)
        cursors = []
        asked: dict[str, psycopg.AsyncCursor[Any]] = {}
        async with connection.pipeline():
            await connection.execute("BEGIN")
            for schema in sorted(tenants):
                requests = tenants[schema]
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
        taken: list[Submitted],
        created: set[UUID],
    ) -> None:
        """Tell everybody what was committed: first those with nothing but new signals.

        Looking up duplicates may fail, which must not touch the answer to anybody else.
        """
        results = {id_: Stored(id_, "created") for id_ in created}
        unanswered: list[Submitted] = []
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
        for schema, requests in by_schema(unanswered).items():
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
        self, connection: psycopg.AsyncConnection[Any], taken: list[Submitted]
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
        self, connection: psycopg.AsyncConnection[Any], request: Submitted
    ) -> psycopg.Error | None:
        """Write and answer one request; returns why PostgreSQL refuses it, if it does."""
        try:
            created = await self._commit(connection, [request])
        except REFUSALS as error:
            await connection.rollback()
            return error
        await self._answer(connection, [request], created)
        return None


async def _abandon(connection: psycopg.AsyncConnection[Any] | None) -> None:
    if connection is not None:
        await connection.close()
