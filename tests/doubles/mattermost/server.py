"""Running the stand-in on a port of 127.0.0.1, in a thread of a test or as its own process."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import create_app
from .behaviour import Behaviour
from .state import DEFAULT_HOOK_ID, Post, Received, State


class _Protocol(H11Protocol):
    """Hands the connection to the application, which sometimes has to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class Server(uvicorn.Server):
    """A server whose signals are its owner's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the process's signal handlers alone."""
        yield


def make_server(state: State) -> Server:
    """A server for the state; it keeps quiet, since paths hold the hook's id."""
    config = uvicorn.Config(
        create_app(state),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    return Server(config)


def listen(port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 is any free one."""
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


@dataclass(frozen=True)
class RunningMattermost:
    """A stand-in that answers on ``url``; its state may be read and changed from the test."""

    url: str
    state: State

    @property
    def behaviour(self) -> Behaviour:
        """The switches."""
        return self.state.behaviour

    @property
    def base_url(self) -> str:
        """SiteURL, with the subpath."""
        return f"{self.url}{self.behaviour.subpath}"

    @property
    def port(self) -> int:
        """The port of 127.0.0.1."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def hook_url(self) -> str:
        """The incoming webhook's URL, which is a secret."""
        return f"{self.base_url}/hooks/{self.state.hook_id}"

    @property
    def posts(self) -> list[Post]:
        """All posts in the order of saving."""
        return self.state.posts

    @property
    def requests(self) -> list[Received]:
        """All requests but those to the page and the switches."""
        return self.state.requests

    def set(self, **switches: Any) -> None:
        """Change switches by name."""
        self.behaviour.change(switches)


@contextlib.contextmanager
def running_mattermost(
    behaviour: Behaviour | None = None, hook_id: str = DEFAULT_HOOK_ID
) -> Iterator[RunningMattermost]:
    """A stand-in in a thread of this process, stopped at the end."""
    state = State(behaviour, hook_id)
    server = make_server(state)
    with listen() as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield RunningMattermost(f"http://127.0.0.1:{listener.getsockname()[1]}", state)
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + 10
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the Mattermost stand-in did not start")
        time.sleep(0.005)
