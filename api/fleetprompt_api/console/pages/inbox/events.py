"""What moves in the inbox, as server-sent events: which conversations changed, and where a visitor types.

What changed is read by the page itself, so that nobody is told more than they may see. No database
connection is held while waiting; who is signed out meanwhile is told nothing more.
"""

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fleetprompt.errors import FleetPromptError, UnauthenticatedError
from fleetprompt.tenants.keys import Scope
from fleetprompt.webchat.live import Watcher
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import INBOX, Visitor, page_router
from fleetprompt_api.session_cookie import session_token
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.following import wait_for_news

routes = page_router(INBOX)

_PING = 15.0  # seconds; also how soon an ended session is noticed
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@routes.get("/events")
async def follow_inbox(
    request: Request, visitor: Visitor, platform: Platform, conversation: UUID | None = None
) -> Response:
    """Every conversation's changes, or one's."""
    visitor.identity.require(Scope.WEBCHAT_READ)
    stack = ExitStack()
    watcher = stack.enter_context(platform.chat_live.watch(visitor.identity.tenant.schema))
    events = _events(platform, request, stack, watcher, conversation)
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


async def _events(
    platform: AppState,
    request: Request,
    stack: ExitStack,
    watcher: Watcher,
    wanted: UUID | None,
) -> AsyncIterator[bytes]:
    with stack:
        yield b": here\n\n"
        while not platform.closing.is_set():
            if not watcher.rung.is_set():
                await wait_for_news(platform, watcher, _PING)
            changed, typing, everything = watcher.take()
            watcher.rung.clear()
            if everything or (changed if wanted is None else wanted in changed):
                yield _event("changed", changed if wanted is None else {wanted})
            elif wanted in typing:
                yield _event("typing", {wanted})
            elif not changed and not typing:
                try:
                    await _check(platform, request)
                except FleetPromptError:
                    return
                yield b": ping\n\n"


async def _check(platform: AppState, request: Request) -> None:
    token = session_token(request, platform.settings)
    if token is None:
        raise UnauthenticatedError
    found = await platform.sessions.find(token, noted=False)
    found.identity.require(Scope.WEBCHAT_READ)


def _event(kind: str, conversations: set[UUID]) -> bytes:
    data = json.dumps([str(one) for one in conversations])
    return f"event: {kind}\ndata: {data}\n\n".encode()
