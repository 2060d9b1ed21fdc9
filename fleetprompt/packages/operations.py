"""What a package can do beyond its directives: connect, keep a schedule, run on demand.

A package offers these as ``OPERATIONS`` in its ``handlers.py``; the platform asks for them by the
package's slug and knows no package by name.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

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


@dataclass(frozen=True, slots=True)
class Connectable:
    """One kind of credential that a package connects with; see ``Operations``' own members."""

    option: str
    label: Callable[[Secret, Settings], str]
    verify: Callable[[OutboundClient, Secret, Mapping[str, Any]], Awaitable[Verification]]


def connectables_of(operations: Operations) -> Mapping[str, Connectable]:
    """Every kind of credential that a package connects with.

    Besides the one that each package has, ``further_connections`` may name others.
    """
    first = Connectable(operations.credential_option, operations.label, operations.verify)
    further: Mapping[str, Connectable] = getattr(operations, "further_connections", {})
    return {operations.credential_kind: first, **further}


Resolution = Literal["look", "post_again", "give_up"]


@runtime_checkable
class PostingOperations(Operations, Protocol):
    """What a package that posts messages offers besides, as its users' ways out of trouble."""

    @property
    def test_directive(self) -> str:
        """The directive type of one test post."""

    def used_kinds(self, config: Mapping[str, Any]) -> frozenset[str]:
        """The kinds of credentials that this configuration posts with."""

    async def request_test(
        self, session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor
    ) -> tuple[Directive, Execution]:
        """Ask for one test post."""

    async def request_resolution(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        message_id: UUID,
        resolution: Resolution,
        actor: Actor,
    ) -> Directive:
        """Ask for something to be done about a message that was not certainly posted."""


def posting_operations_of(slug: str) -> PostingOperations | None:
    """The package's operations if it posts messages; NotFoundError for an unknown package."""
    offered = operations_of(slug)
    return offered if isinstance(offered, PostingOperations) else None
