"""Reading signals. They are taken in by ``signals_ingest`` and followed live by ``stream``."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from starlette.requests import Request

from fleetprompt.signals.models import Signal
from fleetprompt.signals.read import Filter, get_signal, list_signals
from fleetprompt_api.auth import Platform, SignalsRead
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Instant, Limit, Links, Page, Text, Wire, page, read_cursor

routes = router("signals")


class SignalView(Wire):
    """A signal as it was stored."""

    id: UUID
    type: str
    source: str
    occurred_at: datetime
    inserted_at: datetime
    subject_type: str | None
    subject_id: str | None
    correlation_id: str | None
    causation_id: str | None
    dedupe_key: str | None
    source_event_id: str | None
    data: dict[str, Any]
    metadata: dict[str, Any]
    links: Links

    @classmethod
    def of(cls, signal: Signal) -> "SignalView":
        """As answered."""
        return cls(
            id=signal.id,
            type=signal.type,
            source=signal.source,
            occurred_at=signal.occurred_at,
            inserted_at=signal.inserted_at,
            subject_type=signal.subject_type,
            subject_id=signal.subject_id,
            correlation_id=signal.correlation_id,
            causation_id=signal.causation_id,
            dedupe_key=signal.dedupe_key,
            source_event_id=signal.source_event_id,
            data=signal.data,
            metadata=signal.context,
            links={"self": f"/api/v1/signals/{signal.id}"},
        )


def _filter(
    type_: Annotated[
        Text | None,
        Query(alias="type", description="A type, or a prefix such as `package.*`."),
    ] = None,
    source: Text | None = None,
    subject_type: Text | None = None,
    subject_id: Text | None = None,
    correlation_id: Text | None = None,
    occurred_after: Annotated[
        Instant | None, Query(description="At this time or later; needs a zone.")
    ] = None,
    occurred_before: Annotated[
        Instant | None, Query(description="Before this time; needs a zone.")
    ] = None,
) -> Filter:
    return Filter(
        type=type_,
        source=source,
        subject_type=subject_type,
        subject_id=subject_id,
        correlation_id=correlation_id,
        occurred_from=occurred_after,
        occurred_before=occurred_before,
    )


SignalFilter = Annotated[Filter, Depends(_filter)]


@routes.get("/signals")
async def read_signals(
    request: Request,
    caller: SignalsRead,
    platform: Platform,
    wanted: SignalFilter,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[SignalView]:
    """Signals, the newest first by the time they came in."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await list_signals(session, wanted, before=before, limit=limit)
    return page(request, found, limit, lambda one: one.id, SignalView.of)


@routes.get("/signals/{signal_id}")
async def read_signal(signal_id: UUID, caller: SignalsRead, platform: Platform) -> SignalView:
    """One signal."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        return SignalView.of(await get_signal(session, signal_id))
