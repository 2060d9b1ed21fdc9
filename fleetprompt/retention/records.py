"""Executions and directives that are old enough, each by its own rule.

Not touched at any age: what has not ended; directives that a person may still settle (``unknown``), that
people approved (the record of what they saw is kept whole) or that configured a package; the ledger of
sent messages, which holds no content and keeps a message from being sent twice; approvals; dedupe keys.
"""

from datetime import UTC, date, datetime, time
from uuid import UUID

from sqlalchemy import null, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.directives.approvals.action import action_of
from fleetprompt.directives.models import Directive
from fleetprompt.retention.pace import Pace
from fleetprompt.tenants.service import Tenant

_REMOVE_EXECUTIONS = text(
    """
    DELETE FROM executions WHERE id IN (
        SELECT x.id FROM executions x
        LEFT JOIN directives d ON d.id = x.directive_id
        WHERE x.finished_at < :cutoff
          AND (d.id IS NULL OR d.state IN ('succeeded', 'failed', 'cancelled'))
          AND NOT EXISTS (SELECT FROM outbound_messages m
                          WHERE m.execution_id = x.id AND m.state NOT IN ('posted', 'rejected'))
        ORDER BY x.finished_at LIMIT :rows)
    """
)
# A directive ends after it is made, and its id tells when that was: the primary key leads to the old ones.
_DUE_DIRECTIVES = text(
    """
    SELECT d.id FROM directives d
    WHERE d.id > :after AND d.id < :before AND d.finished_at < :cutoff AND d.action_sha256 IS NULL
      AND d.state IN ('succeeded', 'failed', 'cancelled') AND d.type NOT LIKE 'package.%'
      AND NOT EXISTS (SELECT FROM approvals a WHERE a.directive_id = d.id)
      AND NOT EXISTS (SELECT FROM outbound_messages m
                      WHERE m.directive_id = d.id AND m.state NOT IN ('posted', 'rejected'))
    ORDER BY d.id LIMIT :rows
    """
)


def instant(first_kept: date) -> datetime:
    """The first instant of a UTC day."""
    return datetime.combine(first_kept, time.min, UTC)


async def remove_executions(
    database: Database, tenant: Tenant, first_kept: date, pace: Pace
) -> int:
    """Delete executions that finished before ``first_kept``, with their logs; how many."""
    removed = 0
    while True:
        async with pace, database.tenant(tenant.schema) as session:
            result = await session.execute(
                _REMOVE_EXECUTIONS, {"cutoff": instant(first_kept), "rows": pace.rows}
            )
            gone: int = result.rowcount  # type: ignore[attr-defined] # of a DELETE, a cursor's result
        removed += gone
        if gone < pace.rows:
            return removed


async def empty_directives(database: Database, tenant: Tenant, first_kept: date, pace: Pace) -> int:
    """Remove the content of directives that ended before ``first_kept``; how many.

    Ids among the params stay, so that the story can still be followed.
    """
    cutoff, after, emptied = instant(first_kept), UUID(int=0), 0
    before = UUID(int=(int(cutoff.timestamp() * 1000) + 1) << 80)
    while True:
        async with pace, database.tenant(tenant.schema) as session:
            bounds = {"after": after, "before": before, "cutoff": cutoff, "rows": pace.rows}
            due = (await session.scalars(_DUE_DIRECTIVES, bounds)).all()
            if due:
                await _empty(session, list(due))
        if not due:
            return emptied
        after, emptied = due[-1], emptied + len(due)


async def _empty(session: AsyncSession, due: list[UUID]) -> None:
    found = await session.scalars(select(Directive).where(Directive.id.in_(due)).with_for_update())
    for directive in found:
        left = {name: value for name, value in directive.params.items() if _is_id(value)}
        await session.execute(
            update(Directive)
            .where(Directive.id == directive.id)
            .values(action_sha256=action_of(directive).sha256, params=left, result=null())
        )


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False
