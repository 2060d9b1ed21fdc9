"""Who looks at a page, and what is shown when something stands in the way."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.errors import FleetPromptError, NotFoundError, UnauthenticatedError
from fleetprompt.sessions.service import SignedIn
from fleetprompt_api.console.page import render
from fleetprompt_api.problems import as_problem, retry_headers
from fleetprompt_api.session_cookie import check_same_origin, session_token
from fleetprompt_api.state import NOTES, state_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# A page that renews itself is no sign that somebody is still there.
REFRESH_HEADER = "x-console-refresh"
HOME = "/console"
# The methods of a page that is looked at.
LOOKING = ["GET", "HEAD"]
SIGN_IN = "/console/sign-in"
# Where messages of the chat lead their readers (the seed's §12.2).
INBOX = "/support/webchat"


async def visiting(request: Request) -> SignedIn:
    """Who is signed in; UnauthenticatedError for nobody, which leads to the sign-in page."""
    platform = state_of(request)
    token = session_token(request, platform.settings)
    if token is None:
        raise UnauthenticatedError("Sign in to see this.")
    visitor = await platform.sessions.find(token, noted=REFRESH_HEADER not in request.headers)
    request.state.visitor = visitor
    notes = NOTES.get()
    if notes is not None:
        notes.identity = visitor.identity
    return visitor


Visitor = Annotated[SignedIn, Depends(visiting)]


class ConsoleRoute(APIRoute):
    """A route whose changing requests come from our own pages, and whose problems are pages."""

    def get_route_handler(self) -> Handler:
        """The route's handler behind the check."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                check_same_origin(request, state_of(request).settings)
                return await handle(request)
            except UnauthenticatedError:
                return _to_sign_in(request)
            except ClientDisconnect:
                raise  # nobody is there to read a page
            except Exception as error:  # noqa: BLE001 - whatever it is, a person gets a page
                return problem_page(request, _problem(error))

        return guarded


def _problem(error: Exception) -> FleetPromptError:
    if isinstance(error, RequestValidationError) and any(
        place["loc"][0] == "path" for place in error.errors()
    ):
        return NotFoundError("There is no such page.")
    return as_problem(error)


def page_router(prefix: str = HOME) -> APIRouter:
    """A router of pages below ``/console``, or below another address."""
    return APIRouter(prefix=prefix, route_class=ConsoleRoute, include_in_schema=False)


def problem_page(
    request: Request,
    problem: FleetPromptError,
    *,
    title: str | None = None,
    links: dict[str, str] | None = None,
) -> Response:
    """A problem in words; ``links`` (text → address) say where to go on."""
    notes = NOTES.get()
    hidden = problem.id == FleetPromptError.id
    answer = render(
        "problem.html",
        visitor=cast(SignedIn | None, getattr(request.state, "visitor", None)),
        status=problem.status,
        title=title or _TITLES.get(problem.status, problem.title),
        detail=_NOT_YOURS if hidden else problem.detail,
        errors=[] if hidden else problem.errors,
        links=links or {},
        request_id=notes.request_id if notes else "",
    )
    answer.headers.update(retry_headers(problem))
    return answer


_NOT_YOURS = "It is not your doing. The id below finds it in the log."
_TITLES = {
    403: "You may not do that",
    404: "There is nothing here",
    409: "This has changed meanwhile",
    413: "That is too much at once",
    415: "This form could not be read",
    422: "Something is not right yet",
    429: "Too many tries",
    500: "Something went wrong",
    503: "Not available right now",
}


def _to_sign_in(request: Request) -> Response:
    wanted = request.url.path
    if request.url.query:
        wanted = f"{wanted}?{request.url.query}"
    # What a form sent is not sent again after signing in; its page is where to go back to.
    if request.method not in LOOKING:
        wanted = HOME
    return RedirectResponse(f"{SIGN_IN}?next={quote(wanted, safe='/')}", 303)


def own_page(address: str) -> str:
    """``address`` where it is a page of the console, else the first page: no way out to elsewhere."""
    inside = address == HOME or address.startswith((f"{HOME}/", f"{HOME}?", f"{INBOX}/"))
    return address if inside and address.isprintable() and "\\" not in address else HOME
