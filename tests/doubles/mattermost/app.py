"""The whole stand-in as one ASGI application: proxy, limiter, subpath, then the routes."""

import asyncio
import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .page import page, summary
from .rest import rest
from .state import Received, State
from .webhook import incoming_webhook
from .wire import html_response, plain_response

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_PROXY_PAGES = {
    "html_200": (200, "Sign in"),
    "html_403": (403, "Forbidden"),
    "html_404": (404, "Not found"),
    "html_502": (502, "Bad gateway"),
    "html_503": (503, "Service unavailable"),
    "html_504": (504, "Gateway timeout"),
}


def create_app(state: State) -> ASGIApp:
    """The application over one state."""

    async def webhook_route(request: Request) -> Response:
        return await incoming_webhook(state, request)

    async def rest_route(request: Request) -> Response:
        return await rest(state, request)

    async def web_application(request: Request) -> Response:
        if request.method == "GET":
            return html_response(200, "Mattermost")
        return html_response(404, "Not found")

    async def page_route(request: Request) -> Response:
        return page(state, request)

    async def posts_route(request: Request) -> Response:
        found = [summary(post, state.channels[post.channel_id]) for post in state.posts]
        return JSONResponse(found)

    async def behaviour_route(request: Request) -> Response:
        try:
            state.behaviour.change(await request.json())
        except (ValueError, AttributeError, json.JSONDecodeError) as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse(vars(state.behaviour))

    async def reset_route(request: Request) -> Response:
        state.reset()
        return Response(status_code=204)

    routes = [
        Route("/", page_route),
        Route("/_double/posts", posts_route),
        Route("/_double/behaviour", behaviour_route, methods=["POST"]),
        Route("/_double/reset", reset_route, methods=["POST"]),
        Route("/hooks/{hook_id}", webhook_route, methods=_METHODS),
        Route("/api/v4/{path:path}", rest_route, methods=_METHODS),
        Route("/{path:path}", web_application, methods=_METHODS),
    ]
    return _Front(Starlette(routes=routes), state)


class _Front:
    """What stands before the routes, in the order in which a request meets it."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith("/_double/") or (scope["method"] == "GET" and path == "/"):
            await self._app(scope, receive, send)
            return
        send = self._dated(send)
        self._state.requests.append(Received(scope["method"], path))
        if self._state.behaviour.delay_seconds:
            await asyncio.sleep(self._state.behaviour.delay_seconds)
        answer = self._early_answer(Request(scope))
        if answer is not None:
            await answer(scope, receive, send)
            return
        inner = path.removeprefix(self._state.behaviour.subpath) or "/"
        # A client that dies while it sends is no error of the server's.
        with suppress(ClientDisconnect):
            await self._app({**scope, "path": inner, "raw_path": inner.encode()}, receive, send)

    def _dated(self, send: Send) -> Send:
        """With the ``Date`` of the server's own clock."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(datetime.fromtimestamp(self._state.now(), UTC), usegmt=True)
                message["headers"] = [*message["headers"], (b"date", date.encode())]
            await send(message)

        return dated

    def _early_answer(self, request: Request) -> Response | None:
        switches = self._state.behaviour
        path = request.url.path
        if switches.proxy == "redirect_to_https":
            return RedirectResponse(str(request.url.replace(scheme="https")), 301)
        if switches.proxy in _PROXY_PAGES:
            return html_response(*_PROXY_PAGES[switches.proxy])
        if self._state.is_limited():
            return plain_response(
                429, "limit exceeded\n", _limit_headers(switches.retry_after_seconds)
            )
        if switches.subpath and not path.startswith(f"{switches.subpath}/"):
            return RedirectResponse(f"{switches.subpath}{path}", 302)
        return None


def _limit_headers(seconds: float) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": "101",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(math.ceil(seconds)),
        "Retry-After": str(math.ceil(seconds)),
    }
