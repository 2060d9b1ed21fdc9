"""What surrounds every request: its id, its limits, its headers and its line in the log.

Pure ASGI, so that bodies and event streams pass through unbuffered.
"""

import logging
import re
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleetprompt.errors import TooLargeError
from fleetprompt.ids import new_id
from fleetprompt.signals.envelope import BATCH_LIMIT
from fleetprompt.telemetry import events
from fleetprompt_api.problems import as_problem, problem_response
from fleetprompt_api.state import NOTES, RequestNotes

access_log = logging.getLogger("fleetprompt_api.access")

BODY_LIMIT = 64 * 1024  # bytes
INGEST_PATHS = frozenset({"/api/v1/signals", "/api/edge/v1/signals"})
# The ingest routes refuse at their own limit; this one only bounds what reaches them.
_INGEST_LIMIT = BATCH_LIMIT + 4096

_REQUEST_ID = re.compile(rb"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
# Where the endpoint says nothing else: answers are one tenant's data, and no page.
_DEFAULTS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_CLIENT_GONE = 499  # never sent; what the log says when nobody waited for the answer


class RequestFrame:
    """Gives each request an id, security headers, a log line, and an answer whatever happens."""

    def __init__(self, app: ASGIApp, base_url: str) -> None:
        self._app = app
        self._base_url = base_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = RequestNotes(_request_id(scope))
        status = _CLIENT_GONE
        answered = False
        started = time.perf_counter()

        async def send_framed(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                answered, status = True, message["status"]
                message["headers"] = _framed(list(message.get("headers", ())), notes.request_id)
            await send(message)

        token = NOTES.set(notes)
        try:
            await self._app(scope, receive, send_framed)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception as error:
            if answered:
                raise
            await problem_response(as_problem(error), self._base_url)(scope, receive, send_framed)
        finally:
            NOTES.reset(token)
            took = time.perf_counter() - started
            events.http_request(scope["method"], _route(scope), status, took)
            _log(scope, notes, status, took)


class BodyLimit:
    """Refuses a body as soon as it is known to be too large: by its header, or while it comes in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _INGEST_LIMIT if scope["path"] in INGEST_PATHS else BODY_LIMIT
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, receive_limited, send)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"A request holds at most {min(limit, BATCH_LIMIT)} bytes here.")


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


def _request_id(scope: Scope) -> str:
    """The caller's own id where it can be used, a new one otherwise."""
    given = _header(scope, b"x-request-id")
    return given.decode() if _REQUEST_ID.fullmatch(given) else str(new_id())


def _framed(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    named = {name for name, _ in headers}
    headers += [default for default in _DEFAULTS if default[0] not in named]
    return [*headers, *_SECURITY_HEADERS, (b"x-request-id", request_id.encode())]


def _route(scope: Scope) -> str:
    """The template of the route that was taken."""
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path


def _log(scope: Scope, notes: RequestNotes, status: int, seconds: float) -> None:
    route = _route(scope)
    # A line for each accepted signal would cost more than its share of the commit.
    level = logging.DEBUG if route in INGEST_PATHS and status < 300 else logging.INFO
    if not access_log.isEnabledFor(level):
        return
    identity = notes.identity
    access_log.log(
        level,
        "%s %s %d",
        scope["method"],
        route,
        status,
        extra={
            "ms": round(seconds * 1000, 1),
            "request_id": notes.request_id,
            "tenant": identity.tenant.slug if identity else None,
            "key_id": str(identity.key_id) if identity and identity.key_id else None,
            "session_id": str(identity.session_id) if identity and identity.session_id else None,
        },
    )
