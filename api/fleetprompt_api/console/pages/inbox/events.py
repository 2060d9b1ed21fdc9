"""What moves in the inbox, as server-sent events: which conversations changed, and where a visitor types.

What changed is read by the page itself, so that nobody is told more than they may see. No database
connection is held while waiting; who is signed out meanwhile is told nothing more.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import FleetPromptError, UnauthenticatedError
from fleetprompt.tenants.keys import Scope
from fleetprompt.webchat.live import Watcher
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import INBOX, Visitor, page_router
from fleetprompt_api.session_cookie import session_token
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.following import HeldStream, wait_for_news

routes = page_router(INBOX)

_PING = 15.0  # seconds; also how soon an ended session is noticed


@routes.get("/events")
async def follow_inbox(
    request: Request, visitor: Visitor, platform: Platform, conversation: UUID | None = None
) -> Response:
    """Every conversation's changes, or one's. No ids: any may have changed."""
    visitor.identity.require(Scope.WEBCHAT_READ)
    stack = ExitStack()
    watcher = stack.enter_context(platform.chat_live.watch(visitor.identity.tenant.schema))
    return HeldStream(_events(platform, request, watcher, conversation), stack)


async def _events(
    platform: AppState, request: Request, watcher: Watcher, wanted: UUID | None
) -> AsyncIterator[bytes]:
    yield b": here\n\n"
    checked = time.monotonic()
    while not platform.closing.is_set():
        await wait_for_news(platform, watcher, checked + _PING - time.monotonic())
        changed, typing, everything = watcher.take()
        if time.monotonic() - checked >= _PING:
            try:
                await _check(platform, request)
            except FleetPromptError:
                return
            yield b": ping\n\n"
            checked = time.monotonic()
        if everything:
            yield _event("changed", set())
        elif wanted is None and changed:
            yield _event("changed", changed)
        elif wanted in changed:
            yield _event("changed", {wanted})
        elif wanted in typing:
            yield _event("typing", {wanted})


async def _check(platform: AppState, request: Request) -> None:
    token = session_token(request, platform.settings)
    if token is None:
        raise UnauthenticatedError
    found = await platform.sessions.find(token, noted=False)
    found.identity.require(Scope.WEBCHAT_READ)


def _event(kind: str, conversations: set[UUID]) -> bytes:
    data = json.dumps([str(one) for one in conversations])
    return f"event: {kind}\ndata: {data}\n\n".encode()
