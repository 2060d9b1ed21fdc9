"""Waiting for news of conversations, for streams and long polls."""

import asyncio

from fleetprompt.webchat.live import Waiter
from fleetprompt_api.state import AppState


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
