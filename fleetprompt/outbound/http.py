"""The one client for URLs that tenants supply.

A request goes through these steps, under one deadline:

1. the URL is read strictly; its scheme, host and port are judged;
2. the host is resolved once, and every address found is vetted;
3. the connection goes to a vetted address, never to the name again, so that an answer that
   changes between check and use (DNS rebinding) has no effect; TLS still verifies the name;
4. the request is written, and from its first byte on a failure is ambiguous;
5. status and headers are read, then at most ``read_limit`` bytes of the body.

There is no code here that follows redirects, keeps cookies, asks the environment for a proxy or
reuses a connection: a reused one may die under a request that was never seen, which would make a
harmless failure ambiguous.

URLs are secrets (an incoming webhook's is a password): errors, reprs and logs name the host only.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

import httpcore
import httpx

from fleetprompt.outbound.addresses import Network
from fleetprompt.outbound.pinned import PinnedBackend, Resolver, resolve
from fleetprompt.outbound.target import (
    ConnectFailedError,
    OutboundError,
    RefusedError,
    ResponseLostError,
    Target,
    parse_target,
)
from fleetprompt.settings import Settings
from fleetprompt.telemetry import events, spans

__all__ = [
    "ConnectFailedError",
    "OutboundClient",
    "OutboundError",
    "RefusedError",
    "Reply",
    "Resolver",
    "ResponseLostError",
    "Target",
    "parse_target",
]

READ_LIMIT = 8 * 1024
DEADLINE_SECONDS = 15.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """Status, headers (names in lower case) and the beginning of the body.

    ``body_complete`` is false where the body was longer than the limit, broke off, or was still
    coming in at the deadline.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    body_complete: bool

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; empty if there is none."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


class OutboundClient:
    """Sends single requests under the policy of the settings; holds no connection between them."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed: tuple[Network, ...] = settings.allowed_private_networks
        self._allow_plain_http = settings.allow_plain_http
        self._resolver = resolver
        # Certificates from SSL_CERT_FILE or SSL_CERT_DIR if set, so that an operator's own
        # authority can be trusted; nothing else is taken from the environment.
        self._ssl_context = ssl_context or httpx.create_ssl_context()

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Which certificates are trusted."""
        return self._ssl_context

    @property
    def allows_plain(self) -> bool:
        """Whether the operator lets tenants' traffic go unencrypted."""
        return self._allow_plain_http

    async def vetted_addresses(self, host: str, port: int) -> Sequence[str]:
        """Where a connection of another protocol may go; RefusedError or ConnectFailedError."""
        backend = PinnedBackend(host, self._resolver, self._allowed)
        try:
            return await backend.vetted_addresses(host, port)
        except httpcore.ConnectError:
            raise ConnectFailedError(host, backend.problem) from None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        deadline_seconds: float = DEADLINE_SECONDS,
        read_limit: int = READ_LIMIT,
        not_after: float | None = None,
    ) -> Reply:
        """Send one request and return its answer, whatever the status.

        ``deadline_seconds`` covers everything from the name's resolution to the body's last byte;
        when it passes while the body comes in, the reply is returned with what was read. After
        ``not_after`` (of ``time.monotonic``) no first byte is sent: a process that was stopped until
        its lease was over must not send when it goes on. Raises ``RefusedError``,
        ``ConnectFailedError`` or ``ResponseLostError``.
        """
        target = parse_target(url, allow_plain_http=self._allow_plain_http)
        backend = PinnedBackend(target.host, self._resolver, self._allowed, not_after)
        exchange = _Exchange(target, backend, self._ssl_context)
        started = time.monotonic()
        with _silent_libraries(), spans.outbound(method, target.host, target.port) as span:
            problem = await exchange.run(
                _request(method, target, headers or {}, content), deadline_seconds, read_limit
            )
            answered = None if exchange.reply is None else exchange.reply.status
            spans.answered(span, answered, problem)
        took = time.monotonic() - started
        took_ms = round(took * 1000)
        events.outbound_request(took, answered, type(problem).__name__)
        # Raised here, outside every ``except``, so that no library's error, which knows the
        # request, hangs on as the context.
        if exchange.reply is None:
            error = problem or ConnectFailedError(target.host, "No connection was made.")
            kind = type(error).__name__
            _log.info("%s to %s failed after %d ms: %s", method, target.host, took_ms, kind)
            raise error
        status = exchange.reply.status
        _log.info("%s to %s answered %d after %d ms", method, target.host, status, took_ms)
        return exchange.reply


def _request(
    method: str, target: Target, headers: Mapping[str, str], content: bytes
) -> httpcore.Request:
    fixed = {
        "Host": target.host_header,
        "User-Agent": "FleetPrompt",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Length": str(len(content)),
    }
    taken = {name.lower() for name in fixed}
    given = {name: value for name, value in headers.items() if name.lower() not in taken}
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    return httpcore.Request(method, url, headers=list((fixed | given).items()), content=content)


class _Exchange:
    """One request and what became of it."""

    def __init__(self, target: Target, backend: PinnedBackend, ssl_context: ssl.SSLContext) -> None:
        self._target = target
        self._backend = backend
        self._connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port),
            ssl_context=ssl_context,
            network_backend=backend,
        )
        self.reply: Reply | None = None

    async def run(
        self, request: httpcore.Request, deadline_seconds: float, read_limit: int
    ) -> OutboundError | None:
        """Fill in ``reply``, or return why there is none."""
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._send(request, read_limit)
        except RefusedError as error:
            return error
        except TimeoutError:
            return self._failure(f"No answer within {deadline_seconds:g} seconds.")
        except httpcore.ConnectError:
            return self._failure(self._backend.problem or "The TLS handshake failed.")
        except httpcore.TimeoutException:
            return self._failure("The connection took too long.")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            return self._failure("The connection broke.")
        finally:
            await self._close()
        return None

    def _failure(self, reason: str) -> OutboundError:
        kind = ResponseLostError if self._backend.request_started else ConnectFailedError
        return kind(self._target.host, reason)

    async def _send(self, request: httpcore.Request, read_limit: int) -> None:
        response = await self._connection.handle_async_request(request)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }
        body = bytearray()
        complete = False

        def note() -> None:
            self.reply = Reply(response.status, headers, bytes(body[:read_limit]), complete)

        note()
        try:
            async with aclosing(_chunks(response)) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > read_limit:
                        break
                else:
                    complete = True
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            complete = False
        finally:
            note()

    async def _close(self) -> None:
        """Close without waiting for the other side; what it does then does not matter."""
        try:
            async with asyncio.timeout(1.0):
                await self._connection.aclose()
        except (TimeoutError, OSError, httpcore.NetworkError):
            _log.debug("closing the connection to %s failed", self._target.host)


def _chunks(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    return cast("AsyncGenerator[bytes, None]", aiter(cast("AsyncIterable[bytes]", response.stream)))


_in_request: ContextVar[bool] = ContextVar("_in_request", default=False)


@contextmanager
def _silent_libraries() -> Iterator[None]:
    token = _in_request.set(True)
    try:
        yield
    finally:
        _in_request.reset(token)


def _outside_request(_record: logging.LogRecord) -> bool:
    return not _in_request.get()


# The library's debug records hold the answer's headers, and a redirect's Location repeats the
# webhook's URL; during a request of ours they are dropped, whatever level is set.
for _name in ("httpcore.connection", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_outside_request)
