"""The queue of directives: what a worker takes from it, and what has run out and is sorted out.

Durability is in these rows alone; workers may die at any point. Times are the database's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import bindparam, func, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from fleetprompt.directives.approvals.asking import withdraw
from fleetprompt.directives.approvals.release import refuse_unapproved
from fleetprompt.directives.leases import (
    ClaimedDirective,
    Settlement,
    heartbeat,
    settle,
    settle_many,
)
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType, directive_types
from fleetprompt.telemetry import events

__all__ = [
    "Claim",
    "ClaimedDirective",
    "Settlement",
    "claim",
    "heartbeat",
    "rescue",
    "settle",
    "settle_many",
]

End = tuple[ClaimedDirective, Settlement]

LOST_WORKER = "the worker of the last attempt went away; whether it had finished is not known"

_GIVEN_UP = Settlement("unknown", error_kind="unknown", error_message=LOST_WORKER)
_TOO_LATE = Settlement("cancelled", error_message="not started in time")
_LOST = Settlement("pending", error_kind="unknown", error_message=LOST_WORKER)
_NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_owner": None, "lease_expires_at": None}


@dataclass(frozen=True, slots=True)
class Claim:
    """What one visit to a tenant's queue gave.

    Attempts to make; directives that ended instead; and attempts whose worker is gone and which others
    follow, perhaps among ``claimed``.
    """

    claimed: list[ClaimedDirective]
    ended: list[End]
    lost: list[End]


# Row-level security leaves only the tenant's own rows of the index table.
_CANDIDATES = text(
    """
    SELECT d.id, d.state, d.attempt, d.max_attempts, d.expires_at <= now() AS expired, d.type,
           EXISTS (SELECT FROM approvals a WHERE a.directive_id = d.id)
           OR EXISTS (SELECT FROM approval_policies p
                      WHERE p.directive_type = d.type AND p.required) AS guarded
    FROM directives d
    WHERE d.id = ANY(CASE WHEN :by_id THEN :ids ELSE ARRAY(
            SELECT q.directive_id FROM fleetprompt.directive_queue q
            WHERE q.target = :target AND q.due_at <= now()
            ORDER BY q.priority DESC, q.due_at LIMIT :limit) END)
      AND d.target = :target
      AND ((d.state = 'pending' AND (d.available_at <= now() OR d.expires_at <= now()))
           OR (d.state = 'running' AND d.lease_expires_at <= now()))
    ORDER BY d.priority DESC, d.available_at
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid())))

_COLUMNS = (
    Directive.id,
    Directive.type,
    Directive.params,
    Directive.attempt,
    Directive.max_attempts,
    Directive.lease_token,
    Directive.actor,
    Directive.actor_role,
    Directive.correlation_id,
    Directive.causation_id,
    Directive.available_at,
    func.clock_timestamp().label("claimed_at"),
)


async def claim(
    session: AsyncSession,
    *,
    limit: int,
    owner: str,
    lease_seconds: float,
    ids: Sequence[UUID] | None = None,
    target: str = PLATFORM_TARGET,
    dagster_run_id: str | None = None,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Claim:
    """Take up to ``limit`` due directives of the session's tenant, or those of ``ids`` that are due.

    Work whose lease has run out is first made pending again, as a transition of its own; when its
    attempts are spent it becomes ``unknown`` instead, because nobody knows what the last one did.
    A directive past its ``expires_at`` is cancelled. Rows that another worker holds are passed over.
    What needs an approval is checked once more, and ends where the approval no longer holds.
    """
    startable, found = await _sort_out(session, ids, limit, owner, target, types)
    if not startable:
        return found
    rows = await session.execute(
        update(Directive)
        .where(Directive.id.in_(startable))
        .values(
            state="running",
            attempt=Directive.attempt + 1,
            changed_by=owner,
            lease_token=func.gen_random_uuid(),
            lease_owner=owner,
            lease_expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds),
            dagster_run_id=func.coalesce(dagster_run_id, Directive.dagster_run_id),
            error_kind=None,
            error_message=None,
        )
        .returning(*_COLUMNS)
    )
    by_id = {row.id: ClaimedDirective(**row._mapping) for row in rows}
    return replace(found, claimed=[by_id[one] for one in startable])


async def rescue(
    session: AsyncSession,
    ids: Sequence[UUID],
    *,
    owner: str,
    target: str,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Claim:
    """What ``claim`` does with leases and times that have run out, without beginning an attempt."""
    _, found = await _sort_out(session, ids, len(ids), owner, target, types)
    return found


async def _sort_out(
    session: AsyncSession,
    ids: Sequence[UUID] | None,
    limit: int,
    owner: str,
    target: str,
    types: Mapping[str, AnyDirectiveType] | None,
) -> tuple[list[UUID], Claim]:
    """Lock what is due; what may start, in order, and what became of the rest."""
    candidates = (
        await session.execute(
            _CANDIDATES,
            {"by_id": ids is not None, "ids": list(ids or ()), "limit": limit, "target": target},
        )
    ).all()
    known = directive_types() if types is None else types
    lost = {c.id for c in candidates if c.state == "running"}
    ends = {c.id: _GIVEN_UP for c in candidates if c.id in lost and c.attempt >= c.max_attempts}
    guarded = [
        c.id
        for c in candidates
        if c.id not in ends
        and (c.guarded or (c.type in known and known[c.type].approval is not None))
    ]
    if guarded:
        refusals = await refuse_unapproved(session, guarded, known, owner=owner)
        for directive_id, refusal in refusals.items():
            if directive_id in lost:
                # Nobody knows what the lost attempt did, whatever the approval says now.
                said = f"{LOST_WORKER}; {refusal.message}"
                ends[directive_id] = Settlement("unknown", None, "unknown", said)
            else:
                ends[directive_id] = Settlement(refusal.state, None, "validation", refusal.message)
    again = {one: _LOST for one in lost if one not in ends}
    events.leases_rescued(again=len(again), given_up=len(lost) - len(again))
    gone = [await _end(session, one, end, owner) for one, end in again.items()]
    late = {c.id: _TOO_LATE for c in candidates if c.expired and c.id not in ends}
    for one in late:
        await withdraw(session, one, owner)
    ends |= late
    ended = [await _end(session, one, end, owner) for one, end in ends.items()]
    return [c.id for c in candidates if c.id not in ends], Claim([], ended, gone)


async def _end(
    session: AsyncSession, directive_id: UUID, settlement: Settlement, owner: str
) -> End:
    """Settle a directive that no attempt holds; the caller holds its row lock."""
    row = (
        await session.execute(
            update(Directive)
            .where(Directive.id == directive_id)
            .values(
                state=settlement.state,
                changed_by=owner,
                error_kind=settlement.error_kind,
                error_message=settlement.error_message,
                finished_at=None if settlement is _LOST else func.clock_timestamp(),
                **_NO_LEASE,
            )
            .returning(*_COLUMNS)
        )
    ).one()
    return ClaimedDirective(**{**row._mapping, "lease_token": uuid4()}), settlement
