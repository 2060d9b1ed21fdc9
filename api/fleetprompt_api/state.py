"""What one process of the API holds while it runs."""

import asyncio
import contextlib
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import cast

from starlette.requests import Request

from fleetprompt.clock import Clock, system_clock
from fleetprompt.connectors.pairing import Pairing
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.directives.doorbell import Doorbell
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages.signal_handlers import signal_handlers
from fleetprompt.sessions.guessing import Guessing
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.wakeups import Listener
from fleetprompt.telemetry import tracing
from fleetprompt.telemetry.exposition import Scrape
from fleetprompt.telemetry.reporting import reporting
from fleetprompt.tenants.key_service import Identity, KeyRing
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.live import Live
from fleetprompt.webchat.sites import Sites


@dataclass(slots=True)
class RequestNotes:
    """What is learned of a request on its way, for its line in the log."""

    request_id: str
    identity: Identity | None = None


NOTES: ContextVar[RequestNotes | None] = ContextVar("request_notes", default=None)


class NotingKeyRing(KeyRing):
    """Notes who a request comes from as soon as that is known."""

    async def identify(self, token: str) -> Identity:
        """Whose key this is; see ``KeyRing.identify``."""
        identity = await super().identify(token)
        notes = NOTES.get()
        if notes is not None:
            notes.identity = identity
        return identity


@dataclass(slots=True)
class AppState:
    """The parts that endpoints work with; at ``app.state.platform`` while the application runs.

    ``closing`` is set as soon as the process is told to stop, when requests that would never end by
    themselves have to. ``streams`` counts open event streams by tenant schema.
    """

    settings: Settings
    directive_types: Mapping[str, AnyDirectiveType]
    database: Database
    key_ring: KeyRing
    sessions: Sessions
    guessing: Guessing
    pairing: Pairing
    writer: SignalWriter
    listener: Listener
    doorbell: Doorbell
    vault: Vault
    outbound: OutboundClient
    scrape: Scrape
    chat_sites: Sites
    chat_live: Live
    clock: Clock = system_clock
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    streams: Counter[str] = field(default_factory=Counter)


def state_of(request: Request) -> AppState:
    """The application's state, from a request."""
    return cast(AppState, request.app.state.platform)


@asynccontextmanager
async def opened(
    settings: Settings, directive_types: Mapping[str, AnyDirectiveType]
) -> AsyncIterator[AppState]:
    """Open everything, and close it again so that everybody in flight is answered first.

    PostgreSQL need not be there yet: requests are 503 until it is.
    """
    url = application_url(settings)
    async with (
        Database.application(settings, name="fleetprompt-api") as database,
        reporting(database, "api") as reporter,
    ):
        vault = Vault(database, load_master_key(settings))
        state = AppState(
            settings=settings,
            directive_types=directive_types,
            database=database,
            key_ring=NotingKeyRing(database, settings),
            sessions=Sessions(database, settings),
            guessing=Guessing(database, settings),
            pairing=Pairing(database, settings),
            writer=SignalWriter(url, settings, signal_handlers()),
            listener=Listener(url),
            doorbell=Doorbell(database),
            vault=vault,
            outbound=OutboundClient(settings),
            scrape=Scrape(database, reporter),
            chat_sites=Sites(database, vault, settings.key_cache_seconds),
            chat_live=Live(database),
        )
        await state.writer.start()
        state.listener.start()
        state.doorbell.start()
        state.chat_live.start()
        try:
            with _told_to_stop(state.closing):
                yield state
        finally:
            state.closing.set()
            await state.writer.close()
            await state.listener.close()
            await state.doorbell.close()
            await state.chat_live.close()
            await state.key_ring.close()
            await asyncio.to_thread(tracing.flush)


@contextlib.contextmanager
def _told_to_stop(closing: asyncio.Event) -> Iterator[None]:
    """Set ``closing`` at SIGTERM and SIGINT, before the server's own handlers run.

    A server waits for open requests before it ends the lifespan, so an event stream would keep it
    waiting for ever if it heard of the end only then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(closing.set)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
