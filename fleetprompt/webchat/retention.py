"""Forgetting by age: conversations that nobody has touched for as long as the site or the tenant says.

Erased as a visitor's own request would erase them. An open conversation counts from its last message. With
them goes what is of no use any more: windows of limits, salts, marks of visitors whose secrets have run out,
and secrets of sites that nothing was signed with for a day.
"""

from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.retention.pace import Pace
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.erasure import erase_conversation
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.visitors import LIFE

CONVERSATIONS_A_BATCH = 20

# A site's own term goes before the tenant's, which is NULL where the tenant keeps conversations for ever.
_DUE = text(
    """
    SELECT c.id FROM website_chat_conversations c
    JOIN website_chat_sites s ON s.id = c.site_id
    WHERE c.status <> 'erased'
      AND coalesce(c.closed_at, c.updated_at) < CAST(:today AS timestamptz) - make_interval(
            days => coalesce(CAST(s.settings ->> 'retention_days' AS int), CAST(:days AS int)))
    ORDER BY c.id LIMIT :rows FOR UPDATE OF c SKIP LOCKED
    """
)
_OUTLIVED = {
    "website_chat_limits": "ends_at < :now",
    "website_chat_salts": "day < (CAST(:now AS timestamptz) AT TIME ZONE 'UTC')::date - 1",
    "website_chat_erasures": "erased_at < CAST(:now AS timestamptz) - CAST(:life AS interval)",
    "website_chat_site_secrets": "retired_at < CAST(:now AS timestamptz) - interval '1 day'",
}


async def prune(
    database: Database, tenant: Tenant, first_kept: date | None, now: datetime, pace: Pace
) -> int:
    """Erase what is due, in small batches; how many conversations.

    ``first_kept`` is the oldest UTC day that the tenant keeps, None for ever. Safe to stop and to repeat.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    values = {
        "today": today,
        "days": None if first_kept is None else (today.date() - first_kept).days,
        "rows": CONVERSATIONS_A_BATCH,
    }
    erased = 0
    while True:
        async with pace, database.tenant(tenant.schema) as session:
            due = (await session.scalars(_DUE, values)).all()
            for conversation_id in due:
                conversation = await get_conversation(session, conversation_id, lock=True)
                await erase_conversation(session, conversation, now, by="platform")
        erased += len(due)
        if len(due) < CONVERSATIONS_A_BATCH:
            break
    for table in _OUTLIVED:
        while True:
            async with pace, database.tenant(tenant.schema) as session:
                gone = await _remove_outlived(session, table, now, pace.rows)
            if gone < pace.rows:
                break
    return erased


async def _remove_outlived(session: AsyncSession, table: str, now: datetime, rows: int) -> int:
    # Both names come from this module.
    statement = text(
        f"WITH gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608
        f"SELECT ctid FROM {table} WHERE {_OUTLIVED[table]} LIMIT :rows FOR UPDATE SKIP LOCKED))"
        " RETURNING 1) SELECT count(*) FROM gone"
    )
    values: dict[str, object] = {"now": now, "rows": rows}
    if ":life" in _OUTLIVED[table]:
        values["life"] = LIFE
    found: int = (await session.execute(statement, values)).scalar_one()
    return found
