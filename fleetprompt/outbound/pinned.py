"""Connections that go to vetted addresses only, and know when a request's first byte leaves."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpcore

from fleetprompt.outbound.addresses import Network, as_literal, is_reachable
from fleetprompt.outbound.target import RefusedError

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host and a port, returns addresses; raises ``OSError`` when there are none."""

_CONNECT_SECONDS = 5.0


async def resolve(host: str, port: int) -> Sequence[str]:
    """Addresses from the system's resolver, in its order."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PinnedBackend(httpcore.AnyIOBackend):
    """Connects to vetted addresses of the one host that the request is for."""

    def __init__(
        self,
        host: str,
        resolver: Resolver,
        allowed: Sequence[Network],
        not_after: float | None = None,
    ) -> None:
        self._host = host
        self._resolver = resolver
        self._allowed = allowed
        self._not_after = not_after
        self.request_started = False
        self.problem = ""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, vet, then try the addresses in turn."""
        for address in await self.vetted_addresses(host, port):
            try:
                stream = await super().connect_tcp(
                    address, port, _CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return _WatchedStream(stream, self)
        self.problem = "The host does not take connections on this port."
        raise httpcore.ConnectError

    def start_request(self) -> None:
        """Note that the first byte leaves now; httpcore.WriteTimeout if it is too late for that."""
        if self.request_started:
            return
        if self._not_after is not None and time.monotonic() > self._not_after:
            raise httpcore.WriteTimeout
        self.request_started = True

    async def vetted_addresses(self, host: str, port: int) -> Sequence[str]:
        """The host's addresses, resolved once, if all may be reached; RefusedError or ConnectError."""
        addresses: Sequence[str] = []
        if as_literal(host) is not None:
            addresses = [host]
        else:
            try:
                addresses = await self._resolver(host, port)
            except (OSError, UnicodeError):
                addresses = []
        if not addresses:
            self.problem = "The host's name cannot be resolved."
            raise httpcore.ConnectError
        if not all(is_reachable(address, self._allowed) for address in addresses):
            raise RefusedError(
                self._host,
                "The host leads to a private or reserved address. An operator can allow its "
                "network with FLEETPROMPT_ALLOWED_PRIVATE_NETWORKS.",
            )
        return addresses


class _WatchedStream(httpcore.AsyncNetworkStream):
    """Notes when the first byte of a request leaves; a TLS handshake's bytes do not count."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, backend: PinnedBackend) -> None:
        self._inner = inner
        self._backend = backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read from the connection."""
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write to the connection, having noted it."""
        self._backend.start_request()
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection under TLS; ``server_hostname`` is the URL's host."""
        try:
            inner = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException as error:
            await self._inner.aclose()
            if isinstance(error, OSError):
                raise httpcore.ConnectError from error
            raise
        return _WatchedStream(inner, self._backend)

    def get_extra_info(self, info: str) -> object:
        """What the connection knows about itself."""
        return self._inner.get_extra_info(info)
