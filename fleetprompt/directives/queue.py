"""The queue of directives: what is due, leases with fencing tokens, and how an attempt ends.

Times are the database's, so that workers with wrong clocks agree. A lease is a random token: every
write of an attempt names it, so an attempt that was given up cannot finish the work of the next
one (research/platform.md, T12). Durability is in these rows alone; workers may die at any point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, bindparam, func, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from fleetprompt.db.engine import Database
from fleetprompt.directives.approvals.release import refuse_unapproved
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType, directive_types
from fleetprompt.errors import ErrorKind, StaleLeaseError
from fleetprompt.secrets import redact

LOST_WORKER = "the worker of the last attempt went away; whether it had finished is not known"


@dataclass(frozen=True, slots=True)
class ClaimedDirective:
    """A directive in the hands of one attempt."""

    id: UUID
    type: str
    params: dict[str, Any]
    attempt: int
    max_attempts: int
    lease_token: UUID
    actor: str
    actor_role: str | None
    correlation_id: str | None
    causation_id: str | None
    available_at: datetime
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class DueCount:
    """How much of one type is due, and since when."""

    type: str
    count: int
    oldest_due_at: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. ``pending`` with ``retry_in`` seconds means another attempt."""

    state: str
    result: dict[str, Any] | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one visit to a tenant's queue gave: work to do, and what was given up for lost.

    ``refused`` are those whose approval no longer holds, with how they ended.
    """

    claimed: list[ClaimedDirective]
    given_up: list[ClaimedDirective]
    refused: list[tuple[ClaimedDirective, Settlement]] = field(default_factory=list)


_PEEK = text(
    "SELECT type, count(*) AS number, min(due_at) AS oldest FROM fleetprompt.directive_queue"
    " WHERE target = :target AND due_at <= :now GROUP BY type ORDER BY type"
)

# Each tenant's most urgent first, one tenant after the other: a tenant with thousands of pending
# directives does not hold up another's. Work whose lease has run out is due as well.
_DUE = text(
    """
    SELECT tenant_schema, directive_id FROM (
      SELECT tenant_schema, directive_id, priority, due_at,
             row_number() OVER (PARTITION BY tenant_schema ORDER BY priority DESC, due_at) AS turn
      FROM fleetprompt.directive_queue WHERE target = :target AND due_at <= now()
    ) AS queued ORDER BY turn, priority DESC, due_at LIMIT :limit
    """
)

# Row-level security leaves only the tenant's own rows of the index table.
_CANDIDATES = text(
    """
    SELECT d.id, d.state, d.attempt, d.max_attempts, d.lease_token,
           d.expires_at <= now() AS expired, d.type,
           EXISTS (SELECT FROM approvals a WHERE a.directive_id = d.id)
           OR EXISTS (SELECT FROM approval_policies p
                      WHERE p.directive_type = d.type AND p.required) AS guarded
    FROM directives d
    WHERE d.id = ANY(CASE WHEN :by_id THEN :ids ELSE ARRAY(
            SELECT q.directive_id FROM fleetprompt.directive_queue q
            WHERE q.target = :target AND q.due_at <= now()
            ORDER BY q.priority DESC, q.due_at LIMIT :limit) END)
      AND d.target = :target
      AND ((d.state = 'pending' AND d.available_at <= now())
           OR (d.state = 'running' AND d.lease_expires_at <= now()))
    ORDER BY d.priority DESC, d.available_at
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid())))


async def peek(
    database: Database, now: datetime, *, target: str = PLATFORM_TARGET
) -> list[DueCount]:
    """How much is due at ``now``, by type, over all tenants; reads the index table alone."""
    async with database.platform() as session:
        rows = await session.execute(_PEEK, {"target": target, "now": now})
        return [DueCount(row.type, row.number, row.oldest) for row in rows]


