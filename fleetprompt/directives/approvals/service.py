"""Deciding about approvals: reading them, approving, rejecting, editing, and letting them expire.

Every decision locks the directive's row first and then looks, as claiming does, so that any
number of decisions at once and a worker that claims give one order of events. A decision
names the hash of what its maker was shown; another text takes another decision.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.directives.approvals.asking import settle_approval, tell
from fleetprompt.directives.approvals.checks import (
    Decider,
    check_decider,
    check_open,
    check_person,
    check_waiting,
    is_repeated,
    locked,
)
from fleetprompt.directives.approvals.lapse import call_off
from fleetprompt.directives.approvals.models import Approval, ApprovalDecision
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.release import proposers, standing_approvals
from fleetprompt.directives.approvals.renewal import renew
from fleetprompt.directives.approvals.terms import terms_of
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import MOST_AT_ONCE, check_params
from fleetprompt.directives.types import AnyDirectiveType, directive_types, find_type
from fleetprompt.errors import ConflictError, ForbiddenError, NotFoundError, SecretFoundError
from fleetprompt.ids import new_id
from fleetprompt.tenants.service import Tenant


async def get_approval(session: AsyncSession, approval_id: UUID) -> Approval:
    """The tenant's approval of this id; NotFoundError otherwise."""
    found = await session.get(Approval, approval_id, populate_existing=True)
    if found is None:
        raise NotFoundError(f"There is no approval {approval_id}.")
    return found


async def list_approvals(
    session: AsyncSession,
    *,
    state: str | None = None,
    directive_id: UUID | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Approval]:
    """Approvals, newest first; ``before`` is the last id of the page before."""
    query = select(Approval).order_by(Approval.id.desc()).limit(min(limit, MOST_AT_ONCE))
    if state is not None:
        query = query.where(Approval.state == state)
    if directive_id is not None:
        query = query.where(Approval.directive_id == directive_id)
    if before is not None:
        query = query.where(Approval.id < before)
    return list(await session.scalars(query))


async def waiting_approvals(
    session: AsyncSession, directives: Sequence[Directive]
) -> dict[UUID, UUID]:
    """Of those directives that wait for one, the approval that waits: directive's id → its id."""
    waiting = [one.id for one in directives if one.state == "awaiting_approval"]
    if not waiting:
        return {}
    found = await session.execute(
        select(Approval.directive_id, Approval.id).where(
            Approval.directive_id.in_(waiting), Approval.state == "waiting"
        )
    )
    return {row.directive_id: row.id for row in found}


async def decisions(
    session: AsyncSession, approval_ids: Sequence[UUID]
) -> dict[UUID, list[ApprovalDecision]]:
    """What was decided about each of these, in order."""
    found: dict[UUID, list[ApprovalDecision]] = {one: [] for one in approval_ids}
    for decision in await session.scalars(
        select(ApprovalDecision)
        .where(ApprovalDecision.approval_id.in_(approval_ids))
        .order_by(ApprovalDecision.id)
    ):
        found[decision.approval_id].append(decision)
    return found


