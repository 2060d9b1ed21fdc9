"""What a directive's handler is given to work with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.executions.running import RunningExecution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.service import Vault

Succeed = Callable[[AsyncSession, dict[str, Any]], Awaitable[None]]


async def succeed_later(_: AsyncSession, __: dict[str, Any]) -> None:
    """Leave the attempt's end to whoever runs the handler."""


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """One attempt's surroundings; each seam may be another one in a test.

    ``succeed`` ends the attempt with this result in the handler's own tenant transaction, so that a fact
    and the end that follows from it are committed together. To be called ahead of other writes, since the
    directive's row is locked first everywhere; the handler then returns an equal result. An attempt that
    has lost its lease is not ended, while the handler's facts stand.
    """

    tenant: Tenant
    database: Database
    settings: Settings
    clock: Clock
    directive: ClaimedDirective
    execution: RunningExecution
    vault: Vault
    http: OutboundClient
    succeed: Succeed = succeed_later
