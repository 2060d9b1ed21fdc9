"""Working directives off: many in one process, each under a lease, each attempt ended once.

A runner claims what is due, tenants in turns, and runs the handlers with bounded concurrency. It
may be killed at any point: what it held is taken up by others when the leases have run out.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.attempt import run_handler
from fleetprompt.directives.due import abandoned, reserve
from fleetprompt.directives.end_writer import EndWriter, OwnEnd
from fleetprompt.directives.ending import AttemptEnd
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.heart import Heart
from fleetprompt.directives.leases import ClaimedDirective, Settlement
from fleetprompt.directives.outcomes import DirectiveOutcome, OnDone, tell
from fleetprompt.directives.taking import Taken, take, take_back
from fleetprompt.directives.turn import Turn
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.directives.wake import WakeUps
from fleetprompt.errors import DatabaseUnavailableError, NotFoundError, OverloadedError
from fleetprompt.executions.running import RunningExecution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.models import Organization
from fleetprompt.tenants.service import Tenant, as_tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault

LEASE_SECONDS = 45.0
POLL_SECONDS = 1.0
CONCURRENCY = 32

_MOST_BACK = 100
_MOST_KEPT = 10_000
_LOST = Settlement("lost", error_kind="unknown", error_message="the lease was gone before the end")
_AWAY = (DatabaseUnavailableError, OverloadedError)

logger = logging.getLogger("fleetprompt.directives")


_Attempts = set[asyncio.Task[DirectiveOutcome]]


def _collect(on_done: OnDone | None) -> tuple[deque[DirectiveOutcome], OnDone]:
    outcomes: deque[DirectiveOutcome] = deque(maxlen=_MOST_KEPT)

    def ended(outcome: DirectiveOutcome) -> None:
        # What an execution keeps may be long; it is for ``on_done`` alone.
        outcomes.append(replace(outcome, kept=None))
        if on_done is not None:
            on_done(outcome)

    return outcomes, ended


class DirectiveRunner:
    """Claims and runs directives while its ``async with`` block is open.

    ``owner`` names this worker in leases and transitions. ``types`` replaces the registry in tests.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        owner: str,
        concurrency: int = CONCURRENCY,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        dagster_run_id: str | None = None,
        types: Mapping[str, AnyDirectiveType] | None = None,
        clock: Clock = system_clock,
        http: OutboundClient | None = None,
    ) -> None:
        self.database, self.settings, self.owner = database, settings, owner
        self.concurrency = concurrency
        self.lease_seconds, self.poll_seconds = lease_seconds, poll_seconds
        self.dagster_run_id = dagster_run_id
        self.clock = clock
        self.types = directive_types() if types is None else types
        self._http = http or OutboundClient(settings)
        self._vault = Vault(database, load_master_key(settings))
        self._heart = Heart(
            database.url, settings, lease_seconds=lease_seconds, on_lost=self._stop_lost
        )
        self._ends = EndWriter(database, self.types, owner=owner, patience_seconds=lease_seconds)
        self._slots = asyncio.Semaphore(concurrency)
        self._look_for_abandoned_at = 0.0
        self._tenants: dict[str, Tenant] = {}
        self._attempts: _Attempts = set()
        self._handlers: dict[UUID, asyncio.Task[Settlement]] = {}

    async def __aenter__(self) -> Self:
        await self._heart.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        # Attempts that are left were cut off from outside; what they hold, leases give back.
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        await self._ends.close()
        await self._heart.__aexit__(kind, error, tb)

    async def drain(
        self,
        *,
        linger_seconds: float = 0.0,
        most_seconds: float = 600.0,
        hand_over_seconds: float = 0.0,
        on_done: OnDone | None = None,
    ) -> list[DirectiveOutcome]:
        """Work off what is due, stay ``linger_seconds`` for more, and return the latest 10,000 outcomes.

        After ``most_seconds`` it retires: it goes on until another worker is there, at most for
        ``hand_over_seconds``, then claims nothing more and finishes what runs.
        """
        outcomes, ended = _collect(on_done)
        running: _Attempts = set()
        idle_since = time.monotonic()
        turn = Turn(self.database, self.owner, most_seconds, hand_over_seconds)
        async with WakeUps(self.database.url) as wake_ups, turn:
            with self._heart.announcing(self.owner):
                while True:
                    taking = await turn.goes_on()
                    if taking and len(running) < self.concurrency:
                        running |= await self._start_due(self.concurrency - len(running), ended)
                    now = time.monotonic()
                    if running:
                        idle_since = now
                    elif not taking or now >= idle_since + linger_seconds:
                        return list(outcomes)
                    patience = self.poll_seconds
                    if not running:
                        patience = min(patience, idle_since + linger_seconds - now)
                    running = await self._wait(running, wake_ups, max(0.0, patience), ended)

    async def work_asked(
        self,
        tenant: Tenant,
        ask: Callable[[AsyncSession], Awaitable[Sequence[UUID]]],
        *,
        on_done: OnDone | None = None,
    ) -> list[DirectiveOutcome]:
        """``work`` for what ``ask`` asks for, which is claimed in the transaction that asks for it."""
        outcomes, ended = _collect(on_done)
        async with self.database.tenant(tenant.schema) as session:
            found = await self._take(session, tenant, await ask(session))
        for outcome in await asyncio.gather(*self._begin(tenant, found, ended)):
            ended(outcome)
        return list(outcomes)

    async def work(
        self, tenant: Tenant, ids: Sequence[UUID], *, on_done: OnDone | None = None
    ) -> list[DirectiveOutcome]:
        """Run those of the tenant's directives that are due now, one attempt each."""
        outcomes, ended = _collect(on_done)
        for start in range(0, len(ids), self.concurrency):
            attempts = await self._start(tenant, ids[start : start + self.concurrency], ended)
            for outcome in await asyncio.gather(*attempts):
                ended(outcome)
        return list(outcomes)

    async def work_many(
        self, work: Mapping[Tenant, Sequence[UUID]], *, on_done: OnDone | None = None
    ) -> list[DirectiveOutcome]:
        """``work`` for many tenants, as many at once as handlers may run."""
        tenants = iter(work.items())

        async def lane() -> list[DirectiveOutcome]:
            outcomes: list[DirectiveOutcome] = []
            for tenant, ids in tenants:
                outcomes += await self.work(tenant, ids, on_done=on_done)
            return outcomes

        lanes = await asyncio.gather(*(lane() for _ in range(self.concurrency)))
        return [outcome for outcomes in lanes for outcome in outcomes]

    async def _start_due(self, limit: int, ended: OnDone) -> _Attempts:
        started: _Attempts = set()
        try:
            await self._take_back_abandoned(ended)
            reserved = await reserve(
                self.database,
                limit,
                most_of_tenant=self.settings.directive_tenant_concurrency,
                types=self.types,
            )
        except _AWAY as error:
            logger.warning("nothing was looked for: %s", error)
            return started
        for schema, ids in reserved.items():
            with self._going_on():
                if (tenant := await self._tenant(schema)) is not None:
                    started |= await self._start(tenant, ids, ended)
        return started

    async def _take_back_abandoned(self, ended: OnDone) -> None:
        """What connectors left behind, looked for as often as is polled."""
        if time.monotonic() < self._look_for_abandoned_at:
            return
        self._look_for_abandoned_at = time.monotonic() + self.poll_seconds
        for (schema, connector_id), ids in (await abandoned(self.database, _MOST_BACK)).items():
            with self._going_on():
                if (tenant := await self._tenant(schema)) is None:
                    continue
                async with self.database.tenant(schema) as session:
                    back = await take_back(
                        session, tenant, connector_id, ids, owner=self.owner, types=self.types
                    )
                for directive, end in back:
                    ended(tell(tenant, directive, end, None, 0.0))

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """What one tenant's part runs into does not stop the others'."""
        try:
            yield
        except _AWAY as error:
            logger.warning("nothing more was claimed of a tenant: %s", error)
        except NotFoundError:
            # A tenant that has just been deleted: who there is, is read anew.
            self._tenants.clear()
        except DBAPIError:
            logger.exception("claiming failed")

    async def _start(self, tenant: Tenant, ids: Sequence[UUID], ended: OnDone) -> _Attempts:
        """Claim and start; directives given up or refused are told to ``ended`` at once."""
        async with self.database.tenant(tenant.schema) as session:
            found = await self._take(session, tenant, ids)
        return self._begin(tenant, found, ended)

    async def _take(self, session: AsyncSession, tenant: Tenant, ids: Sequence[UUID]) -> Taken:
        return await take(
            session,
            tenant,
            limit=len(ids),
            owner=self.owner,
            lease_seconds=self.lease_seconds,
            ids=ids,
            dagster_run_id=self.dagster_run_id,
            types=self.types,
        )

    def _begin(self, tenant: Tenant, found: Taken, ended: OnDone) -> _Attempts:
        """Run what was claimed; its transaction is committed."""
        for directive, end in found.ended:
            ended(tell(tenant, directive, end, None, 0.0))
        attempts: _Attempts = set()
        for directive in found.claimed:
            self._heart.hold(tenant.schema, directive.id, directive.lease_token)
            execution = RunningExecution(
                self.database, tenant.schema, found.executions[directive.id]
            )
            attempt = asyncio.create_task(self._attempt(tenant, directive, execution))
            attempts.add(attempt)
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
        return attempts

    async def _wait(
        self, running: _Attempts, wake_ups: WakeUps, seconds: float, ended: OnDone
    ) -> _Attempts:
        """Until an attempt ends, a notification comes or ``seconds`` are over; those still running."""
        watched: set[asyncio.Task[Any]] = set(running)
        woken: asyncio.Task[bool] | None = None
        if len(running) < self.concurrency:
            woken = asyncio.create_task(wake_ups.wait(seconds))
            watched.add(woken)
        done, _ = await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if woken is not None:
            woken.cancel()
        for attempt in running & done:
            ended(attempt.result())
        return running - done

    async def _attempt(
        self, tenant: Tenant, directive: ClaimedDirective, execution: RunningExecution
    ) -> DirectiveOutcome:
        started = time.monotonic()
        kind, token = self.types.get(directive.type), directive.lease_token
        own = OwnEnd(tenant, directive, execution, self.types, self.owner, self._heart.release)
        context = HandlerContext(
            tenant=tenant,
            database=self.database,
            settings=self.settings,
            clock=self.clock,
            directive=directive,
            execution=execution,
            vault=self._vault,
            http=self._http,
            succeed=own,
        )
        try:
            async with self._slots:
                work = asyncio.create_task(run_handler(kind, context))
                self._handlers[token] = work
                await asyncio.wait({work})
            settlement = _LOST if work.cancelled() else work.result()
            if settlement.state == "succeeded" and own.settlement is not None:
                settlement = own.settlement
            elif settlement is not _LOST:
                end = AttemptEnd(directive, settlement, execution)
                settlement = settlement if await self._ends.write(tenant, end) else _LOST
        finally:
            self._heart.release(token)
            if (handler := self._handlers.pop(token, None)) and not handler.done():
                handler.cancel()
                await asyncio.wait({handler})
        took = time.monotonic() - started
        return tell(tenant, directive, settlement, execution, took)

    def _stop_lost(self, lease_token: UUID) -> None:
        """The directive was cancelled or given to another attempt: stop this one."""
        if (handler := self._handlers.get(lease_token)) is not None:
            handler.cancel()

    async def _tenant(self, schema: str) -> Tenant | None:
        """The active tenant of a schema; None while it is being made or deleted."""
        if schema not in self._tenants:
            async with self.database.platform() as session:
                found = await session.scalars(
                    select(Organization).where(Organization.state == "active")
                )
                self._tenants = {one.schema_name: as_tenant(one) for one in found}
        return self._tenants.get(schema)