async def approve(
    session: AsyncSession,
    approval_id: UUID,
    shown: str,
    by: Decider,
    *,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Approval:
    """Record one person's approval; with the last that is needed, the directive becomes pending.

    ``shown`` is the hash of the action that the person saw. Saying the same again changes nothing.
    ConflictError: another text, no longer waiting, expired, other terms meanwhile. ForbiddenError:
    no person, not the role, or the proposer where the terms say so. Call ``notify_directives``
    after the commit.
    """
    approval, directive = await locked(session, approval_id)
    policy = ApprovalPolicy.from_json(approval.policy)
    user_id = await check_decider(session, policy, by)
    repeated = await is_repeated(session, approval, "approve", shown, user_id)
    if repeated and approval.state != "waiting":
        return approval
    await check_open(session, approval, directive, shown)
    known = directive_types() if types is None else types
    terms = await terms_of(session, directive.type, known.get(directive.type))
    if terms.required and terms.policy.sha256 != approval.policy_sha256:
        raise ConflictError("The approval policy has changed since this was asked; edit it anew.")
    if not policy.proposer_may_approve and by.actor.id in proposers(approval, directive):
        raise ForbiddenError("Who proposed it may not approve it; somebody else has to.")
    if not repeated:
        await _record(session, approval, "approve", by, user_id, None)
    # Counted again for a repeated one too: an approver's role may have come back meanwhile.
    if await standing_approvals(session, approval, policy, directive) < policy.approvals:
        return approval
    await settle_approval(session, approval, "approved", settled_by=by.actor.id)
    await session.execute(
        update(Directive)
        .where(Directive.id == directive.id)
        .values(
            state="pending",
            changed_by=by.actor.id,
            available_at=func.greatest(Directive.available_at, func.now()),
        )
    )
    given = await decisions(session, [approval.id])
    await tell(
        session,
        "approved",
        approval,
        directive,
        version=approval.version,
        approved_by=[one.actor for one in given[approval.id] if one.decision == "approve"],
    )
    return approval


async def reject(
    session: AsyncSession,
    tenant: Tenant,
    approval_id: UUID,
    shown: str,
    reason: str,
    by: Decider,
    *,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Approval:
    """Say no: one rejection cancels the directive, with the reason. Errors as in ``approve``.

    Who proposed it may always reject it, given the role.
    """
    found = [
        {"pointer": "/reason", "detail": f"looks like a secret: {what}"}
        for _, what in secrets.find(reason)
    ]
    if found:
        raise SecretFoundError("A reason is read by others; leave the secret out.", errors=found)
    approval, directive = await locked(session, approval_id)
    user_id = await check_decider(session, ApprovalPolicy.from_json(approval.policy), by)
    if await is_repeated(session, approval, "reject", shown, user_id):
        return approval
    await check_open(session, approval, directive, shown)
    await _record(session, approval, "reject", by, user_id, reason)
    await settle_approval(session, approval, "rejected", settled_by=by.actor.id, reason=reason)
    await call_off(session, tenant, directive, by.actor, f"rejected: {reason}", types)
    await tell(
        session,
        "rejected",
        approval,
        directive,
        version=approval.version,
        rejected_by=by.actor.id,
        reason=reason,
    )
    return approval


async def edit(
    session: AsyncSession,
    approval_id: UUID,
    params: Mapping[str, Any],
    by: Decider,
    *,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Approval:
    """Put other params in place: a new version under the terms in force, with no approvals yet.

    Asks for the role that may ask for the directive, since that is what an edit does; its maker is
    the new version's proposer. ConflictError unless the approval is the one that waits.
    """
    approval, directive = await locked(session, approval_id)
    kind = find_type(directive.type, types)
    _, role = await check_person(session, by)
    if not (kind.allows(by.actor.role) and role in kind.roles):
        raise ForbiddenError(
            f"{kind.name} may be asked for, and so edited, by: {', '.join(sorted(kind.roles))}."
        )
    check_waiting(approval, directive)
    directive.params = check_params(kind, params)
    directive.changed_by = by.actor.id
    await session.flush()
    await session.refresh(directive)
    renewed = await renew(session, approval, directive, by.actor.id, by.actor.id, kind)
    await tell(
        session,
        "edited",
        renewed,
        directive,
        version=renewed.version,
        edited_by=by.actor.id,
        replaces=str(approval.id),
        replaced_sha256=approval.action_sha256,
    )
    return renewed


async def _record(
    session: AsyncSession,
    approval: Approval,
    decision: str,
    by: Decider,
    user_id: UUID,
    reason: str | None,
) -> None:
    session.add(
        ApprovalDecision(
            id=new_id(),
            approval_id=approval.id,
            decision=decision,
            actor=by.actor.id,
            user_id=user_id,
            actor_role=by.actor.role,
            action_sha256=approval.action_sha256,
            reason=reason,
        )
    )
    await session.flush()
