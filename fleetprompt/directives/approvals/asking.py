"""Asking for an approval: a new version of what a directive would do, and telling of it."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.opening import OPEN, opening
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.models import Directive
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
    record = opening(directive, policy, proposed_by=proposed_by, version=version)
    connection = await session.connection()
    await connection.exec_driver_sql(OPEN, (json.dumps([record]),))
    return await session.get_one(Approval, UUID(record["id"]))


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
