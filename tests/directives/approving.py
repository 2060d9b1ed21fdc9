"""What the tests of approvals share: a type that needs them, people, and looking at the outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.models import Directive
from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, DirectiveType
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import Role
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant


class Letter(DirectiveParams):
    """What to send, and to whom."""

    to: str
    words: str


@dataclass
class Office:
    """A tenant with a directive type ``test.send`` that needs approval, and people who give it."""

    database: Database
    settings: Settings
    tenant: Tenant
    policy: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    sent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def types(self) -> Mapping[str, AnyDirectiveType]:
        async def send(_context: HandlerContext, params: Letter) -> dict[str, Any]:
            self.sent.append(params.model_dump())
            return {"sent": True}

        kind = DirectiveType("test.send", "Sends.", Letter, send, approval=self.policy)
        free = DirectiveType("test.free", "Sends.", Letter, send)
        return {kind.name: kind, free.name: free}

    async def person(self, role: Role) -> Decider:
        """A member with a key of the same role."""
        async with self.database.platform() as session:
            email = f"{new_id().hex}@example.org"
            member = await add_member(session, self.tenant, email=email, role=role)
        return Decider(Actor(f"user:{member.user_id}", role), member.user_id)

    async def ask(
        self, by: Decider | None = None, kind: str = "test.send", key: str = "", **params: str
    ) -> Approval:
        """Ask for a letter; the approval that waits."""
        actor = by.actor if by else Actor("key:agent", "admin")
        async with self.database.tenant(self.tenant.schema) as session:
            directive, _ = await directives.request_directive(
                session,
                self.tenant,
                kind,
                {"to": "ada@example.org", "words": "hello", **params},
                idempotency_key=key or new_id().hex,
                actor=actor,
                correlation_id="corr-1",
                types=self.types,
            )
            (latest, *_) = await service.list_approvals(session, directive_id=directive.id)
            return latest

    async def approve(self, approval: Approval, by: Decider, shown: str = "") -> Approval:
        async with self.database.tenant(self.tenant.schema) as session:
            return await service.approve(
                session, approval.id, shown or approval.action_sha256, by, types=self.types
            )

    async def reject(self, approval: Approval, by: Decider, reason: str = "no") -> Approval:
        async with self.database.tenant(self.tenant.schema) as session:
            return await service.reject(
                session, self.tenant, approval.id, approval.action_sha256, reason, by,
                types=self.types,
            )  # fmt: skip

    async def edit(self, approval: Approval, by: Decider, **params: str) -> Approval:
        async with self.database.tenant(self.tenant.schema) as session:
            return await service.edit(
                session, approval.id, {"to": "ada@example.org", "words": "hello", **params}, by,
                types=self.types,
            )  # fmt: skip

    async def read(self, approval: Approval) -> tuple[Approval, Directive]:
        async with self.database.tenant(self.tenant.schema) as session:
            found = await service.get_approval(session, approval.id)
            return found, await directives.get(session, approval.directive_id)

    async def work(self, approval: Approval) -> list[DirectiveOutcome]:
        """One attempt at the directive, if it is due."""
        async with DirectiveRunner(
            self.database, self.settings, owner="worker-1", types=self.types
        ) as runner:
            return await runner.work(self.tenant, [approval.directive_id])

    async def told(self, approval: Approval) -> list[str]:
        """The signals of the directive and its approvals, by type, in order."""
        async with self.database.tenant(self.tenant.schema) as session:
            found = await session.scalars(
                text(
                    "SELECT type FROM signals WHERE subject_id = :id"
                    " OR data ->> 'directive_id' = :id ORDER BY id"
                ),
                {"id": str(approval.directive_id)},
            )
            return list(found)

    async def tamper(self, statement: str, approval: Approval, schema: str = "") -> None:
        """Change something behind the service's back, as the tenant's role."""
        async with self.database.tenant(schema or self.tenant.schema) as session:
            await session.execute(text(statement), {"id": approval.directive_id})

    async def demote(self, person: Decider, role: str | None) -> None:
        """Give a member another role behind everything else; None removes the membership."""
        change = "DELETE FROM fleetprompt.members WHERE user_id = :user"
        if role is not None:
            change = "UPDATE fleetprompt.members SET role = :role WHERE user_id = :user"
        async with self.database.platform() as session:
            await session.execute(text(change), {"role": role, "user": person.user_id})


def user_id_of(person: Decider) -> UUID:
    """The id of a person that has one."""
    assert person.user_id is not None
    return person.user_id
