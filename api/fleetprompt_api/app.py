"""The application: ``uvicorn fleetprompt_api.app:app``."""

import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware

from fleetprompt import log
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.settings import Settings, get_settings
from fleetprompt.telemetry import tracing
from fleetprompt_api import (
    approval_notices,
    approval_policies,
    approvals,
    connectors,
    digest_email,
    directives,
    directives_openapi,
    docs,
    edge_directives,
    edge_pairing,
    executions,
    health,
    installations,
    installations_posting,
    keys,
    me,
    members,
    metrics,
    offered_directives,
    outbound,
    packages,
    problems,
    replays,
    signals,
    signals_ingest,
    signals_openapi,
    stream,
    tenants,
    timeline,
    widget_files,
)
from fleetprompt_api.console import routes as console
from fleetprompt_api.middleware import BodyLimit, RequestFrame
from fleetprompt_api.problems_openapi import add_problems
from fleetprompt_api.problems_openapi import problems as problem_answers
from fleetprompt_api.state import opened, state_of
from fleetprompt_api.tracing import TracedRequests
from fleetprompt_api.webchat import escalations as webchat_escalations
from fleetprompt_api.webchat import inbox as webchat_inbox
from fleetprompt_api.webchat import plain as webchat_plain
from fleetprompt_api.webchat import sites as webchat_sites
from fleetprompt_api.webchat import visitors as webchat_visitors
from fleetprompt_api.webchat.cross_origin import CrossOrigin

OPENAPI_PATH = "/api/v1/openapi.json"

_NOUNS = (
    me,
    stream,  # before signals, whose `/signals/{signal_id}` would take its path
    signals,
    replays,
    directives,
    offered_directives,
    edge_directives,
    edge_pairing,
    connectors,
    approvals,
    approval_policies,
    approval_notices,
    executions,
    timeline,
    packages,
    installations,
    installations_posting,
    digest_email,
    outbound,
    members,
    keys,
    tenants,
    health,
    docs,
    console,
    webchat_sites,
    webchat_inbox,
    webchat_escalations,
    webchat_visitors,
    webchat_plain,
    widget_files,
)


class PlatformApi(FastAPI):
    """FastAPI with every operation described, the plain ASGI routes and the problems too.

    ``directive_types`` is the registry whose open types the document describes.
    """

    directive_types: Mapping[str, AnyDirectiveType]

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
            )
            directives_openapi.describe(document, self.directive_types)
            add_problems(document)
            ingest = problem_answers(400, 401, 403, 413, 415, 422, 500, 503)
            signals_openapi.describe(document, {str(k): v for k, v in ingest.items()})
            self.openapi_schema = document
        return self.openapi_schema


def create_app(
    settings: Settings | None = None, types: Mapping[str, AnyDirectiveType] | None = None
) -> FastAPI:
    """The application for these settings, or for the process's own.

    ``types`` takes the place of the registry of directive types.
    """
    chosen = settings or get_settings()
    known = directive_types() if types is None else types
    tracing.start("fleetprompt-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(chosen, known) as state:
            app.state.platform = state
            yield

    app = PlatformApi(
        title="FleetPrompt",
        version=version("fleetprompt-api"),
        description=(
            "Signals in, directives out. The tenant of every request is the tenant of its key; "
            "every error is a problem document (RFC 9457)."
        ),
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(CrossOrigin),
            Middleware(RequestFrame, base_url=chosen.api_url),
            *([Middleware(TracedRequests)] if tracing.on() else []),
            Middleware(BodyLimit),
        ],
    )
    app.directive_types = known
    problems.install(app, chosen.api_url)
    app.router.routes.extend(signals_ingest.routes(state_of))
    app.router.routes.extend(metrics.routes())
    for noun in _NOUNS:
        app.include_router(noun.routes)
    return app


def __getattr__(name: str) -> FastAPI:
    """``app``, made when a server first asks for it, so that importing this module reads nothing."""
    if name != "app":
        raise AttributeError(name)
    settings = get_settings()
    log.configure(settings.log_level, settings.log_format)
    made = create_app(settings)
    # Modules, models and routes stay for good. Unless the collector is told, each of its full rounds
    # walks them all, and every request of that moment waits 100 ms (measured: p99 108 → 13 ms).
    gc.collect()
    gc.freeze()
    globals()["app"] = made
    return made
