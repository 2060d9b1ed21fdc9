"""Asking anew: the next version of an approval, after an edit or under other terms."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.approvals.asking import ask_for_approval, settle_approval
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.terms import Terms, store_terms, terms_of
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType, directive_types
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
    if terms.required:
        await _renew_waiting(session, kind, terms, by.id)
    return terms


async def renew_outdated(
    session: AsyncSession, *, types: Mapping[str, AnyDirectiveType] | None = None
) -> int:
    """Ask anew for what waits under terms that are in force no longer; how many there were.

    An approval may open while its terms are being changed, when neither transaction sees the other,
    and a release may bring a type with other terms. Nobody could give such an approval.
    """
    known = directive_types() if types is None else types
    waiting = await session.execute(
        select(Approval.directive_type, Approval.policy_sha256)
        .where(Approval.state == "waiting")
        .distinct()
    )
    renewed = 0
    for name, policy_sha256 in waiting.all():
        kind = known.get(name)
        if kind is None:
            continue
        terms = await terms_of(session, name, kind)
        if terms.required and terms.policy.sha256 != policy_sha256:
            renewed += await _renew_waiting(session, kind, terms, PLATFORM.id)
    return renewed


async def _renew_waiting(
    session: AsyncSession, kind: AnyDirectiveType, terms: Terms, settled_by: str
) -> int:
    renewed = 0
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
            await renew(session, approval, directive, settled_by, approval.proposed_by, kind)
            renewed += 1
    return renewed


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
