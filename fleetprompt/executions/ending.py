"""How executions end, or wait for another attempt: many in one statement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.executions.service import Level, bounded_fields, bounded_message


@dataclass(frozen=True, slots=True)
class ExecutionEnd:
    """What becomes of a running execution, and the line of its log that says so.

    ``requested`` puts it back: another attempt follows. Without a ``result`` the kept one stays. Costs
    and tokens are this attempt's and are added to those of earlier ones.
    """

    execution_id: UUID
    state: Literal["completed", "failed", "cancelled", "requested"]
    level: Level
    line: str
    fields: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error_kind: str | None = None
    error_message: str | None = None
    cost_usd: Decimal | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


_END = text(
    """
    WITH ended AS (
      UPDATE executions x SET
          state = e.state,
          finished_at = CASE WHEN e.state <> 'requested' THEN clock_timestamp() END,
          result = coalesce(e.result, x.result),
          error_kind = e.error_kind,
          error_message = e.error_message,
          cost_usd = coalesce(x.cost_usd + e.cost_usd, e.cost_usd, x.cost_usd),
          tokens_in = coalesce(x.tokens_in + e.tokens_in, e.tokens_in, x.tokens_in),
          tokens_out = coalesce(x.tokens_out + e.tokens_out, e.tokens_out, x.tokens_out)
      FROM jsonb_to_recordset(CAST(:ends AS jsonb)) AS e (
          execution_id uuid, state text, result jsonb, error_kind text, error_message text,
          cost_usd numeric, tokens_in bigint, tokens_out bigint)
      WHERE x.id = e.execution_id AND x.finished_at IS NULL
    )
    INSERT INTO execution_logs (execution_id, level, message, fields)
    SELECT l.execution_id, l.level, l.message, l.fields
    FROM jsonb_to_recordset(CAST(:lines AS jsonb))
      AS l (execution_id uuid, level text, message text, fields jsonb)
    """
)


async def end_executions(session: AsyncSession, ends: Sequence[ExecutionEnd]) -> None:
    """Write the ends and their lines; an execution that has ended already stays as it is."""
    if not ends:
        return
    lines = [
        {
            "execution_id": str(end.execution_id),
            "level": end.level,
            "message": bounded_message(end.line),
            "fields": bounded_fields(end.fields),
        }
        for end in ends
    ]
    rows = json.dumps([_row(end) for end in ends])
    await session.execute(_END, {"ends": rows, "lines": json.dumps(lines)})


def _row(end: ExecutionEnd) -> dict[str, Any]:
    return {
        "execution_id": str(end.execution_id),
        "state": end.state,
        "result": end.result,
        "error_kind": end.error_kind,
        "error_message": bounded_message(end.error_message) if end.error_message else None,
        # A number of JSON would lose digits on its way.
        "cost_usd": None if end.cost_usd is None else str(end.cost_usd),
        "tokens_in": end.tokens_in,
        "tokens_out": end.tokens_out,
    }
