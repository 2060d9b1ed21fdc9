"""Asking the handlers again about signals that are stored already.

Idempotency keys follow from the signal alone, so a directive that was asked for before exists and is
not run again; only what was missed, or what a new handler asks for, is new.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.directives.approvals.opening import (
    needing_approval,
    open_for_handlers,
    waiting_of,
)
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.signals.envelope import Row
from fleetprompt.signals.handlers import Handlers
from fleetprompt.signals.models import Signal
from fleetprompt.signals.read import Filter, Position, position_of, read_forward
from fleetprompt.signals.statements import REQUEST
from fleetprompt.tenants.service import Tenant


@dataclass(frozen=True)
class Replayed:
    """How many signals were looked at, directives asked for, and of those how many are new."""

    signals: int
    asked: int
    requested: int


async def replay(
    database: Database,
    tenant: Tenant,
    handlers: Handlers,
    *,
    since: datetime,
    until: datetime | None = None,
    type_: str | None = None,
    execute: bool = False,
) -> Replayed:
    """Run ``handlers`` over a tenant's signals that occurred in the half-open range.

    Times without a zone are taken as UTC. Without ``execute`` nothing is written.
    """
    wanted = Filter(
        type=type_,
        occurred_from=_zoned(since),
        occurred_before=_zoned(until) if until is not None else None,
    )
    position, signals, asked, requested = Position(), 0, 0, 0
    while True:
        async with database.tenant(tenant.schema) as session:
            page = await read_forward(session, position, wanted)
            records = [record for signal in page for record in handlers.requests(_row(signal))]
            if execute and records:
                requested += await _request(session, records, directive_types())
        if not page:
            return Replayed(signals, asked, requested)
        signals, asked, position = signals + len(page), asked + len(records), position_of(page[-1])


async def _request(
    session: AsyncSession, records: list[msgspec.Raw], types: Mapping[str, AnyDirectiveType]
) -> int:
    """Ask for the directives and open the approvals of those that need one; how many are new."""
    connection = await session.connection()
    done = await connection.exec_driver_sql(
        REQUEST, (needing_approval(types), msgspec.json.encode(records).decode())
    )
    made = [(row.id, row.state) for row in done]
    if waiting := waiting_of(made):
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101 - what the engine is made with
        await open_for_handlers(driver, waiting, types)
    return len(made)


def _zoned(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _row(signal: Signal) -> Row:
    def raw(value: Any) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))

    return Row(
        id=signal.id,
        key=None,
        type=signal.type,
        source=signal.source,
        occurred_at=signal.occurred_at,
        subject_type=signal.subject_type,
        subject_id=signal.subject_id,
        dedupe_key=signal.dedupe_key,
        source_event_id=signal.source_event_id,
        data=raw(signal.data),
        metadata=raw(signal.context),
    )
