"""Origins that a site's chat may be used from (RFC 6454), compared exactly.

An allowed origin is scheme, host and port, or has one leading wildcard label that stands for exactly one.
What a browser enforces is where a page may call from; a program that sets the header itself is held back
by limits and challenges.
"""

import re
from collections.abc import Iterable

from fleetprompt.errors import InvalidError

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ORIGIN = re.compile(
    rf"(https?)://((?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?",
    re.ASCII,
)
_OWN_PORTS = {"http": "80", "https": "443"}
LENGTH_LIMIT = 300


def allowed_origin(text: str) -> str:
    """An entry of a site's list in the form that origins are compared in; InvalidError otherwise."""
    found = _normal(text.strip())
    if found is None:
        raise InvalidError(
            "An allowed origin is scheme, host and port, such as https://shop.example or "
            "https://*.shop.example, without a path and in ASCII (xn--… for other letters)."
        )
    return found


def matches(origin: str, allowed: Iterable[str]) -> bool:
    """Whether a request's ``Origin`` is on the list; nothing is on an empty one."""
    found = _normal(origin)
    if found is None or "*" in found:
        return False
    scheme, _, host = found.partition("://")
    _, dot, parent = host.partition(".")
    listed = frozenset(allowed)
    return found in listed or (bool(dot) and f"{scheme}://*.{parent}" in listed)


def browser_can_hash(origin: str) -> bool:
    """Whether its pages have ``crypto.subtle`` (W3C Secure Contexts §3.1): HTTPS, or this machine's own."""
    scheme, _, place = origin.lower().partition("://")
    host = place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place
    near = host in ("localhost", "[::1]") or host.endswith(".localhost")
    return scheme == "https" or near or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _normal(text: str) -> str | None:
    """In lower case and without the scheme's own port; None for what is no origin."""
    if len(text) > LENGTH_LIMIT:
        return None
    scheme_and_host = _ORIGIN.fullmatch(text.lower())
    if scheme_and_host is None or not text.isascii():
        return None
    scheme, host, port = scheme_and_host.groups()
    if port is not None and (port.startswith("0") or int(port) > 65535):
        return None
    shown = "" if port in (None, _OWN_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{host}{shown}"
