"""Writing what a tenant's chat did on one UTC day: one row a conversation that anything happened in."""

import asyncio
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median
from typing import Any
from uuid import UUID

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import CONVERSATION_DAYS, parquet_options, parquet_schema
from fleetprompt.lake.days import hold_day, utc_day
from fleetprompt.lake.layout import day_file, parquet_file, replacing
from fleetprompt.lake.places import LakePath
from fleetprompt.tenants.service import Tenant

# Days in the table and the picture that go with a day.
TREND_DAYS = 14

# A first response is the team's first message after the visitor's first, told on the day it was given.
# Directives are found by their ids, which begin with their time.
_ROWS = text(
    """
    WITH said AS (
        SELECT conversation_id,
               count(*) FILTER (WHERE role = 'visitor') AS visitor_messages,
               count(*) FILTER (WHERE role <> 'visitor') AS replies
        FROM website_chat_messages WHERE inserted_at >= :start AND inserted_at < :end GROUP BY 1),
    escalated AS (
        SELECT CAST(params ->> 'conversation_id' AS uuid) AS conversation_id, count(*) AS escalations
        FROM directives
        WHERE id >= :first_id AND id < :last_id
          AND type IN ('webchat.escalate_to_mattermost', 'webchat.escalate_to_email')
        GROUP BY 1),
    touched AS (
        SELECT conversation_id AS id FROM said
        UNION SELECT conversation_id FROM escalated
        UNION SELECT id FROM website_chat_conversations
              WHERE inserted_at >= :start AND inserted_at < :end
                 OR closed_at >= :start AND closed_at < :end)
    SELECT c.id::text AS conversation_id, c.site_id::text AS site_id,
           (c.inserted_at >= :start AND c.inserted_at < :end)::int AS started,
           coalesce(c.closed_at >= :start AND c.closed_at < :end, false)::int AS ended,
           coalesce(s.visitor_messages, 0) AS visitor_messages,
           coalesce(s.replies, 0) AS replies,
           CASE WHEN r.answered >= :start AND r.answered < :end
                THEN CAST(extract(epoch FROM r.answered - r.asked) * 1000 AS bigint)
           END AS first_response_ms,
           coalesce(e.escalations, 0) AS escalations
    FROM touched t JOIN website_chat_conversations c ON c.id = t.id
    LEFT JOIN said s ON s.conversation_id = c.id
    LEFT JOIN escalated e ON e.conversation_id = c.id
    LEFT JOIN LATERAL (
        SELECT q.asked, min(a.inserted_at) AS answered
        FROM (SELECT min(seq) AS seq, min(inserted_at) AS asked FROM website_chat_messages
              WHERE conversation_id = c.id AND role = 'visitor') q
        JOIN website_chat_messages a
          ON a.conversation_id = c.id AND a.role <> 'visitor' AND a.seq > q.seq
        GROUP BY 1) r ON s.replies > 0
    ORDER BY c.id
    """
)


@dataclass(frozen=True, slots=True)
class DayFigures:
    """One day's chat in figures; ``first_response_ms`` is the median, None where nobody was answered."""

    day: date
    started: int = 0
    ended: int = 0
    visitor_messages: int = 0
    replies: int = 0
    escalations: int = 0
    first_response_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ConversationsReport:
    """What a day's file holds, and the days up to it, oldest first, as far as they have files."""

    tenant: str
    day: date
    path: LakePath
    rows: int
    bytes: int
    figures: DayFigures
    trend: tuple[DayFigures, ...] = field(repr=False)


async def write_conversations(
    database: Database, lake: LakePath, tenant: Tenant, day: date, *, empty: bool = True
) -> ConversationsReport | None:
    """Write the day's file and put it in the old one's place.

    Without ``empty`` a day of which there is nothing to tell, and no file to replace, gets none: None.
    """
    start, end = utc_day(day)
    target = day_file(lake, CONVERSATION_DAYS, tenant.slug, day)
    values = {
        "start": start,
        "end": end,
        "first_id": UUID(int=int(start.timestamp() * 1000) << 80),
        "last_id": UUID(int=int(end.timestamp() * 1000) << 80),
    }
    async with database.tenant(tenant.schema) as session:
        await hold_day(session, tenant.schema, day)
        rows = [dict(row) for row in (await session.execute(_ROWS, values)).mappings()]
        if not rows and not empty and not target.exists():
            return None
        await asyncio.to_thread(_write, target, rows)
        trend = await asyncio.to_thread(_trend, lake, tenant.slug, day)
        return ConversationsReport(
            tenant=tenant.slug,
            day=day,
            path=target,
            rows=len(rows),
            bytes=target.stat().st_size,
            figures=trend[-1],
            trend=trend,
        )


def _write(target: LakePath, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(CONVERSATION_DAYS)
    with replacing(target) as unfinished:
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema),
            unfinished,
            **parquet_options(CONVERSATION_DAYS, schema),
        )


def _trend(lake: LakePath, slug: str, day: date) -> tuple[DayFigures, ...]:
    days = [day - timedelta(days=ago) for ago in reversed(range(TREND_DAYS))]
    found = [(one, day_file(lake, CONVERSATION_DAYS, slug, one)) for one in days]
    return tuple(_figures(one, path) for one, path in found if path.exists())


def _figures(day: date, path: LakePath) -> DayFigures:
    names = ("started", "ended", "visitor_messages", "replies", "escalations")
    with parquet_file(path) as file:
        columns = file.read(columns=[*names, "first_response_ms"]).to_pydict()
    answered = [one for one in columns["first_response_ms"] if one is not None]
    sums = {name: sum(columns[name]) for name in names}
    return DayFigures(
        day=day, **sums, first_response_ms=round(median(answered)) if answered else None
    )
