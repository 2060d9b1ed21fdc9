"""Noticing connectors that are not heard of any more.

A heartbeat moves one time in the tenant's own row and nothing else. A small table of the platform says when
to look at each connector next; whoever looks moves that time to when the connector would be silent, so that
one that beats costs a look every few minutes and not one a heartbeat.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.connectors.expectations import SILENT_AFTER
from fleetprompt.connectors.models import Connector, WatchedConnector
from fleetprompt.connectors.pairing import correlation_of
from fleetprompt.connectors.service import unwatch
from fleetprompt.db.engine import Database
from fleetprompt.packages.models import Installation
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant

_MOST = 1000

_FORGET = text(
    "DELETE FROM fleetprompt.connectors_watched w WHERE w.look_at <= :now AND NOT EXISTS"
    " (SELECT FROM fleetprompt.organizations o WHERE o.schema_name = w.tenant_schema)"
)
_DUE = text(
    """
    SELECT o.id, o.slug, o.schema_name, w.connector_id
    FROM fleetprompt.connectors_watched w
    JOIN fleetprompt.organizations o ON o.schema_name = w.tenant_schema
    WHERE w.look_at <= :now AND o.state = 'active'
    ORDER BY o.schema_name, w.connector_id LIMIT :most
    """
)
# Before any connector's row, as the one who hears of several does (p0005).
_ONE_AT_A_TIME = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('fleetprompt.connectors:' || :schema, 0))"
)


@dataclass(frozen=True, slots=True)
class Looked:
    """How many connectors were looked at, and how many of them have fallen silent."""

    connectors: int
    silent: int


async def note_silent(database: Database, now: datetime) -> Looked:
    """Look at the connectors that it is time to look at, over all tenants; at most a thousand.

    One that has not been heard of for ``SILENT_AFTER`` becomes ``silent``, its installation
    ``degraded``, and the signal ``connector.silent`` tells of it, once for each silence.
    """
    await database.statement(_FORGET, {"now": now})
    rows = await database.statement(_DUE, {"now": now, "most": _MOST})
    silent = 0
    for (organization_id, slug, schema), due in groupby(rows, lambda row: tuple(row[:3])):
        tenant = Tenant(organization_id, slug, schema)
        async with database.tenant(schema) as session:
            silent += await _look(session, tenant, [row.connector_id for row in due], now)
    return Looked(len(rows), silent)


async def _look(
    session: AsyncSession, tenant: Tenant, connector_ids: list[UUID], now: datetime
) -> int:
    await session.execute(_ONE_AT_A_TIME, {"schema": tenant.schema})
    found = await session.scalars(
        select(Connector)
        .where(Connector.id.in_(connector_ids), Connector.state == "connected")
        .order_by(Connector.id)
        .with_for_update()
    )
    beating, silent = set(), 0
    for one in found:
        if is_silent(one, now):
            one.state, one.troubled = "silent", True
            await _tell(session, one)
            silent += 1
            continue
        beating.add(one.id)
        await session.execute(
            update(WatchedConnector)
            .where(
                WatchedConnector.tenant_schema == tenant.schema,
                WatchedConnector.connector_id == one.id,
            )
            .values(look_at=(one.last_seen_at or now) + SILENT_AFTER)
        )
    await unwatch(session, tenant, [one for one in connector_ids if one not in beating])
    return silent


async def _tell(session: AsyncSession, connector: Connector) -> None:
    words = (
        f"Nothing was heard of the connector {connector.label} for "
        f"{SILENT_AFTER.seconds // 60} minutes."
    )
    await session.execute(
        update(Installation)
        .where(
            Installation.package == connector.package,
            Installation.state.in_(("installed", "connected", "degraded")),
        )
        .values(
            state="degraded",
            last_error_kind="network",
            last_error=words,
            last_error_at=connector.last_seen_at,
        )
    )
    await emit(
        session,
        NewSignal(
            type="connector.silent",
            subject_type="connector",
            subject_id=str(connector.id),
            data={"connector_id": str(connector.id), "label": connector.label, "message": words},
            correlation_id=correlation_of(connector.id),
        ),
    )


def is_silent(connector: Connector, now: datetime) -> bool:
    """Whether one that was heard of has been missed for too long, noted or not."""
    heard = connector.last_seen_at
    return connector.state == "silent" or (
        connector.state == "connected" and heard is not None and heard + SILENT_AFTER <= now
    )
