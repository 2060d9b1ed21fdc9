"""Bodies in, errors out, and connections that break: what the webhook and REST routes share."""

import asyncio
import email.policy
import socket
import struct
from collections.abc import AsyncIterator, Callable
from email.parser import BytesParser
from html import escape
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from .state import State, make_id

VERSION_ID = "11.2.0.11.2.0.5f1c9a7e2b.false"
_SLACK_BYTES = 512


class AppError(Exception):
    """An error as the server words it; ``old_id`` is what versions up to 8 said."""

    def __init__(self, status: int, error_id: str, message: str = "", detail: str = "") -> None:
        super().__init__(error_id)
        self.status = status
        self.error_id = error_id
        self.message = message or f"{error_id} happened."
        self.detail = detail


def common_headers() -> dict[str, str]:
    """Headers that each answer of the application carries."""
    return {
        "X-Request-Id": make_id(),
        "X-Version-Id": VERSION_ID,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "no-referrer",
    }


def error_response(state: State, error: AppError) -> JSONResponse:
    """The error's JSON, blanked as the switches say."""
    headers = common_headers()
    error_id, message = error.error_id, error.message
    status = error.status
    if state.behaviour.hardened_mode and status >= 500:
        status, error_id, message = 500, "", "Internal Server Error"
    body = {
        "id": error_id,
        "message": message,
        "detailed_error": error.detail if state.behaviour.developer_mode else "",
        "request_id": headers["X-Request-Id"],
        "status_code": status,
    }
    return JSONResponse(body, status, headers=headers)


def html_response(status: int, title: str) -> Response:
    """A page that a browser would show, from the web application or from a proxy."""
    page = f"<!DOCTYPE html><html><head><title>{escape(title)}</title></head><body></body></html>"
    return Response(page, status, headers={"content-type": "text/html; charset=utf-8"})


def plain_response(status: int, body: str, headers: dict[str, str] | None = None) -> Response:
    """A text answer whose content type is exactly ``text/plain``."""
    return Response(body, status, headers={"content-type": "text/plain", **(headers or {})})


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; 413 as soon as it passes the limit."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit + _SLACK_BYTES:
            raise AppError(413, "api.context.request_body_too_large.app_error")
    return body


def multipart_fields(content_type: str, body: bytes) -> list[tuple[str, str | None, bytes]]:
    """``(name, file name, content)`` of each part of a ``multipart/form-data`` body."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not message.is_multipart():
        raise ValueError("not multipart")
    found = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = cast("bytes", part.get_payload(decode=True)) or b""
        found.append((str(name or ""), part.get_filename(), content))
    return found


async def cut_connection(request: Request, *, reset: bool) -> Response:
    """Close the connection without a word, with a TCP reset if asked; the answer goes nowhere."""
    transport: asyncio.Transport = request.scope["state"]["transport"]
    if reset:
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    await idle(request, 5.0)
    return Response()


_late: set[asyncio.Task[None]] = set()


async def save_after_drop(state: State, request: Request, save: Callable[[], object]) -> Response:
    """Cut the connection, and save later: the request was on its way all the time."""

    async def later() -> None:
        await asyncio.sleep(state.behaviour.late_save_seconds)
        save()

    task = asyncio.create_task(later())
    _late.add(task)
    task.add_done_callback(_late.discard)
    return await cut_connection(request, reset=False)


async def idle(request: Request, seconds: float) -> None:
    """Wait, but no longer than the client does."""
    try:
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return


async def finish(state: State, request: Request, fault: str, answer: Response) -> Response:
    """What reaches the client after the post was saved."""
    if fault in ("drop_after_save", "reset_after_save"):
        return await cut_connection(request, reset=fault == "reset_after_save")
    if fault == "stall_after_save":
        await idle(request, state.behaviour.stall_seconds)
    elif fault == "error_after_save":
        return error_response(
            state, AppError(500, "api.post.create_webhook_post.creating.app_error")
        )
    elif fault in ("endless_body", "dripping_body"):
        stream = _endless() if fault == "endless_body" else _dripping()
        return StreamingResponse(stream, answer.status_code, headers={"content-type": "text/plain"})
    return answer


async def _endless() -> AsyncIterator[bytes]:
    yield b"ok"
    for _ in range(16_384):
        yield b"x" * 65_536


async def _dripping() -> AsyncIterator[bytes]:
    for byte in b"ok" + b" " * 600:
        yield bytes([byte])
        await asyncio.sleep(0.1)
