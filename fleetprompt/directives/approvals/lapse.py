"""Ending what people did not allow: by their word, or because nobody gave it in time."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.approvals.asking import settle_approval, tell
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.ending import AttemptEnd, record_ends
from fleetprompt.directives.leases import Settlement, no_attempt
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.tenants.service import Tenant

EXPIRED_AT_ONCE = 500
NOT_IN_TIME = "nobody approved it in time"


async def expire_due(
    session: AsyncSession,
    tenant: Tenant,
    now: datetime,
    *,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> int:
    """Reject what nobody approved by ``now``: the directive is cancelled. How many there were.

    Rows that somebody is deciding about are left for the next time.
    """
    due = await session.execute(
        select(Approval, Directive)
        .join(Directive, Directive.id == Approval.directive_id)
        .where(
            Approval.state == "waiting",
            Approval.expires_at <= now,
            Directive.state == "awaiting_approval",
        )
        .order_by(Approval.expires_at)
        .limit(EXPIRED_AT_ONCE)
        .with_for_update(of=Directive, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    expired = 0
    for approval, directive in due.all():
        await session.refresh(approval)
        if approval.state != "waiting":
            continue
        await settle_approval(
            session, approval, "expired", settled_by=PLATFORM.id, reason=NOT_IN_TIME
        )
        await call_off(session, tenant, directive, PLATFORM, NOT_IN_TIME, types)
        await tell(session, "expired", approval, directive, version=approval.version)
        expired += 1
    return expired


async def call_off(
    session: AsyncSession,
    tenant: Tenant,
    directive: Directive,
    actor: Actor,
    reason: str,
    types: Mapping[str, AnyDirectiveType] | None,
) -> None:
    """Cancel the directive, end the execution that waited for it, and let its type clean up."""
    await session.execute(
        update(Directive)
        .where(Directive.id == directive.id, Directive.state == "awaiting_approval")
        .values(
            state="cancelled",
            changed_by=actor.id,
            error_message=reason,
            finished_at=func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    )
    await session.refresh(directive)
    known = directive_types() if types is None else types
    end = AttemptEnd(no_attempt(directive), Settlement("cancelled", error_message=reason))
    await record_ends(session, tenant, [end], known)
