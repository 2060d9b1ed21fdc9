"""Attempts under a lease: what one holds, how it keeps it, and how it ends.

A lease is a random token: every write of an attempt names it, so an attempt that was given up cannot
finish the work of the next one (research/platform.md, T12). Times are the database's, so that workers
with wrong clocks agree.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from fleetprompt.db.text import storable
from fleetprompt.directives.models import Directive
from fleetprompt.errors import ErrorKind, StaleLeaseError
from fleetprompt.secrets import redact
from fleetprompt.telemetry import events


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


def no_attempt(directive: Directive) -> ClaimedDirective:
    """A directive that ends without an attempt, or whatever becomes of its attempt."""
    return ClaimedDirective(
        id=directive.id,
        type=directive.type,
        params=directive.params,
        attempt=directive.attempt,
        max_attempts=directive.max_attempts,
        lease_token=uuid4(),
        actor=directive.actor,
        actor_role=directive.actor_role,
        correlation_id=directive.correlation_id,
        causation_id=directive.causation_id,
        available_at=directive.available_at,
        claimed_at=directive.available_at,
    )


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. ``pending`` with ``retry_in`` seconds means another attempt."""

    state: str
    result: dict[str, Any] | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    retry_in: float | None = None


async def heartbeat(
    session: AsyncSession, leases: Sequence[tuple[UUID, UUID]], *, lease_seconds: float
) -> set[UUID]:
    """Renew the leases ``(directive id, lease token)``; the tokens of those that still hold.

    Of a token that is missing from the answer, the directive was cancelled or given to another attempt.
    """
    rows = await session.execute(
        _HEARTBEAT,
        {
            "ids": [directive_id for directive_id, _ in leases],
            "tokens": [token for _, token in leases],
            "seconds": lease_seconds,
        },
    )
    return {row.lease_token for row in rows}


# Rows are locked in one order, everywhere where there are several: two that each wait for the other's
# row would be a deadlock.
_HEARTBEAT = text(
    """
    WITH held AS (
      SELECT d.id FROM directives d JOIN unnest(:ids, :tokens) AS l (id, lease_token)
        USING (id, lease_token)
      WHERE d.state = 'running' ORDER BY d.id FOR UPDATE OF d
    )
    UPDATE directives d SET lease_expires_at = now() + make_interval(secs => :seconds)
    FROM held WHERE d.id = held.id RETURNING d.lease_token
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid())), bindparam("tokens", type_=ARRAY(Uuid())))


_SETTLE = text(
    """
    WITH ends AS (
      SELECT * FROM jsonb_to_recordset(CAST(:ends AS jsonb)) AS e (
        id uuid, attempt bigint, lease_token uuid, state text, result jsonb, error_kind text,
        error_message text, retry_in double precision)
    ), held AS (
      SELECT d.id, d.lease_token FROM directives d JOIN ends e USING (id, attempt, lease_token)
      WHERE d.state = 'running' ORDER BY d.id FOR UPDATE OF d
    )
    UPDATE directives d SET
        state = e.state, changed_by = :owner,
        lease_token = NULL, lease_owner = NULL, lease_expires_at = NULL,
        result = e.result, error_kind = e.error_kind, error_message = e.error_message,
        available_at = CASE WHEN e.state = 'pending'
            THEN now() + make_interval(secs => coalesce(e.retry_in, 0)) ELSE d.available_at END,
        finished_at = CASE WHEN e.state <> 'pending' THEN clock_timestamp() END
    FROM ends e JOIN held h USING (id, lease_token) WHERE d.id = e.id RETURNING e.lease_token
    """
)


async def settle_many(
    session: AsyncSession, ends: Sequence[tuple[ClaimedDirective, Settlement]], *, owner: str
) -> set[UUID]:
    """End attempts; the tokens of the leases that still held. Of the other attempts nothing is written."""
    rows = [
        {
            "id": str(held.id),
            "attempt": held.attempt,
            "lease_token": str(held.lease_token),
            "state": settlement.state,
            "result": settlement.result,
            "error_kind": settlement.error_kind,
            "error_message": settlement.error_message
            and storable(redact(settlement.error_message)),
            "retry_in": settlement.retry_in,
        }
        for held, settlement in ends
    ]
    found = await session.execute(_SETTLE, {"ends": json.dumps(rows), "owner": owner})
    still_held = {row.lease_token for row in found}
    events.stale_reports(len(ends) - len(still_held))
    return still_held


async def settle(
    session: AsyncSession, held: ClaimedDirective, settlement: Settlement, *, owner: str
) -> None:
    """End an attempt; StaleLeaseError, and nothing written, if it has lost its lease."""
    if not await settle_many(session, [(held, settlement)], owner=owner):
        raise StaleLeaseError(
            f"Attempt {held.attempt} of directive {held.id} no longer holds its lease; nothing it "
            "says now counts."
        )
