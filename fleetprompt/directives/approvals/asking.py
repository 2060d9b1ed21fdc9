"""Asking for an approval: a new version of what a directive would do, and telling of it."""

from datetime import UTC
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.approvals.action import RENDERING_VERSION, action_of
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.models import Directive
from fleetprompt.ids import new_id
from fleetprompt.signals.emit import NewSignal, emit


async def ask_for_approval(
    session: AsyncSession,
    directive: Directive,
    policy: ApprovalPolicy,
    *,
    proposed_by: str,
    version: int = 1,
) -> Approval:
    """The approval that waits for people, of the directive's action as it stands now.

    It expires after the policy's time, or with the directive where that is sooner.
    """
    action = action_of(directive)
    expires_at = func.now() + cast(
        func.make_interval(0, 0, 0, 0, 0, 0, policy.expires_after_seconds), Interval
    )
    made: Approval | None = await session.scalar(
        insert(Approval)
        .values(
            id=new_id(),
            directive_id=directive.id,
            directive_type=directive.type,
            version=version,
            action=action.text,
            action_sha256=action.sha256,
            rendering_version=RENDERING_VERSION,
            policy=policy.as_json(),
            policy_sha256=policy.sha256,
            proposed_by=proposed_by,
            state="waiting",
            # The lesser of the two; LEAST passes over NULL.
            expires_at=func.least(expires_at, literal(directive.expires_at, type_=_TIME)),
        )
        .returning(Approval)
    )
    assert made is not None  # noqa: S101 - an INSERT … RETURNING gives its row
    await tell(
        session,
        "requested",
        made,
        directive,
        version=version,
        proposed_by=proposed_by,
        approvals_needed=policy.approvals,
        expires_at=made.expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    )
    return made


async def settle_approval(
    session: AsyncSession,
    approval: Approval,
    state: str,
    *,
    settled_by: str,
    reason: str | None = None,
) -> None:
    """Give an approval its next state; the caller holds its directive's row lock."""
    await session.execute(
        update(Approval)
        .where(Approval.id == approval.id)
        .values(
            state=state, settled_at=func.clock_timestamp(), settled_by=settled_by, reason=reason
        )
    )
    await session.refresh(approval)


async def withdraw(session: AsyncSession, directive_id: UUID, settled_by: str) -> None:
    """Close what waits or was approved, because its directive was called off."""
    await session.execute(
        update(Approval)
        .where(Approval.directive_id == directive_id, Approval.state.in_(("waiting", "approved")))
        .values(state="withdrawn", settled_at=func.clock_timestamp(), settled_by=settled_by)
    )


async def first_action(session: AsyncSession, directive_id: UUID) -> str | None:
    """The canonical JSON that a directive was first asked for with; None if it needed no approval."""
    found: str | None = await session.scalar(
        select(Approval.action).where(Approval.directive_id == directive_id, Approval.version == 1)
    )
    return found


async def tell(
    session: AsyncSession, event: str, approval: Approval, directive: Directive, **data: Any
) -> None:
    """The signal ``approval.<event>``, with ids and the hash and none of the action's content."""
    await emit(
        session,
        NewSignal(
            type=f"approval.{event}",
            subject_type="approval",
            subject_id=str(approval.id),
            correlation_id=directive.correlation_id,
            causation_id=directive.causation_id,
            data={
                "directive_id": str(directive.id),
                "directive_type": directive.type,
                "action_sha256": approval.action_sha256,
                **{name: value for name, value in data.items() if value is not None},
            },
        ),
    )


_TIME = Approval.expires_at.type
