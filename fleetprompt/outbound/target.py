"""Reading a tenant-supplied URL strictly, and what can go wrong on the way to it."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

import httpx

from fleetprompt.outbound.addresses import as_literal, is_disguised_literal

_HOST = re.compile(r"[A-Za-z0-9._-]+")


class OutboundError(Exception):
    """The request got no answer; ``host`` is all that is told about its URL."""

    may_have_arrived: ClassVar[bool] = False

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host}: {reason}" if host else reason)
        self.host = host
        self.reason = reason


class RefusedError(OutboundError):
    """Against the policy for outbound requests; no connection was made."""


class ConnectFailedError(OutboundError):
    """No connection: name, network or TLS. No byte of the request was sent."""


class ResponseLostError(OutboundError):
    """Bytes of the request were sent and no answer came back; it may have been carried out."""

    may_have_arrived: ClassVar[bool] = True


@dataclass(frozen=True)
class Target:
    """A URL taken apart; ``path`` may be a secret and stays out of the repr."""

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def host_header(self) -> str:
        """Value of ``Host``: the port only where it is not the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"https": 443, "http": 80}[self.scheme]
        return name if self.port == usual else f"{name}:{self.port}"


def parse_target(url: str, *, allow_plain_http: bool) -> Target:
    """Take the URL apart.

    Raises ``RefusedError`` for anything but a plain ``https://host[:port]/path?query``, or
    ``http://`` where that is allowed.
    """
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url) or "\\" in url:
        raise RefusedError("", "The URL holds a blank, a control character or a backslash.")
    parsed = _parse(url)
    if parsed is None:
        raise RefusedError("", "The URL cannot be read.")
    if parsed.scheme not in ("https", "http"):
        raise RefusedError("", "Only https:// URLs are taken.")
    host = parsed.raw_host.decode("ascii")
    if not _HOST.fullmatch(host) and as_literal(host) is None:
        raise RefusedError("", "The URL's host is not a name or an address.")
    if parsed.scheme == "http" and not allow_plain_http:
        raise RefusedError(host, "http:// is not encrypted; use https://.")
    if parsed.userinfo or "@" in url.split("://", 1)[-1].split("/", 1)[0]:
        raise RefusedError(host, "The URL holds a user name or a password before the host.")
    if host.endswith(".") or "%" in host:
        raise RefusedError(host, "The host ends with a dot or has a zone.")
    if is_disguised_literal(host):
        raise RefusedError(host, "The host is an address in an unusual notation.")
    port = {"https": 443, "http": 80}[parsed.scheme] if parsed.port is None else parsed.port
    if not 1 <= port <= 65_535:
        raise RefusedError(host, f"There is no port {port}.")
    return Target(parsed.scheme, host, port, parsed.raw_path.decode("ascii"))


def _parse(url: str) -> httpx.URL | None:
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None
