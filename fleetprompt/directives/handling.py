"""What a directive's handler is given to work with."""

from dataclasses import dataclass

from fleetprompt.clock import Clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.executions.running import RunningExecution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.service import Vault


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """One attempt's surroundings; each seam may be another one in a test."""

    tenant: Tenant
    database: Database
    settings: Settings
    clock: Clock
    directive: ClaimedDirective
    execution: RunningExecution
    vault: Vault
    http: OutboundClient
