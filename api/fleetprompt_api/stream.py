"""The live tail of signals as server-sent events (WHATWG HTML §9.2).

1. The caller is checked and the starting position read, each in a short transaction of its own.
2. Wait for a notice, and look after ``_POLL`` seconds anyway: a notice may be lost.
3. Ask again whose key it is; a revoked one ends the stream.
4. Read what was committed since the position and send it; the position is each event's id, so that a
   browser that reconnects with ``Last-Event-ID`` misses nothing and sees nothing twice.

No database session is held while waiting.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header
from starlette.requests import Request
from starlette.responses import StreamingResponse

from fleetprompt.errors import FleetPromptError, InvalidError, RateLimitedError
from fleetprompt.signals.models import Signal
from fleetprompt.signals.read import Filter, Position, end_position, position_of, read_forward
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.auth import Platform, SignalsRead, identified_now
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.signals import SignalFilter, SignalView
from fleetprompt_api.state import AppState

routes = router("signals")

_POLL = 0.5  # seconds; also how soon a revoked key is noticed
_HEARTBEAT = 15.0  # seconds of silence before a comment keeps proxies from closing the stream
_PAGE = 200
_MOST_STREAMS = 50  # of one tenant in one process; each costs a small query every poll

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events of type `signal`; the id is the position, the data a signal.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@routes.get(
    "/signals/stream", response_class=StreamingResponse, responses={**_EVENTS, **problems(429)}
)
async def follow_signals(
    request: Request,
    caller: SignalsRead,
    platform: Platform,
    wanted: SignalFilter,
    last_event_id: Annotated[
        str | None,
        Header(max_length=64, description="Go on behind this event; without it, from now on."),
    ] = None,
) -> StreamingResponse:
    """Signals as they are committed. Reconnecting with `Last-Event-ID` misses nothing."""
    schema = caller.tenant.schema
    if last_event_id is None:
        async with platform.database.tenant(schema) as session:
            position = await end_position(session)
    else:
        position = _parse(last_event_id)
    if platform.streams[schema] >= _MOST_STREAMS:
        raise RateLimitedError(
            f"{_MOST_STREAMS} streams of this tenant are open already.", retry_after=5
        )
    events = _events(platform, request, schema, wanted, position)
    return StreamingResponse(events, media_type="text/event-stream")


async def _events(
    platform: AppState, request: Request, schema: str, wanted: Filter, position: Position
) -> AsyncIterator[bytes]:
    platform.streams[schema] += 1
    try:
        yield _place(position)
        said = time.monotonic()
        while not platform.closing.is_set():
            try:
                (await identified_now(request, noted=False)).require(Scope.SIGNALS_READ)
                found, position = await _look(platform, schema, wanted, position)
            except FleetPromptError as error:
                yield f"event: end\ndata: {error.id}\n\n".encode()
                return
            for signal in found:
                yield _event(signal)
            if found:
                said = time.monotonic()
                continue
            if time.monotonic() - said >= _HEARTBEAT:
                yield _place(position)
                said = time.monotonic()
            await _wait(platform, schema)
    finally:
        platform.streams[schema] -= 1
        if platform.streams[schema] <= 0:
            del platform.streams[schema]


async def _look(
    platform: AppState, schema: str, wanted: Filter, position: Position
) -> tuple[list[Signal], Position]:
    """What was committed since ``position``, and where the stream stands behind it.

    When nothing more was to be had, that is the end as it was before the look, even where the
    filter let nothing through: so a rare type does not make each look longer than the last.
    """
    async with platform.database.tenant(schema) as session:
        end = await end_position(session)
        found = list(await read_forward(session, position, wanted, limit=_PAGE))
    if found:
        position = position_of(found[-1])
    return found, position if len(found) == _PAGE else max(position, end)


async def _wait(platform: AppState, schema: str) -> None:
    waits = [
        asyncio.ensure_future(platform.listener.wait(schema, _POLL)),
        asyncio.ensure_future(platform.closing.wait()),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _parse(last_event_id: str) -> Position:
    try:
        return Position.parse(last_event_id)
    except InvalidError as error:
        raise InvalidError(
            error.detail, errors=[{"pointer": "#header/last-event-id", "detail": error.detail}]
        ) from None


def _event(signal: Signal) -> bytes:
    data = SignalView.of(signal).model_dump_json()
    return f"id: {position_of(signal)}\nevent: signal\ndata: {data}\n\n".encode()


def _place(position: Position) -> bytes:
    """A comment that keeps the connection alive, and a new position without an event."""
    return f": here\nid: {position}\n\n".encode()
