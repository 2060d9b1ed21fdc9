"""The route class of every endpoint: the caller first, then the body, then the endpoint.

FastAPI reads and parses the body before it asks who sent it; here nobody's body is read before
the key is known, and JSON is read strictly (no NaN, no lone surrogate, no endless depth).
"""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import MalformedError, UnsupportedMediaTypeError
from fleetprompt_api.auth import Allowed, identified

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PlatformRoute(APIRoute):
    """A route that reads nothing of a request whose key is not good."""

    def get_route_handler(self) -> Handler:
        """The route's handler behind the checks."""
        handle = super().get_route_handler()
        needs_key = _needs_key(self.dependant)
        takes_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            if needs_key:
                await identified(request)
            if takes_body:
                check_json(request, await request.body())
            return await handle(request)

        return checked


def _needs_key(dependant: Dependant) -> bool:
    return isinstance(dependant.call, Allowed) or any(
        _needs_key(below) for below in dependant.dependencies
    )


def check_json(request: Request, body: bytes) -> None:
    """Refuse a body that is not strict JSON, by content type or by content."""
    if not body:
        return
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaTypeError("Send the body as application/json.")
    try:
        msgspec.json.decode(body)
    except RecursionError:
        raise MalformedError("The JSON is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The decoder's message may repeat what it read.
        raise MalformedError("The body is not valid JSON.") from None


def router(tag: str, prefix: str = "/api/v1") -> APIRouter:
    """A router whose operations carry one tag and are named by their functions."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=PlatformRoute,
        generate_unique_id_function=lambda route: route.name,
    )
