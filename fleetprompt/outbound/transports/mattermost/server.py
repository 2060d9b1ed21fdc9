"""A Mattermost server with a token of a bot or a person: its REST interface, version 4 (contract A7).

The token is kept together with the server's address, as one secret: whoever could change the address
alone could have the token sent to a server of his own.

Nothing of an error's body is looked at: one of them repeats the token.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.http import (
    DEADLINE_SECONDS,
    ConnectFailedError,
    OutboundClient,
    RefusedError,
    Reply,
    ResponseLostError,
)
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.replies import is_page, retry_after
from fleetprompt.outbound.target import parse_target

_TOKEN = re.compile(r"[a-z0-9]{26}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_INTERFACE = re.compile(r"/api(?:/v4)?/?$")
_OBJECT_LIMIT = 512 * 1024

Shape = TypeVar("Shape")


@dataclass(frozen=True, repr=False)
class Server:
    """The address, with the server's path if it has one, and the token, which is a password."""

    host: str
    address: str
    _token: str

    def __repr__(self) -> str:
        """``Server('https://chat.example.org')``, without the token."""
        return f"Server({self.address!r})"

    def sealed(self) -> str:
        """Address and token as one text, for the vault."""
        return json.dumps({"token": self._token, "url": self.address})

    async def request(
        self,
        client: OutboundClient,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        content_type: str = "application/json",
        read_limit: int = _OBJECT_LIMIT,
        deadline_seconds: float = DEADLINE_SECONDS,
        not_after: float | None = None,
    ) -> Reply:
        """Ask ``/api/v4{path}``; errors as in ``OutboundClient.request``. No cookie is ever sent."""
        return await client.request(
            method,
            f"{self.address}/api/v4{path}",
            headers={
                "Authorization": f"Bearer {self._token}",
                "Accept": "application/json",
                **({"Content-Type": content_type} if content else {}),
            },
            content=content,
            deadline_seconds=deadline_seconds,
            read_limit=read_limit,
            not_after=not_after,
        )


def parse_server(url: str, token: str, *, allow_plain_http: bool = False) -> Server:
    """Read a server's address and an access token as Mattermost shows them.

    Raises ``InvalidError`` that says what to change and repeats neither.
    """
    url, token = url.strip(), token.strip()
    try:
        target = parse_target(url, allow_plain_http=allow_plain_http)
    except RefusedError as error:
        raise InvalidError(f"This is not a usable server address. {error.reason}") from None
    if "?" in url or "#" in url or not _PATH.fullmatch(target.path):
        raise InvalidError(
            "Give the server's address alone, such as https://chat.example.org, with its path if it "
            "has one."
        )
    if "/hooks/" in target.path:
        raise InvalidError("This is a webhook's address; give the server's own, without /hooks/.")
    if not _TOKEN.fullmatch(token):
        raise InvalidError(
            "An access token of Mattermost has 26 lower-case letters and digits. Copy the token "
            "itself, not its ID."
        )
    path = _INTERFACE.sub("", target.path).rstrip("/")
    return Server(target.host, f"{target.scheme}://{target.host_header}{path}", token)


def unseal_server(sealed: str, *, allow_plain_http: bool) -> Server:
    """The server of a text that ``sealed`` made; InvalidError for any other text."""
    try:
        kept = json.loads(sealed)
        url, token = kept["url"], kept["token"]
    except (ValueError, TypeError, KeyError, RecursionError):
        url = token = None
    if not isinstance(url, str) or not isinstance(token, str):
        raise InvalidError("Give the server's address as url and the access token as token.")
    return parse_server(url, token, allow_plain_http=allow_plain_http)


def decode(reply: Reply, shape: type[Shape]) -> Shape | None:
    """The answer's JSON if it is whole and of this shape; fields that are not named are passed over."""
    if not reply.body_complete or reply.media_type != "application/json":
        return None
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def server_time(reply: Reply) -> datetime | None:
    """The other side's clock, by its ``Date`` header."""
    try:
        at = parsedate_to_datetime(reply.headers.get("date", ""))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


# Definite refusals, answered before anything is saved; what they mean for each call is said there.
_REFUSED: dict[int, str] = {
    401: "Mattermost does not know this token: it was revoked, has expired, belongs to a deactivated "
    "account, or personal access tokens are switched off. Make a new one and connect it here.",
    413: "The message is larger than the server takes. Shorten it, or raise "
    "MaximumPayloadSizeBytes.",
    501: "This is switched off on the server.",
}
_NOT_MATTERMOST = (
    "A web page answered instead of Mattermost. Check the server's address: a server under a path needs "
    "that path, and a proxy must let /api/v4/ pass."
)
_REDIRECTED = (
    "The server redirected the request, which was not followed. Use the address that Mattermost has as "
    "its Site URL, with https:// and its path."
)


def refusal(reply: Reply, told: dict[int, tuple[Any, str]]) -> Outcome:
    """What an answer other than the expected one means, by its status alone.

    ``told`` holds error kind and words for the statuses that mean something of their own to the call.
    5xx is ``unknown``: for a call without effects that is as good as ``retryable``.
    """
    status = reply.status
    if 300 <= status < 400:
        return Outcome("rejected", "validation", _REDIRECTED, status)
    if status == 429:
        words = "Mattermost is limiting requests; it will be tried again."
        return Outcome("retryable", "rate_limit", words, status, retry_after(reply))
    if status == 408:
        words = "The server gave up waiting for the request."
        return Outcome("retryable", "network", words, status)
    if is_page(reply) and status < 500:
        return Outcome("rejected", "validation", _NOT_MATTERMOST, status)
    if status in told:
        kind, words = told[status]
        return Outcome("rejected", kind, words, status)
    if status == 401:
        return Outcome("rejected", "auth", _REFUSED[401], status)
    if 400 <= status < 500 or status == 501:
        words = _REFUSED.get(status, f"Mattermost refused the request with status {status}.")
        return Outcome("rejected", "validation", words, status)
    if status >= 500:
        return Outcome("unknown", "network", f"The server failed with status {status}.", status)
    return Outcome("unknown", "unknown", "The answer is not the one that Mattermost gives.", status)


def failure(error: Exception) -> Outcome:
    """What a request without an answer means."""
    if isinstance(error, RefusedError):
        return Outcome("rejected", "validation", error.reason)
    if isinstance(error, ConnectFailedError):
        return Outcome(
            "retryable",
            "network",
            f"Mattermost could not be reached: {error.reason} It will be tried again.",
        )
    assert isinstance(error, ResponseLostError)  # noqa: S101 - there are three kinds
    return Outcome("unknown", "network", f"The answer was lost: {error.reason}")
