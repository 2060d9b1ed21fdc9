"""Working directives off: many in one process, each under a lease, each attempt ended once.

A runner claims what is due, tenants in turns, and runs the handlers with bounded concurrency. It
may be killed at any point: what it held is taken up by others when the leases have run out.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.attempt import record_end, run_handler
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.heart import Heart
from fleetprompt.directives.queue import ClaimedDirective, Settlement, due_directives, settle
from fleetprompt.directives.taking import take
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.directives.wake import WakeUps
from fleetprompt.errors import (
    DatabaseUnavailableError,
    ErrorKind,
    NotFoundError,
    OverloadedError,
    StaleLeaseError,
)
from fleetprompt.executions.running import RunningExecution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.models import Organization
from fleetprompt.tenants.service import Tenant, as_tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault

LEASE_SECONDS = 45.0
POLL_SECONDS = 1.0

_LOST = Settlement("lost", error_kind="unknown", error_message="the lease was gone before the end")
_AWAY = (DatabaseUnavailableError, OverloadedError)

logger = logging.getLogger("fleetprompt.directives")


@dataclass(frozen=True, slots=True)
class DirectiveOutcome:
    """How one attempt ended. ``state`` is the directive's, or ``lost`` when its lease was gone.

    Times are in seconds: from due to claimed, and from claimed to ended.
    """

    tenant: str
    directive_id: UUID
    type: str
    attempt: int
    state: str
    waited: float
    took: float
    execution_id: UUID | None = None
    correlation_id: str | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None


OnDone = Callable[[DirectiveOutcome], None]
_Attempts = set[asyncio.Task[DirectiveOutcome]]


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
        concurrency: int = 8,
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
        self._slots = asyncio.Semaphore(concurrency)
        self._tenants: dict[str, Tenant] = {}
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
        await self._heart.__aexit__(kind, error, tb)

    async def drain(
        self,
        *,
        linger_seconds: float = 0.0,
        most_seconds: float = 600.0,
        on_done: OnDone | None = None,
    ) -> list[DirectiveOutcome]:
        """Work off what is due, stay ``linger_seconds`` for more, and return what was done.

        After ``most_seconds`` nothing new is claimed; what runs is finished first.
        """
        outcomes: list[DirectiveOutcome] = []

        def ended(outcome: DirectiveOutcome) -> None:
            outcomes.append(outcome)
            if on_done is not None:
                on_done(outcome)

        running: _Attempts = set()
        idle_since = time.monotonic()
        retire_at = idle_since + most_seconds
        async with WakeUps(self.database.url) as wake_ups:
            while True:
                now = time.monotonic()
                if now < retire_at and len(running) < self.concurrency:
                    running |= await self._start_due(self.concurrency - len(running), ended)
                if running:
                    idle_since = time.monotonic()
                elif now >= min(retire_at, idle_since + linger_seconds):
                    return outcomes
                patience = self.poll_seconds
                if not running:
                    patience = min(patience, retire_at - now, idle_since + linger_seconds - now)
                running = await self._wait(running, wake_ups, max(0.0, patience), ended)

    async def work(
        self, tenant: Tenant, ids: Sequence[UUID], *, on_done: OnDone | None = None
    ) -> list[DirectiveOutcome]:
        """Run those of the tenant's directives that are due now, one attempt each."""
        outcomes: list[DirectiveOutcome] = []

        def ended(outcome: DirectiveOutcome) -> None:
            outcomes.append(outcome)
            if on_done is not None:
                on_done(outcome)

        for start in range(0, len(ids), self.concurrency):
            attempts = await self._start(tenant, ids[start : start + self.concurrency], ended)
            for outcome in await asyncio.gather(*attempts):
                ended(outcome)
        return outcomes

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
            for schema, ids in (await due_directives(self.database, limit)).items():
                tenant = await self._tenant(schema)
                if tenant is not None:
                    started |= await self._start(tenant, ids, ended)
        except _AWAY as error:
            logger.warning("nothing more was claimed: %s", error)
        except NotFoundError:
            # A tenant that has just been deleted: who there is, is read anew.
            self._tenants.clear()
        except DBAPIError:
            logger.exception("claiming failed")
        return started

    async def _start(self, tenant: Tenant, ids: Sequence[UUID], ended: OnDone) -> _Attempts:
        """Claim and start; directives given up or refused are told to ``ended`` at once."""
        async with self.database.tenant(tenant.schema) as session:
            found = await take(
                session,
                tenant,
                limit=len(ids),
                owner=self.owner,
                lease_seconds=self.lease_seconds,
                ids=ids,
                dagster_run_id=self.dagster_run_id,
                types=self.types,
            )
        for directive, end in found.ended:
            ended(self._outcome(tenant, directive, end, None, 0.0))
        attempts: _Attempts = set()
        for directive in found.claimed:
            self._heart.hold(tenant.schema, directive.id, directive.lease_token)
            execution = RunningExecution(
                self.database, tenant.schema, found.executions[directive.id]
            )
            attempts.add(asyncio.create_task(self._attempt(tenant, directive, execution)))
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
        kind = self.types.get(directive.type)
        context = HandlerContext(
            tenant=tenant,
            database=self.database,
            settings=self.settings,
            clock=self.clock,
            directive=directive,
            execution=execution,
            vault=self._vault,
            http=self._http,
        )
        try:
            async with self._slots:
                work = asyncio.create_task(run_handler(kind, context))
                self._handlers[directive.id] = work
                await asyncio.wait({work})
            settlement = _LOST if work.cancelled() else work.result()
            if settlement is not _LOST:
                settlement = await self._settle(tenant, directive, settlement, execution)
        finally:
            self._heart.release(directive.id)
            if (handler := self._handlers.pop(directive.id, None)) and not handler.done():
                handler.cancel()
        took = time.monotonic() - started
        return self._outcome(tenant, directive, settlement, execution.id, took)

    async def _settle(
        self,
        tenant: Tenant,
        directive: ClaimedDirective,
        settlement: Settlement,
        execution: RunningExecution,
    ) -> Settlement:
        """Write an attempt's end; while the database is away, for as long as the lease could last."""
        kind = self.types.get(directive.type)
        give_up_at = time.monotonic() + self.lease_seconds
        while True:
            try:
                async with self.database.tenant(tenant.schema) as session:
                    await settle(session, directive, settlement, owner=self.owner)
                    await record_end(
                        session, tenant, directive, settlement, kind=kind, running=execution
                    )
            except StaleLeaseError as error:
                logger.warning("%s", error, extra={"directive_id": str(directive.id)})
                return _LOST
            except (NotFoundError, DBAPIError):
                logger.exception("the end of an attempt could not be written")
                return _LOST
            except _AWAY as error:
                if time.monotonic() >= give_up_at:
                    logger.exception("the end of an attempt could not be written")
                    return _LOST
                logger.warning("the end of an attempt is not written yet: %s", error)
                await asyncio.sleep(self.poll_seconds)
            else:
                return settlement

    def _stop_lost(self, directive_id: UUID) -> None:
        """The directive was cancelled or given to another attempt: stop this one."""
        if (handler := self._handlers.get(directive_id)) is not None:
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

    def _outcome(
        self,
        tenant: Tenant,
        directive: ClaimedDirective,
        settlement: Settlement,
        execution_id: UUID | None,
        took: float,
    ) -> DirectiveOutcome:
        waited = (directive.claimed_at - directive.available_at).total_seconds()
        outcome = DirectiveOutcome(
            tenant=tenant.slug,
            directive_id=directive.id,
            type=directive.type,
            attempt=directive.attempt,
            state=settlement.state,
            waited=max(0.0, waited),
            took=took,
            execution_id=execution_id,
            correlation_id=directive.correlation_id,
            error_kind=settlement.error_kind,
            error_message=settlement.error_message,
        )
        logger.info(
            "directive %s: %s",
            directive.type,
            settlement.state,
            extra={
                "tenant": tenant.slug,
                "directive_id": str(directive.id),
                "execution_id": str(execution_id),
                "attempt": directive.attempt,
                "correlation_id": directive.correlation_id,
                "error_kind": settlement.error_kind,
                "waited_seconds": round(outcome.waited, 3),
                "took_seconds": round(took, 3),
            },
        )
        return outcome
