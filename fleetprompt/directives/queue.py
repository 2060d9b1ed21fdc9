"""The queue of directives: what a worker takes from it, and what has run out and is sorted out.

Durability is in these rows alone; workers may die at any point. Times are the database's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import bindparam, func, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Text, Uuid

from fleetprompt.directives.approvals.asking import withdraw
from fleetprompt.directives.approvals.release import refuse_unapproved
from fleetprompt.directives.leases import ClaimedDirective, Settlement
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.telemetry import events

End = tuple[ClaimedDirective, Settlement]

LOST_WORKER = "the worker of the last attempt went away; whether it had finished is not known"

_GIVEN_UP = Settlement("unknown", error_kind="unknown", error_message=LOST_WORKER)
_LOST_AND_TOO_LATE = Settlement(
    "unknown", error_kind="unknown", error_message=f"{LOST_WORKER}; it is too late for another"
)
_LOST = Settlement("pending", error_kind="unknown", error_message=LOST_WORKER)
_NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_owner": None, "lease_expires_at": None}


@dataclass(frozen=True, slots=True)
class SortedOut:
    """What became of due directives that may not simply start.

    ``startable`` may, in this order; ``ended`` ended instead; ``lost`` are attempts whose worker is gone and
    which others may follow.
    """

    startable: list[UUID]
    ended: list[End]
    lost: list[End]


# Row-level security leaves only the tenant's own rows of the index table.
_CANDIDATES = text(
    """
    SELECT d.id, d.state, d.attempt, d.max_attempts, d.expires_at <= now() AS expired, d.type,
           d.error_message,
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

_START = text(
    """
    WITH startable AS (
      SELECT d.id FROM directives d
      WHERE d.id = ANY(:ids) AND d.target = :target
        AND d.state = 'pending' AND d.available_at <= now()
        AND (d.expires_at IS NULL OR d.expires_at > now())
        AND (:sorted_out OR (
          d.type <> ALL(:guarded)
          AND NOT EXISTS (SELECT FROM approvals a WHERE a.directive_id = d.id)
          AND NOT EXISTS (SELECT FROM approval_policies p
                          WHERE p.directive_type = d.type AND p.required)))
      FOR UPDATE SKIP LOCKED
    ), started AS (
      UPDATE directives d SET
          state = 'running', attempt = d.attempt + 1, changed_by = :owner,
          lease_token = gen_random_uuid(), lease_owner = :owner,
          lease_expires_at = now() + make_interval(secs => :lease_seconds),
          dagster_run_id = coalesce(:dagster_run_id, d.dagster_run_id),
          error_kind = NULL, error_message = NULL
      FROM startable s WHERE d.id = s.id
      RETURNING d.id, d.type, d.params, d.attempt, d.max_attempts, d.lease_token, d.actor,
                d.actor_role, d.correlation_id, d.causation_id, d.available_at, d.priority
    ), known AS (
      UPDATE executions x SET
          state = 'running', started_at = coalesce(x.started_at, clock_timestamp()),
          dagster_run_id = coalesce(:dagster_run_id, x.dagster_run_id),
          error_kind = NULL, error_message = NULL
      FROM started s WHERE x.directive_id = s.id AND x.finished_at IS NULL
      RETURNING x.directive_id, x.id
    ), made AS (
      INSERT INTO executions (id, kind, state, correlation_id, causation_id, directive_id,
                              installation_id, dagster_run_id, started_at)
      SELECT fleetprompt.uuid7(), s.type, 'running', s.correlation_id, s.causation_id, s.id,
             CASE WHEN s.params ->> 'installation_id'
                         ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                  THEN (s.params ->> 'installation_id')::uuid END,
             :dagster_run_id, clock_timestamp()
      FROM started s
      WHERE NOT EXISTS (SELECT FROM executions x
                        WHERE x.directive_id = s.id AND x.finished_at IS NULL)
      RETURNING directive_id, id
    )
    SELECT s.id, s.type, s.params, s.attempt, s.max_attempts, s.lease_token, s.actor, s.actor_role,
           s.correlation_id, s.causation_id, s.available_at, clock_timestamp() AS claimed_at,
           coalesce(k.id, m.id) AS execution_id
    FROM started s
    LEFT JOIN known k ON k.directive_id = s.id
    LEFT JOIN made m ON m.directive_id = s.id
    ORDER BY s.priority DESC, s.available_at
    """
).bindparams(
    bindparam("ids", type_=ARRAY(Uuid())),
    bindparam("guarded", type_=ARRAY(Text())),
    bindparam("dagster_run_id", type_=Text()),
)

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


