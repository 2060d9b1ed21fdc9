"""Keeping leases alive from a thread of its own, which a busy handler cannot starve.

A handler that computes without yielding blocks its event loop, and a heartbeat on that loop with it
(research/platform.md, T14). The thread has its own loop and its own connection.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from fleetprompt.db.engine import Database
from fleetprompt.directives import workers
from fleetprompt.directives.leases import heartbeat
from fleetprompt.errors import FleetPromptError
from fleetprompt.settings import Settings
from fleetprompt.telemetry import events, tracing
from fleetprompt.telemetry.reporting import reporting

_BEATS_A_LEASE = 3

logger = logging.getLogger(__name__)


class Heart:
    """Renews the leases it holds three times a lease; ``on_lost`` gets a token on the opener's loop.

    Within ``announcing`` it also tells that a worker is alive. A process that is stopped or cut off from
    the database beats no more: its leases run out and others take the work, which is what a lease is for.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        lease_seconds: float,
        on_lost: Callable[[UUID], None],
    ) -> None:
        self._url, self._settings = url, settings
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._announced: str | None = None
        # By token: after an outage a worker may hold two leases of one directive, a lost and a new one.
        self._leases: dict[UUID, tuple[str, UUID]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._home: asyncio.AbstractEventLoop | None = None

    def hold(self, schema: str, directive_id: UUID, lease_token: UUID) -> None:
        """Keep this lease alive from now on."""
        with self._lock:
            self._leases[lease_token] = (schema, directive_id)

    def release(self, lease_token: UUID) -> None:
        """Let this lease be; the attempt has ended."""
        with self._lock:
            self._leases.pop(lease_token, None)

    @contextmanager
    def announcing(self, owner: str) -> Iterator[None]:
        """Tell that this worker is alive for as long as the block lasts."""
        self._announced = owner
        try:
            with tracing.span("drain directives", attributes={"fleetprompt.worker": owner}):
                yield
        finally:
            self._announced = None

    async def __aenter__(self) -> Self:
        tracing.start("fleetprompt-worker")
        self._home = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="directive-heart", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(tracing.flush)

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        async with (
            Database(self._url, self._settings, application_name="fleetprompt-heart") as database,
            reporting(database, "worker"),
        ):
            renewal = self._lease_seconds / _BEATS_A_LEASE
            pause, renewed_at = min(renewal, workers.BEAT_SECONDS), time.monotonic()
            while not await asyncio.to_thread(self._stop.wait, pause):
                # Half a pause of tolerance, so that a late awakening does not cost a whole one.
                if time.monotonic() >= renewed_at + renewal - pause / 2:
                    renewed_at = time.monotonic()
                    await self._renew(database)
                await self._announce(database)

    async def _announce(self, database: Database) -> None:
        if (owner := self._announced) is None:
            return
        try:
            await workers.beat(database, owner)
        except (FleetPromptError, DBAPIError) as error:
            logger.warning("this worker could not tell that it is alive: %s", type(error).__name__)

    async def _renew(self, database: Database) -> None:
        for schema, leases in self._by_schema().items():
            try:
                async with database.tenant(schema) as session:
                    kept = await heartbeat(session, leases, lease_seconds=self._lease_seconds)
            except (FleetPromptError, DBAPIError) as error:
                # Of one tenant, which may just have been deleted: the others go on.
                logger.warning("leases were not renewed: %s", type(error).__name__)
                events.heartbeat_failed()
                continue
            self._tell(token for _, token in leases if token not in kept)

    def _by_schema(self) -> dict[str, list[tuple[UUID, UUID]]]:
        grouped: dict[str, list[tuple[UUID, UUID]]] = {}
        with self._lock:
            for token, (schema, directive_id) in self._leases.items():
                grouped.setdefault(schema, []).append((directive_id, token))
        return grouped

    def _tell(self, lost: Iterable[UUID]) -> None:
        for token in lost:
            with self._lock:
                held = self._leases.pop(token, None)
            # One that was released meanwhile has ended, and was not lost.
            if held is not None and self._home is not None:
                events.lease_lost()
                self._home.call_soon_threadsafe(self._on_lost, token)
