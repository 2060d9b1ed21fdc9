"""Waiting for news of conversations, for streams and long polls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fleetprompt.webchat.live import Waiter
from fleetprompt_api.state import AppState


class HeldStream(StreamingResponse):
    """Server-sent events; ``held`` is let go of at their end, also where they never began."""

    def __init__(self, events: AsyncIterator[bytes], held: ExitStack) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        with self._held:
            await super().__call__(scope, receive, send)


async def wait_for_news(platform: AppState, waiter: Waiter, seconds: float) -> None:
    """Return when there is news, after so many seconds, or when the process is told to stop."""
    waits = [
        asyncio.ensure_future(waiter.wait(seconds)),
        asyncio.ensure_future(platform.closing.wait()),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
