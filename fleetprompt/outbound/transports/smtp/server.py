"""A mail server that takes letters for submission, with a user's name and password (RFC 6409)."""

import json
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.target import RefusedError, parse_target

_PORTS = {"smtps": 465, "smtp": 587}
_WANTED = (
    "Give the server as smtps://user@host or smtp://user@host:587, and the password as the token."
)


@dataclass(frozen=True, repr=False)
class SmtpServer:
    """Host and port; ``smtps`` is TLS from the first byte, ``smtp`` turns to it by STARTTLS.

    With ``plain_allowed`` an ``smtp`` server that offers no STARTTLS is spoken to in clear.
    """

    scheme: Literal["smtp", "smtps"]
    host: str
    port: int
    plain_allowed: bool
    _user: str | None
    _password: str | None

    def __repr__(self) -> str:
        """``SmtpServer('mail.example.org:587')``, without user and password."""
        return f"SmtpServer('{self.host}:{self.port}')"

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password; None for a server that asks for none."""
        return (
            None if self._user is None or self._password is None else (self._user, self._password)
        )


def unseal_smtp(sealed: str, *, allow_plain: bool) -> SmtpServer:
    """The server of a URL, or of a JSON text with ``url`` and the password as ``token``.

    Raises ``InvalidError`` that says what to change and repeats neither.
    """
    url: object = sealed
    password: object = None
    if sealed.lstrip().startswith("{"):
        try:
            kept = json.loads(sealed)
            url, password = kept["url"], kept["token"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidError(_WANTED) from None
    if not isinstance(url, str) or not (password is None or isinstance(password, str)):
        raise InvalidError(_WANTED)
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if scheme not in _PORTS or not separator:
        raise InvalidError(_WANTED)
    userinfo, _, place = rest.rpartition("@")
    try:
        # The host is judged as any that a tenant supplies; only the scheme is another.
        target = parse_target(f"https://{place}", allow_plain_http=False)
        port = urlsplit(f"https://{place}").port
    except (RefusedError, ValueError) as error:
        reason = error.reason if isinstance(error, RefusedError) else "There is no such port."
        raise InvalidError(f"This is not a usable mail server. {reason} {_WANTED}") from None
    if target.path not in ("", "/"):
        raise InvalidError(_WANTED)
    if ":" in userinfo:
        raise InvalidError("Leave the password out of the address and give it as the token.")
    user = unquote(userinfo) or None
    if (user is None) != (password is None):
        raise InvalidError("A mail server needs a user and a password, or neither. " + _WANTED)
    if any(not text.isprintable() for text in (user or "", password or "")):
        raise InvalidError("User and password must be printable.")
    return SmtpServer(
        "smtps" if scheme == "smtps" else "smtp",
        target.host,
        _PORTS[scheme] if port is None else port,
        allow_plain,
        user,
        password,
    )
