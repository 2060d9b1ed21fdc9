"""What a package can do beyond its directives: connect, keep a schedule, run on demand.

A package offers these as ``OPERATIONS`` in its ``handlers.py``; the platform asks for them by the
package's slug and knows no package by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.errors import ErrorKind
from fleetprompt.executions.models import Execution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import registry
from fleetprompt.packages.models import Installation
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import Schedule
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.secret import Secret


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at the other side gave; ``unverified`` when it could not be reached."""

    state: Literal["connected", "failing", "unverified"]
    error_kind: ErrorKind | None = None
    message: str | None = None


@runtime_checkable
class Operations(Protocol):
    """A package's own part in what the platform does with its installations."""

    @property
    def credential_kind(self) -> str:
        """The kind of credential it connects with."""

    @property
    def credential_option(self) -> str:
        """The option of its configuration that names the credential."""

    @property
    def run_directive(self) -> str:
        """The directive type of one run."""

    def label(self, secret: Secret, settings: Settings) -> str:
        """What people may see of the secret, such as the host; InvalidError if it cannot be used."""

    async def verify(
        self, client: OutboundClient, secret: Secret, config: Mapping[str, Any]
    ) -> Verification:
        """Whether the secret works, without any effect on the other side."""

    def schedule(self, config: Mapping[str, Any]) -> Schedule | None:
        """When it runs by itself; None when it does not or cannot yet."""

    async def request_run(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        actor: Actor,
        now: datetime,
    ) -> tuple[Directive, Execution]:
        """Ask for a run on demand."""

    async def request_scheduled(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        slot: ScheduleSlot,
    ) -> Directive:
        """Ask for the slot's run; the same slot gives the same directive."""


def operations_of(slug: str) -> Operations | None:
    """The package's operations, None if it offers none; NotFoundError for an unknown package."""
    offered: Operations | None = getattr(registry.handlers_of(slug), "OPERATIONS", None)
    return offered
