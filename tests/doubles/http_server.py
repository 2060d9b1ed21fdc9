"""A small HTTP server for doubles that do what no framework offers a test.

Such a double stores something and then drops the connection, cuts a stream in the middle, or stops answering.
"""

import asyncio
import json
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]
Result = TypeVar("Result")


@dataclass
class Request:
    """What came in: header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        found = json.loads(self.body or b"{}")
        assert isinstance(found, dict)
        return found


@dataclass
class Answer:
    """What goes out; `drop` closes the connection without it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class _Connection(asyncio.StreamReaderProtocol):
    """One of a server's connections, known to it from the first moment to the last."""

    def __init__(self, server: "HttpServer") -> None:
        reader = asyncio.StreamReader(loop=server.loop)
        super().__init__(reader, server.serve, loop=server.loop)
        self._open = server.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._open.add(transport)
        self._own = transport
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self._own)
        super().connection_lost(error)


class HttpServer:
    """HTTP/1.1 on 127.0.0.1, one request a connection, in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[Request] = []
        self.connections: set[asyncio.WriteTransport] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        self.run(self._listen())

    async def _listen(self) -> None:
        self._server = await self.loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs in the server's thread and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def refuse(self) -> None:
        """Nobody listens any more; `start` listens again on the same port."""
        self.run(self._refuse())

    async def _refuse(self) -> None:
        if self._server is not None:
            # asyncio 3.11 drops, unclosed, what it accepted just before its server was closed: let that
            # become a connection first.
            for listening in self._server.sockets:
                self.loop.remove_reader(listening.fileno())
            await asyncio.sleep(0)
            self._server.close()
            self._server = None

    def stop(self) -> None:
        """Ends everything; when it returns no socket and no task is left."""
        self.run(self._shut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    async def _shut(self) -> None:
        await self._refuse()
        # A request ends with its connection.
        while self.connections or len(asyncio.all_tasks()) > 1:
            for transport in list(self.connections):
                transport.abort()
            await asyncio.sleep(0.001)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer; given up when the client goes."""
        try:
            request = await read_request(reader)
            self.requests.append(request)
            answering = asyncio.ensure_future(self.answer(request, writer))
            gone = asyncio.ensure_future(reader.read(1))
            gone.add_done_callback(lambda _: answering.cancel())
            answer = await answering
            gone.cancel()
            if answer is not None and not answer.drop:
                await send(writer, answer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer | None:
        """The answer, or None when it was written already."""
        raise NotImplementedError


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), target, headers, body)


async def send(writer: asyncio.StreamWriter, answer: Answer, *, streams: bool = False) -> None:
    headers = {"Connection": "close", **answer.headers}
    if not streams:
        headers["Content-Length"] = str(len(answer.body))
    lines = [
        f"HTTP/1.1 {answer.status} -",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
    await writer.drain()
