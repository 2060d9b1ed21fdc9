"""What is due, over all tenants: reads and marks the index table alone, which holds ids and times."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Integer, Text

from fleetprompt.db.engine import Database
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType

# A worker that dies between its reservation and its claim holds the directive up for so long.
RESERVATION_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DueCount:
    """How much of one type is due, and since when."""

    type: str
    count: int
    oldest_due_at: datetime


# What a connector left behind is the platform's to look at: a lease that has run out, since the connector
# may never come back, and a start that came too late.
_PEEK = text(
    """
    SELECT type, count(*) AS number, min(since) AS oldest FROM (
      SELECT type, due_at AS since FROM fleetprompt.directive_queue
      WHERE target = :target AND due_at <= :now
      UNION ALL
      SELECT type, CASE WHEN busy THEN due_at ELSE expires_at END FROM fleetprompt.directive_queue
      WHERE target <> :target AND (busy AND due_at <= :now OR expires_at <= :now AND NOT busy)
    ) AS due GROUP BY type ORDER BY type
    """
)

_ABANDONED = text(
    """
    SELECT tenant_schema, target, directive_id FROM fleetprompt.directive_queue
    WHERE target <> :target AND (busy AND due_at <= now() OR expires_at <= now() AND NOT busy)
    ORDER BY due_at LIMIT :most
    """
)

_RESERVE = text(
    "SELECT tenant_schema, directive_id FROM fleetprompt.reserve_directives("
    " :most, :most_of_tenant, :types, :limits, make_interval(secs => :hold))"
).bindparams(bindparam("types", type_=ARRAY(Text())), bindparam("limits", type_=ARRAY(Integer())))


async def peek(database: Database, now: datetime) -> list[DueCount]:
    """How much work there is at ``now`` for the platform's workers, by type, over all tenants."""
    rows = await database.statement(_PEEK, {"target": PLATFORM_TARGET, "now": now})
    return [DueCount(row.type, row.number, row.oldest) for row in rows]


async def reserve(
    database: Database,
    most: int,
    *,
    most_of_tenant: int,
    types: Mapping[str, AnyDirectiveType],
) -> dict[str, list[UUID]]:
    """Up to ``most`` due directives for the caller to claim soon: their ids by tenant schema.

    Tenants take turns, whoever has the least under way first, each tenant's most urgent before its
    others. No tenant has more than ``most_of_tenant`` under way on the whole platform, and no type
    more than its ``concurrency``, whatever the number of workers. Nobody else gets the same ones for
    ``RESERVATION_SECONDS``.
    """
    limited = {name: kind.concurrency for name, kind in types.items() if kind.concurrency}
    found: dict[str, list[UUID]] = {}
    rows = await database.statement(
        _RESERVE,
        {
            "most": most,
            "most_of_tenant": most_of_tenant,
            "types": list(limited),
            "limits": list(limited.values()),
            "hold": RESERVATION_SECONDS,
        },
    )
    for row in rows:
        found.setdefault(row.tenant_schema, []).append(row.directive_id)
    return found


async def abandoned(database: Database, most: int) -> dict[tuple[str, str], list[UUID]]:
    """Connectors' directives whose lease or time to start has run out, by schema and connector."""
    found: dict[tuple[str, str], list[UUID]] = {}
    for row in await database.statement(_ABANDONED, {"most": most, "target": PLATFORM_TARGET}):
        found.setdefault((row.tenant_schema, row.target), []).append(row.directive_id)
    return found
