"""Writing how attempts ended, many in one commit: those that end while the last commit runs go together."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.directives.attempt import succeeded
from fleetprompt.directives.ending import AttemptEnd, record_ends
from fleetprompt.directives.leases import ClaimedDirective, Settlement, settle_many
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import DatabaseUnavailableError, NotFoundError, OverloadedError
from fleetprompt.executions.running import RunningExecution
from fleetprompt.tenants.service import Tenant

_MOST_AT_ONCE = 100
_PAUSE_SECONDS = 1.0
_AWAY = (DatabaseUnavailableError, OverloadedError)

logger = logging.getLogger("fleetprompt.directives")

_Waiting = tuple[AttemptEnd, asyncio.Future[bool]]


@dataclass(slots=True)
class OwnEnd:
    """``HandlerContext.succeed``: an attempt's success, written by its handler among its own writes.

    ``settlement`` is set once it was written; it counts if the handler then returns, as its transaction
    has been committed by then. ``release`` lets the lease be, which is gone with the end.
    """

    tenant: Tenant
    directive: ClaimedDirective
    execution: RunningExecution
    types: Mapping[str, AnyDirectiveType]
    owner: str
    release: Callable[[UUID], None]
    settlement: Settlement | None = None

    async def __call__(self, session: AsyncSession, result: dict[str, Any]) -> None:
        """Write it, unless the lease is lost or the result cannot be stored."""
        self.settlement = None
        settlement = succeeded(self.types[self.directive.type], result)
        if settlement.state != "succeeded":
            return
        self.release(self.directive.lease_token)
        if await settle_many(session, [(self.directive, settlement)], owner=self.owner):
            end = AttemptEnd(self.directive, settlement, self.execution)
            await record_ends(session, self.tenant, [end], self.types)
            self.settlement = settlement


class EndWriter:
    """Writes ends under ``owner``; one commit at a time for each tenant.

    While the database is away it tries for ``patience_seconds``, as long as a lease could last.
    """

    def __init__(
        self,
        database: Database,
        types: Mapping[str, AnyDirectiveType],
        *,
        owner: str,
        patience_seconds: float,
    ) -> None:
        self._database, self._types, self._owner = database, types, owner
        self._patience_seconds = patience_seconds
        self._waiting: dict[Tenant, list[_Waiting]] = {}
        self._tasks: dict[Tenant, asyncio.Task[None]] = {}

    async def write(self, tenant: Tenant, end: AttemptEnd) -> bool:
        """Whether the end was written; not, if the attempt had lost its lease or the tenant is gone."""
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, []).append((end, written))
        if tenant not in self._tasks:
            self._tasks[tenant] = asyncio.create_task(self._write_all(tenant))
        return await written

    async def close(self) -> None:
        """Finish what is being written."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _write_all(self, tenant: Tenant) -> None:
        try:
            while waiting := self._waiting.pop(tenant, None):
                for start in range(0, len(waiting), _MOST_AT_ONCE):
                    await self._write_some(tenant, waiting[start : start + _MOST_AT_ONCE])
        finally:
            del self._tasks[tenant]

    async def _write_some(self, tenant: Tenant, waiting: Sequence[_Waiting]) -> None:
        """One commit; where that fails, a commit for each, so that only the bad one is lost."""
        held = set[UUID]()
        try:
            held = await self._commit(tenant, [end for end, _ in waiting])
        except Exception as error:
            if len(waiting) > 1 and not isinstance(error, (NotFoundError, *_AWAY)):
                for one in waiting:
                    await self._write_some(tenant, [one])
                return
            ids = [str(end.directive.id) for end, _ in waiting]
            logger.exception("attempts' ends could not be written", extra={"directive_ids": ids})
        for end, written in waiting:
            counts = end.directive.lease_token in held
            if not counts:
                logger.warning(
                    "the end of attempt %d of directive %s does not count",
                    end.directive.attempt,
                    end.directive.id,
                )
            if not written.done():
                written.set_result(counts)

    async def _commit(self, tenant: Tenant, ends: Sequence[AttemptEnd]) -> set[UUID]:
        give_up_at = time.monotonic() + self._patience_seconds
        while True:
            try:
                async with self._database.tenant(tenant.schema) as session:
                    held = await settle_many(
                        session, [(e.directive, e.settlement) for e in ends], owner=self._owner
                    )
                    kept = [e for e in ends if e.directive.lease_token in held]
                    await record_ends(session, tenant, kept, self._types)
            except _AWAY as error:
                if time.monotonic() >= give_up_at:
                    raise
                logger.warning("the ends of attempts are not written yet: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return held
