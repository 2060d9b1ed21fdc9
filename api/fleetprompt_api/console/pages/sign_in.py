"""Signing in, by a key or a one-time link, and out. Looking at a link uses nothing up."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from fleetprompt_api.addresses import address_of
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.forms import field, read_form
from fleetprompt_api.console.guard import (
    HOME,
    LOOKING,
    SIGN_IN,
    Visitor,
    own_page,
    page_router,
    problem_page,
)
from fleetprompt_api.console.page import render
from fleetprompt_api.session_cookie import forget_session, session_token, set_session
from fleetprompt_api.state import AppState

routes = page_router()


@routes.api_route("/sign-in", methods=LOOKING)
async def read_sign_in(request: Request) -> Response:
    """The form for a key."""
    return _form(own_page(request.query_params.get("next", HOME)))


@routes.post("/sign-in")
async def sign_in(request: Request, platform: Platform) -> Response:
    """Open a session with a person's key."""
    sent = await read_form(request)
    wanted = own_page(sent.get("next", HOME))
    trying = await platform.guessing.begin(address_of(request, platform))
    try:
        key = await platform.key_ring.identify(field(sent, "key").strip())
    except UnauthenticatedError as error:
        return _form(wanted, error.detail, 401)
    await trying.succeeded()
    try:
        token = await platform.sessions.open_by_key(key)
    except ForbiddenError as error:
        return _form(wanted, error.detail, 403)
    return await _signed_in(request, platform, token, wanted)


@routes.api_route("/link/{token}", methods=LOOKING)
async def read_link(request: Request, token: str, platform: Platform) -> Response:
    """Whom a one-time link signs in, and the button that does it."""
    try:
        holder = await platform.sessions.link_holder(token)
    except UnauthenticatedError as error:
        return _over(request, error)
    return render("sign_in_link.html", visitor=None, holder=holder)


@routes.post("/link/{token}")
async def sign_in_by_link(request: Request, token: str, platform: Platform) -> Response:
    """Open a session and use the link up."""
    try:
        opened = await platform.sessions.open_by_link(token)
    except UnauthenticatedError as error:
        return _over(request, error)
    return await _signed_in(request, platform, opened, HOME)


@routes.post("/sign-out")
async def sign_out(request: Request, platform: Platform) -> Response:
    """End this session."""
    token = session_token(request, platform.settings)
    if token is not None:
        await platform.sessions.close(token)
    return _signed_out(platform)


@routes.post("/sign-out-everywhere")
async def sign_out_everywhere(visitor: Visitor, platform: Platform) -> Response:
    """End all sessions of this person in this tenant."""
    await platform.sessions.close_all(visitor.identity.tenant, visitor.user_id)
    return _signed_out(platform)


def _form(wanted: str, wrong: str | None = None, status: int = 200) -> Response:
    return render("sign_in.html", visitor=None, status=status, wanted=wanted, wrong=wrong)


def _over(request: Request, error: UnauthenticatedError) -> Response:
    return problem_page(
        request,
        NotFoundError(error.detail),
        title="This link is over",
        links={"Sign in with a key": SIGN_IN},
    )


async def _signed_in(request: Request, platform: AppState, token: str, wanted: str) -> Response:
    """On to the page that was wanted; a session that the browser had before ends."""
    former = session_token(request, platform.settings)
    if former is not None:
        await platform.sessions.close(former)
    answer = RedirectResponse(wanted, 303)
    set_session(answer, platform.settings, token)
    return answer


def _signed_out(platform: AppState) -> Response:
    answer = RedirectResponse(SIGN_IN, 303)
    forget_session(answer, platform.settings)
    return answer
