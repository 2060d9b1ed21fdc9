"""The span of each HTTP request; part of the application only where spans are sent.

It goes into its caller's trace where the caller sent one (W3C Trace Context), else into the trace of the
correlation that the request is about, and begins a trace of its own where it is about none or several.
"""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleetprompt.telemetry import spans, tracing
from fleetprompt_api.state import NOTES

_NOT_TRACED = ("/health/", "/metrics")


class TracedRequests:
    """Tells ``spans`` of each request when it has been answered. Its headers and body are not told."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(_NOT_TRACED):
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        trace = tracing.RequestTrace(tracing.caller_of(given.decode("latin-1")) if given else None)
        token = tracing.REQUEST.set(trace)
        started = time.time_ns()
        failure: str | None = None
        try:
            await self._app(scope, receive, send_noting)
        except BaseException as error:
            failure = getattr(error, "id", type(error).__qualname__)
            status = status or getattr(error, "status", None)
            raise
        finally:
            tracing.REQUEST.reset(token)
            _told(scope, trace, started, status, failure)


def _told(
    scope: Scope, trace: tracing.RequestTrace, started: int, status: int | None, failure: str | None
) -> None:
    method, route = scope["method"], getattr(scope.get("route"), "path", None)
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": scope.get("scheme", "http"),
    }
    if route is not None:
        attributes["http.route"] = route
    if status is not None:
        attributes["http.response.status_code"] = status
    if failure is not None:
        attributes["error.type"] = failure
    notes = NOTES.get()
    if notes is not None:
        attributes["fleetprompt.request_id"] = notes.request_id
        if notes.identity is not None:
            attributes["fleetprompt.tenant"] = notes.identity.tenant.slug
    failed = status >= 500 if status is not None else failure is not None
    spans.request_ended(
        trace, f"{method} {route}" if route else method, started, attributes, failed=failed
    )
