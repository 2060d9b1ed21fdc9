"""What follows from an attempt's end, in the transaction that settles it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.text import is_storable_json, storable
from fleetprompt.directives.leases import ClaimedDirective, Settlement
from fleetprompt.directives.types import AnyDirectiveType, Failure
from fleetprompt.executions.ending import ExecutionEnd, end_executions
from fleetprompt.executions.models import Execution
from fleetprompt.executions.running import RunningExecution
from fleetprompt.executions.service import Level
from fleetprompt.secrets import redact
from fleetprompt.telemetry import events
from fleetprompt.tenants.service import Tenant

logger = logging.getLogger("fleetprompt.directives")

_STATES: dict[str, Literal["completed", "cancelled", "requested"]] = {
    "succeeded": "completed",
    "cancelled": "cancelled",
    "pending": "requested",
}


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """``running`` is unset when the attempt's worker is gone, or where there was no attempt."""

    directive: ClaimedDirective
    settlement: Settlement
    running: RunningExecution | None = None


async def record_ends(
    session: AsyncSession,
    tenant: Tenant,
    ends: Sequence[AttemptEnd],
    types: Mapping[str, AnyDirectiveType],
) -> None:
    """End or re-open the executions, add their last lines, and let types clean up after failures."""
    elsewhere = await _open_executions(session, [e.directive.id for e in ends if not e.running])
    executions: list[ExecutionEnd] = []
    for end in ends:
        execution_id = end.running.id if end.running else elsewhere.get(end.directive.id)
        if execution_id is not None:
            executions.append(_execution_end(execution_id, end))
    await end_executions(session, executions)
    for end in ends:
        kind = types.get(end.directive.type)
        events.attempt_ended(tenant.slug, kind, end.directive, end.settlement)
        if kind is not None and end.settlement.state in ("failed", "unknown", "cancelled"):
            await _clean_up(session, tenant, end, kind)


async def _open_executions(session: AsyncSession, directive_ids: list[UUID]) -> dict[UUID, UUID]:
    """The executions of these directives that have not ended, by the directives' ids."""
    if not directive_ids:
        return {}
    rows = await session.execute(
        select(Execution.directive_id, Execution.id).where(
            Execution.directive_id.in_(directive_ids), Execution.finished_at.is_(None)
        )
    )
    return {row.directive_id: row.id for row in rows if row.directive_id}


def _execution_end(execution_id: UUID, end: AttemptEnd) -> ExecutionEnd:
    settlement, running = end.settlement, end.running
    message = settlement.error_message or ""
    number = f"attempt {end.directive.attempt} of {end.directive.max_attempts}"
    level: Level = "error"
    line = f"{number} ended {settlement.state} ({settlement.error_kind}): {message}"
    if settlement.state == "pending":
        level, line = "warning", f"{number} failed ({settlement.error_kind}): {message}"
    elif settlement.state == "succeeded":
        level, line = "info", f"{number} succeeded"
    elif settlement.state == "cancelled":
        level, line = "warning", f"called off: {message}"
    kept = running.result if running else None
    if not is_storable_json(kept):
        logger.error("what %s keeps is not JSON or cannot be stored", end.directive.type)
        kept = None
    return ExecutionEnd(
        execution_id,
        _STATES.get(settlement.state, "failed"),
        level,
        line,
        fields={"retry_in_seconds": settlement.retry_in} if settlement.state == "pending" else {},
        result=kept if kept is not None else settlement.result,
        error_kind=settlement.error_kind,
        error_message=message or None,
        cost_usd=running.cost_usd if running else None,
        tokens_in=running.tokens_in if running else None,
        tokens_out=running.tokens_out if running else None,
    )


async def _clean_up(
    session: AsyncSession, tenant: Tenant, end: AttemptEnd, kind: AnyDirectiveType
) -> None:
    """Let the type clean up; if that fails too, its part is undone and the directive's end stays."""
    if kind.after_failure is None:
        return
    directive, settlement = end.directive, end.settlement
    message = storable(redact(settlement.error_message or ""))
    failure = Failure(settlement.state, settlement.error_kind or "unknown", message)
    try:
        async with session.begin_nested():
            params = kind.params.model_validate(directive.params)
            await kind.after_failure(session, tenant, directive, params, failure)
    except OperationalError:
        raise
    except Exception:
        logger.exception(
            "cleaning up after %s failed", kind.name, extra={"directive_id": str(directive.id)}
        )