async def due_directives(
    database: Database, limit: int, *, target: str = PLATFORM_TARGET
) -> dict[str, list[UUID]]:
    """Up to ``limit`` due directives' ids by tenant schema, the tenants taken in turns."""
    found: dict[str, list[UUID]] = {}
    async with database.platform() as session:
        for row in await session.execute(_DUE, {"target": target, "limit": limit}):
            found.setdefault(row.tenant_schema, []).append(row.directive_id)
    return found


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
    candidates = (
        await session.execute(
            _CANDIDATES,
            {"by_id": ids is not None, "ids": list(ids or ()), "limit": limit, "target": target},
        )
    ).all()
    spent = [c.id for c in candidates if c.state == "running" and c.attempt >= c.max_attempts]
    known = directive_types() if types is None else types
    guarded = {
        c.id: c.state
        for c in candidates
        if c.id not in spent
        and (c.guarded or (c.type in known and known[c.type].approval is not None))
    }
    refused = await _refuse(session, guarded, known, owner) if guarded else []
    ended = {*spent, *(directive.id for directive, _ in refused)}
    lost = [c.id for c in candidates if c.state == "running" and c.id not in ended]
    expired = [c.id for c in candidates if c.expired and c.id not in ended]
    gone = {*ended, *expired}
    no_lease = {"lease_token": None, "lease_owner": None, "lease_expires_at": None}
    if lost:
        await session.execute(
            update(Directive)
            .where(Directive.id.in_(lost))
            .values(state="pending", changed_by=owner, error_kind="unknown",
                    error_message=LOST_WORKER, **no_lease)
        )  # fmt: skip
    given_up: list[ClaimedDirective] = []
    if spent:
        rows = await session.execute(
            update(Directive)
            .where(Directive.id.in_(spent))
            .values(state="unknown", changed_by=owner, error_kind="unknown",
                    error_message=LOST_WORKER, finished_at=func.clock_timestamp(), **no_lease)
            .returning(*_COLUMNS)
        )  # fmt: skip
        given_up = [ClaimedDirective(**{**row._mapping, "lease_token": uuid4()}) for row in rows]
    if expired:
        await session.execute(
            update(Directive)
            .where(Directive.id.in_(expired))
            .values(state="cancelled", changed_by=owner, error_message="not started in time",
                    finished_at=func.clock_timestamp())
        )  # fmt: skip
    taken = [c.id for c in candidates if c.id not in gone]
    if not taken:
        return Claim([], given_up, refused)
    rows = await session.execute(
        update(Directive)
        .where(Directive.id.in_(taken))
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
    return Claim([by_id[one] for one in taken], given_up, refused)


async def _refuse(
    session: AsyncSession,
    guarded: Mapping[UUID, str],
    types: Mapping[str, AnyDirectiveType],
    owner: str,
) -> list[tuple[ClaimedDirective, Settlement]]:
    """End those whose approval does not hold; after a lost attempt nobody knows what it did."""
    ended: list[tuple[ClaimedDirective, Settlement]] = []
    refusals = await refuse_unapproved(session, list(guarded), types, owner=owner)
    for directive_id, refusal in refusals.items():
        was_lost = guarded[directive_id] == "running"
        settlement = Settlement(
            "unknown" if was_lost else refusal.state,
            error_kind="unknown" if was_lost else "validation",
            error_message=f"{LOST_WORKER}; {refusal.message}" if was_lost else refusal.message,
        )
        row = (
            await session.execute(
                update(Directive)
                .where(Directive.id == directive_id)
                .values(
                    state=settlement.state, changed_by=owner, lease_token=None, lease_owner=None,
                    lease_expires_at=None, error_kind=settlement.error_kind,
                    error_message=settlement.error_message, finished_at=func.clock_timestamp(),
                )
                .returning(*_COLUMNS)
            )
        ).one()  # fmt: skip
        ended.append((ClaimedDirective(**{**row._mapping, "lease_token": uuid4()}), settlement))
    return ended


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


async def heartbeat(
    session: AsyncSession, leases: Sequence[tuple[UUID, UUID]], *, lease_seconds: float
) -> set[UUID]:
    """Renew the leases ``(directive id, lease token)``; the ids whose lease still holds.

    An id that is missing from the answer was cancelled, or given to another attempt.
    """
    rows = await session.execute(
        _HEARTBEAT,
        {
            "ids": [directive_id for directive_id, _ in leases],
            "tokens": [token for _, token in leases],
            "seconds": lease_seconds,
        },
    )
    return {row.id for row in rows}


_HEARTBEAT = text(
    "UPDATE directives d SET lease_expires_at = now() + make_interval(secs => :seconds)"
    " FROM unnest(:ids, :tokens) AS held (id, token)"
    " WHERE d.id = held.id AND d.lease_token = held.token AND d.state = 'running' RETURNING d.id"
).bindparams(bindparam("ids", type_=ARRAY(Uuid())), bindparam("tokens", type_=ARRAY(Uuid())))


async def settle(
    session: AsyncSession, held: ClaimedDirective, settlement: Settlement, *, owner: str
) -> None:
    """End an attempt; StaleLeaseError, and nothing written, if it has lost its lease."""
    retry = settlement.state == "pending"
    result = await session.execute(
        update(Directive)
        .where(
            Directive.id == held.id,
            Directive.attempt == held.attempt,
            Directive.lease_token == held.lease_token,
            Directive.state == "running",
        )
        .values(
            state=settlement.state,
            changed_by=owner,
            lease_token=None,
            lease_owner=None,
            lease_expires_at=None,
            result=settlement.result,
            error_kind=settlement.error_kind,
            error_message=redact(settlement.error_message) if settlement.error_message else None,
            available_at=(
                func.now() + func.make_interval(0, 0, 0, 0, 0, 0, settlement.retry_in or 0.0)
                if retry
                else Directive.available_at
            ),
            finished_at=None if retry else func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE gives
    if result.rowcount != 1:
        raise StaleLeaseError(
            f"Attempt {held.attempt} of directive {held.id} no longer holds its lease; nothing it "
            "says now counts."
        )