async def start(
    session: AsyncSession,
    ids: Sequence[UUID],
    *,
    owner: str,
    lease_seconds: float,
    target: str,
    types: Mapping[str, AnyDirectiveType],
    dagster_run_id: str | None = None,
    sorted_out: bool = False,
) -> dict[UUID, tuple[ClaimedDirective, UUID]]:
    """Begin an attempt at each of these directives that is due: the attempt and its execution, in order.

    One execution covers all attempts of a directive, so that its page tells the whole story. Rows that
    another worker holds are passed over, and unless they are ``sorted_out``, those that need an approval.
    """
    rows = await session.execute(
        _START,
        {
            "ids": list(ids),
            "target": target,
            "sorted_out": sorted_out,
            "guarded": [name for name, kind in types.items() if kind.approval is not None],
            "owner": owner,
            "lease_seconds": lease_seconds,
            "dagster_run_id": dagster_run_id,
        },
    )
    started: dict[UUID, tuple[ClaimedDirective, UUID]] = {}
    for row in rows:
        columns = dict(row._mapping)
        execution_id = columns.pop("execution_id")
        started[row.id] = (ClaimedDirective(**columns), execution_id)
    return started


async def sort_out(
    session: AsyncSession,
    *,
    limit: int,
    owner: str,
    target: str,
    types: Mapping[str, AnyDirectiveType],
    ids: Sequence[UUID] | None = None,
) -> SortedOut:
    """Lock up to ``limit`` due directives of the session's tenant, or those of ``ids`` that are due.

    Work whose lease has run out is made pending again, as a transition of its own; when its attempts
    are spent, or it is past its ``expires_at``, it becomes ``unknown`` instead, because nobody knows what
    the last one did. What waits and is past its ``expires_at`` is cancelled. Rows that another worker
    holds are passed over. What needs an approval is checked once more, and ends where the approval no
    longer holds.
    """
    candidates = (
        await session.execute(
            _CANDIDATES,
            {"by_id": ids is not None, "ids": list(ids or ()), "limit": limit, "target": target},
        )
    ).all()
    lost = {c.id for c in candidates if c.state == "running"}
    ends = {c.id: _GIVEN_UP for c in candidates if c.id in lost and c.attempt >= c.max_attempts}
    guarded = [
        c.id
        for c in candidates
        if c.id not in ends
        and (c.guarded or (c.type in types and types[c.type].approval is not None))
    ]
    if guarded:
        refusals = await refuse_unapproved(session, guarded, types, owner=owner)
        for directive_id, refusal in refusals.items():
            if directive_id in lost:
                # Nobody knows what the lost attempt did, whatever the approval says now.
                said = f"{LOST_WORKER}; {refusal.message}"
                ends[directive_id] = Settlement("unknown", None, "unknown", said)
            else:
                ends[directive_id] = Settlement(refusal.state, None, "validation", refusal.message)
    for c in candidates:
        if c.id in lost and c.expired:
            ends.setdefault(c.id, _LOST_AND_TOO_LATE)
    again = {one: _LOST for one in lost if one not in ends}
    events.leases_rescued(again=len(again), given_up=len(lost) - len(again))
    gone = [await _end(session, one, end, owner) for one, end in again.items()]
    late = {
        c.id: _too_late(c.attempt, c.error_message)
        for c in candidates
        if c.expired and c.id not in ends
    }
    for one in late:
        await withdraw(session, one, owner)
    ends |= late
    ended = [await _end(session, one, end, owner) for one, end in ends.items()]
    return SortedOut([c.id for c in candidates if c.id not in ends], ended, gone)


def _too_late(attempts: int, error_message: str | None) -> Settlement:
    said = "not started in time"
    if attempts:
        said = f"too late for another attempt; of the last one: {error_message}"
    return Settlement("cancelled", error_message=said)


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
