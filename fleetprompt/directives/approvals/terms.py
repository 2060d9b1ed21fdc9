"""The terms in force: those that a directive type comes with, or the tenant's own in their place."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.approvals.models import TenantApprovalPolicy
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import ConflictError

# The directive type of notices of approvals; migration t0006 asks for them by this name.
NOTIFY = "approval.notify"


@dataclass(frozen=True, slots=True)
class Terms:
    """Whether a type needs approval in this tenant, and on which terms.

    ``changed_by`` and ``changed_at`` are unset while the tenant has no terms of its own.
    """

    required: bool
    policy: ApprovalPolicy
    changed_by: str | None = None
    changed_at: datetime | None = None


async def terms_of(session: AsyncSession, name: str, kind: AnyDirectiveType | None) -> Terms:
    """The terms in force for the type of this name, which may be gone from the registry."""
    own = await session.scalar(
        select(TenantApprovalPolicy)
        .where(TenantApprovalPolicy.directive_type == name)
        .execution_options(populate_existing=True)
    )
    inherited = kind.approval if kind is not None else None
    if own is None:
        return Terms(inherited is not None, inherited or ApprovalPolicy())
    policy = ApprovalPolicy(
        roles=frozenset(own.roles),  # type: ignore[arg-type]  # the column is checked by the database
        approvals=own.approvals,
        proposer_may_approve=own.proposer_may_approve,
        expires_after_seconds=own.expires_after_seconds,
    )
    # A type that needs approval by nature needs it whatever the tenant's row says.
    required = own.required or inherited is not None
    return Terms(required, policy, own.changed_by, own.changed_at)


async def store_terms(
    session: AsyncSession,
    kind: AnyDirectiveType,
    *,
    required: bool,
    policy: ApprovalPolicy,
    changed_by: str,
) -> Terms:
    """Put the tenant's own terms in place; ConflictError where the type has the last word."""
    if kind.name == NOTIFY and required:
        raise ConflictError(f"{NOTIFY} tells people of approvals and cannot wait for one itself.")
    if kind.approval is not None and not required:
        raise ConflictError(f"{kind.name} always needs approval; only its terms can be changed.")
    values = {
        "required": required,
        **policy.as_json(),
        "changed_by": changed_by,
        "changed_at": func.clock_timestamp(),
    }
    await session.execute(
        insert(TenantApprovalPolicy)
        .values(directive_type=kind.name, **values)
        .on_conflict_do_update(index_elements=["directive_type"], set_=values)
    )
    return await terms_of(session, kind.name, kind)
