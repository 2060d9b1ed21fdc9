"""Whether an approved directive may run, asked again where it is claimed, under its row lock.

What held when people decided may hold no longer: validity is established anew at dispatch
(research/messaging.md §5, mcp-hangar #665): the action's hash, the terms, the approvers' roles
now, and the expiry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from fleetprompt.directives.approvals.action import action_of
from fleetprompt.directives.approvals.asking import settle_approval, tell
from fleetprompt.directives.approvals.models import Approval, ApprovalDecision
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.terms import terms_of
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import InvalidError

ROLES = text("SELECT user_id, role FROM approver_roles(:people)").bindparams(
    bindparam("people", type_=ARRAY(Uuid()))
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a directive is not released; an expiry is a rejection, so it cancels."""

    state: Literal["failed", "cancelled"]
    message: str


async def refuse_unapproved(
    session: AsyncSession,
    directive_ids: Sequence[UUID],
    types: Mapping[str, AnyDirectiveType],
    *,
    owner: str,
) -> dict[UUID, Refusal]:
    """Those of the directives that may not run, and why; their approvals are settled and told of.

    The caller holds the directives' row locks and ends those that are refused.
    """
    refused: dict[UUID, Refusal] = {}
    directives = await session.scalars(
        select(Directive)
        .where(Directive.id.in_(directive_ids))
        .execution_options(populate_existing=True)
    )
    for directive in directives.all():
        approval = await _latest(session, directive.id)
        refusal = await _refusal(session, directive, approval, types.get(directive.type))
        if refusal is None:
            continue
        refused[directive.id] = refusal
        if approval is not None and approval.state == "approved":
            ended = "expired" if refusal.state == "cancelled" else "invalidated"
            await settle_approval(
                session, approval, ended, settled_by=owner, reason=refusal.message
            )
            await tell(session, ended, approval, directive, reason=refusal.message)
    return refused


async def _refusal(
    session: AsyncSession,
    directive: Directive,
    approval: Approval | None,
    kind: AnyDirectiveType | None,
) -> Refusal | None:
    terms = await terms_of(session, directive.type, kind)
    if approval is None:
        if not terms.required:
            return None
        return Refusal("failed", f"{directive.type} needs an approval, and none was asked for")
    if approval.state != "approved":
        return Refusal("failed", f"its approval is {approval.state}")
    if not is_of_action(approval, directive):
        return Refusal("failed", "what it would do is not what was approved")
    # Terms that were switched off leave what was asked for under them as it was.
    if terms.required and terms.policy.sha256 != approval.policy_sha256:
        return Refusal("failed", "the approval policy has changed since it was approved")
    policy = ApprovalPolicy.from_json(approval.policy)
    standing = await standing_approvals(session, approval, policy, directive)
    if standing < policy.approvals:
        return Refusal(
            "failed",
            f"only {standing} of {policy.approvals} approvals come from people who may still approve",
        )
    if await session.scalar(select(func.now() >= approval.expires_at)):
        return Refusal("cancelled", "the approval expired before it could start")
    return None


def is_of_action(approval: Approval, directive: Directive) -> bool:
    """Whether the directive would still do exactly what the approval shows."""
    try:
        action = action_of(directive)
    except InvalidError:
        return False
    return (action.text, action.sha256) == (approval.action, approval.action_sha256)


async def standing_approvals(
    session: AsyncSession, approval: Approval, policy: ApprovalPolicy, directive: Directive
) -> int:
    """How many people approved this version and may approve it by their role of this moment."""
    people = {
        decision.user_id: decision
        for decision in await session.scalars(
            select(ApprovalDecision).where(
                ApprovalDecision.approval_id == approval.id,
                ApprovalDecision.decision == "approve",
                ApprovalDecision.action_sha256 == approval.action_sha256,
            )
        )
    }
    roles = await roles_now(session, list(people))
    return sum(
        roles.get(user_id) in policy.roles
        and (policy.proposer_may_approve or decision.actor not in proposers(approval, directive))
        for user_id, decision in people.items()
    )


def proposers(approval: Approval, directive: Directive) -> set[str]:
    """Who asked for the directive and who wrote this version of it."""
    return {directive.actor, approval.proposed_by}


async def roles_now(session: AsyncSession, people: Sequence[UUID]) -> dict[UUID, str]:
    """The roles of those among ``people`` who are active members of the session's tenant."""
    if not people:
        return {}
    return {row.user_id: row.role for row in await session.execute(ROLES, {"people": people})}


async def _latest(session: AsyncSession, directive_id: UUID) -> Approval | None:
    found: Approval | None = await session.scalar(
        select(Approval)
        .where(Approval.directive_id == directive_id)
        .order_by(Approval.version.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return found
