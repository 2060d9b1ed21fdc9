"""Asking anew: the next version of an approval, after an edit or under other terms."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.asking import ask_for_approval, settle_approval
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.terms import Terms, store_terms, terms_of
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import ForbiddenError


async def change_terms(
    session: AsyncSession,
    kind: AnyDirectiveType,
    *,
    required: bool,
    policy: ApprovalPolicy,
    by: Actor,
) -> Terms:
    """Put the tenant's own terms for a type in place; owners only.

    What waits is asked for anew under other terms, as a new version without approvals. What was
    approved under the terms before and has not started will not be released. Switching off
    leaves what waits as it was asked for.
    """
    if by.role != "owner":
        raise ForbiddenError("This needs the role 'owner'.", role="owner")
    terms = await store_terms(session, kind, required=required, policy=policy, changed_by=by.id)
    if not terms.required:
        return terms
    waiting = await session.execute(
        select(Approval, Directive)
        .join(Directive, Directive.id == Approval.directive_id)
        .where(
            Approval.directive_type == kind.name,
            Directive.state == "awaiting_approval",
            Approval.state == "waiting",
            Approval.policy_sha256 != terms.policy.sha256,
        )
        .order_by(Directive.id)
        .with_for_update(of=Directive)
        .execution_options(populate_existing=True)
    )
    for approval, directive in waiting.all():
        # Read again behind the lock: somebody may have decided meanwhile.
        await session.refresh(approval)
        if approval.state == "waiting":
            await renew(session, approval, directive, by.id, approval.proposed_by, kind)
    return terms


async def renew(
    session: AsyncSession,
    approval: Approval,
    directive: Directive,
    settled_by: str,
    proposed_by: str,
    kind: AnyDirectiveType,
) -> Approval:
    """The next version, of the directive as it stands and under the terms in force."""
    terms = await terms_of(session, kind.name, kind)
    await settle_approval(session, approval, "superseded", settled_by=settled_by)
    return await ask_for_approval(
        session,
        directive,
        terms.policy,
        proposed_by=proposed_by,
        version=approval.version + 1,
    )
