"""Answers that a caller may keep: sent again only when they have changed (RFC 9110, 13.1.2)."""

from hashlib import sha256

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response


def unless_known(request: Request, content: BaseModel) -> Response:
    """``content`` as JSON with its ``ETag``; 304 where ``If-None-Match`` names that already."""
    body = content.model_dump_json().encode()
    tag = f'"{sha256(body).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if names(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def names(given: list[str], tag: str) -> bool:
    """Compared weakly, as the standard has it for this header."""
    listed = {one.strip().removeprefix("W/") for line in given for one in line.split(",")}
    return tag in listed or "*" in listed
