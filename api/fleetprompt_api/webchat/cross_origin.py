"""Cross-origin headers for the visitors' API (WHATWG Fetch §3.3).

Every answer has them, refusals too, or a widget could not read why. They allow nothing by themselves:
there are no cookies here, and who may do what is checked by the request's own origin and token.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "/api/webchat/v1"

_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Last-Event-ID, Webchat-Challenge, Webchat-Site",
    ),
    (b"access-control-max-age", b"7200"),
]
_ANSWER = [(b"access-control-expose-headers", b"Retry-After, X-Request-Id")]


class CrossOrigin:
    """Answers preflights and names the asking origin in every answer below ``PREFIX``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        allowed = [(b"vary", b"Origin")]
        if b"origin" in headers:
            allowed.append((b"access-control-allow-origin", headers[b"origin"]))
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await send(
                {
                    "type": "http.response.start",
                    "status": 204,
                    "headers": [*allowed, *_PREFLIGHT],
                }
            )
            await send({"type": "http.response.body"})
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *allowed, *_ANSWER]
            await send(message)

        await self._app(scope, receive, send_allowed)
