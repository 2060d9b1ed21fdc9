"""All routes of the console. A new page is added to ``PAGES``."""

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from fleetprompt.errors import NotFoundError
from fleetprompt_api.console import static
from fleetprompt_api.console.guard import HOME, LOOKING, Visitor, page_router
from fleetprompt_api.console.pages import (
    approvals,
    connectors,
    directives,
    executions,
    inbox,
    installations,
    overview,
    sign_in,
    signals,
    timeline,
)

PAGES = (
    *(sign_in, overview, approvals, inbox, installations, directives, executions, signals),
    *(connectors, timeline),
)

routes = APIRouter(include_in_schema=False)
routes.include_router(static.routes)
for _page in PAGES:
    routes.include_router(_page.routes)


@routes.get("/")
async def root() -> Response:
    """Whoever types the bare address is a person."""
    return RedirectResponse(HOME, 307)


_elsewhere = page_router()


@_elsewhere.api_route("/{rest:path}", methods=LOOKING)
async def nothing_here(rest: str, visitor: Visitor) -> Response:
    """An address that no page has; with nothing behind the slash, the first page."""
    if rest:
        raise NotFoundError("There is no such page.")
    return RedirectResponse(HOME, 308)


routes.include_router(_elsewhere)
