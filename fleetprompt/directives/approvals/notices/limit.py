"""How many notices a tenant gets within an hour, and the one summary in place of the rest.

The ledger is what counts: it knows what went out, whoever sent it and whatever came of it. Whoever asks
holds the lock on the tenant's setting, so that several workers together keep to the number.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.approvals.terms import NOTIFY
from fleetprompt.directives.service import request_directive
from fleetprompt.tenants.service import Tenant

# The nth newest of the last hour: when it is an hour old, one more may go out.
_FREE_AT = text(
    """
    SELECT created_at + interval '1 hour' FROM outbound_messages
    WHERE starts_with(dedupe_key, 'approval_notice:') AND created_at > now() - interval '1 hour'
    ORDER BY created_at DESC OFFSET :most - 1 LIMIT 1
    """
)
_SUMMARY_WAITS = text(
    "SELECT EXISTS (SELECT FROM directives WHERE type = :type AND state = 'pending'"
    " AND starts_with(idempotency_key, 'approval_notice:summary:'))"
)
_WAITING = text(
    """
    SELECT count(*) AS waiting, min(a.expires_at) AS first_expiry,
           count(*) FILTER (WHERE NOT EXISTS (
             SELECT FROM outbound_messages m
             WHERE m.dedupe_key = concat_ws(':', 'approval_notice', a.id, a.version))) AS untold
    FROM approvals a WHERE a.state = 'waiting' AND a.expires_at > now()
    """
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for approval; ``untold`` of it had no notice of its own."""

    waiting: int
    untold: int
    first_expiry: datetime


async def free_at(session: AsyncSession, most_per_hour: int) -> datetime | None:
    """When the next notice may go out; None for now."""
    found: datetime | None = await session.scalar(_FREE_AT, {"most": most_per_hour})
    return found


async def summarize_at(session: AsyncSession, tenant: Tenant, due_at: datetime) -> None:
    """Have one summary posted then, unless one is waiting already."""
    if await session.scalar(_SUMMARY_WAITS, {"type": NOTIFY}):
        return
    await request_directive(
        session,
        tenant,
        NOTIFY,
        {"notice": "summary"},
        idempotency_key=f"approval_notice:summary:{due_at.isoformat()}",
        actor=PLATFORM,
        correlation_id=f"approval_notices:{tenant.slug}",
        available_at=due_at,
    )


async def what_waits(session: AsyncSession) -> Waiting | None:
    """All that people may decide about now; None where nothing waits."""
    row = (await session.execute(_WAITING)).one()
    return Waiting(row.waiting, row.untold, row.first_expiry) if row.waiting else None
