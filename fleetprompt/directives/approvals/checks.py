"""What must hold before a decision counts, looked at behind the directive's row lock."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.models import Approval, ApprovalDecision
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.release import is_of_action, roles_now
from fleetprompt.directives.models import Directive
from fleetprompt.errors import ConflictError, ForbiddenError, NotFoundError


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides: ``user_id`` is the person behind the key; keys of nobody in particular have none."""

    actor: Actor
    user_id: UUID | None


async def locked(session: AsyncSession, approval_id: UUID) -> tuple[Approval, Directive]:
    """The approval and its directive, read behind the directive's row lock."""
    found = await session.get(Approval, approval_id, populate_existing=True)
    if found is None:
        raise NotFoundError(f"There is no approval {approval_id}.")
    directive = (
        await session.scalars(
            select(Directive)
            .where(Directive.id == found.directive_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).one_or_none()
    if directive is None:
        raise NotFoundError(f"There is no approval {approval_id}.")
    await session.refresh(found)
    return found, directive


async def check_person(session: AsyncSession, by: Decider) -> tuple[UUID, str]:
    """The person behind the key and the person's role now; ForbiddenError where there is none."""
    if by.user_id is None:
        raise ForbiddenError("A decision needs a key that belongs to a person.")
    role = (await roles_now(session, [by.user_id])).get(by.user_id)
    if role is None:
        raise ForbiddenError("Only an active member of this tenant may decide.")
    return by.user_id, role


async def check_decider(session: AsyncSession, policy: ApprovalPolicy, by: Decider) -> UUID:
    """The person, whose key's role and own role of this moment both may decide."""
    user_id, role = await check_person(session, by)
    if by.actor.role not in policy.roles or role not in policy.roles:
        raise ForbiddenError(f"This may be decided by: {', '.join(sorted(policy.roles))}.")
    return user_id


def check_waiting(approval: Approval, directive: Directive) -> None:
    """ConflictError unless this version waits for a decision."""
    if approval.state != "waiting" or directive.state != "awaiting_approval":
        raise ConflictError(
            f"Version {approval.version} is {approval.state} and the directive {directive.state}; "
            "it is no longer waiting for a decision."
        )


async def check_open(
    session: AsyncSession, approval: Approval, directive: Directive, shown: str
) -> None:
    """ConflictError unless it waits, shows what would be done, and has not expired."""
    check_waiting(approval, directive)
    if shown != approval.action_sha256:
        raise ConflictError(
            "The hash is not that of this version's action. Look at it again and decide on what it says."
        )
    if not is_of_action(approval, directive):
        raise ConflictError("What the directive would do is not what this approval shows.")
    if await session.scalar(select(func.clock_timestamp() >= approval.expires_at)):
        raise ConflictError("This approval has expired, which is a rejection; ask anew.")


async def is_repeated(
    session: AsyncSession, approval: Approval, decision: str, shown: str, user_id: UUID
) -> bool:
    """Whether this person has decided the same about the same text before."""
    found = select(ApprovalDecision.id).where(
        ApprovalDecision.approval_id == approval.id,
        ApprovalDecision.user_id == user_id,
        ApprovalDecision.decision == decision,
        ApprovalDecision.action_sha256 == shown,
    )
    return await session.scalar(found) is not None
