"""The cookie that carries a session, and the check that a changing request comes from our own pages.

No token dance: browsers say by ``Sec-Fetch-Site`` (W3C Fetch Metadata) where a request comes from, and
by ``Origin`` where they do not send that, as over plain http. docs/decisions/console-sessions.md
"""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import ForbiddenError
from fleetprompt.settings import Settings

PLAIN_NAME = "fleetprompt_session"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TRUSTED_SITES = frozenset({"same-origin", "none"})


def cookie_name(settings: Settings) -> str:
    """Over https a browser refuses the name's prefix from another host or over plain http.

    Over plain http the port is part of the name, since the ports of one host share its cookies.
    """
    address = urlsplit(settings.api_url)
    if address.scheme == "https":
        return f"__Host-{PLAIN_NAME}"
    return f"{PLAIN_NAME}_{address.port or 80}"


def session_token(request: Request, settings: Settings) -> str | None:
    """The session's token, if the request has one."""
    return request.cookies.get(cookie_name(settings))


def set_session(response: Response, settings: Settings, token: str) -> None:
    """Have the browser keep the session, for as long as it may last."""
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=int(settings.session_hours * 3600),
        path="/",
        secure=_is_https(settings),
        httponly=True,
        samesite="lax",
    )


def forget_session(response: Response, settings: Settings) -> None:
    """Have the browser drop the session."""
    response.delete_cookie(
        cookie_name(settings), path="/", secure=_is_https(settings), httponly=True, samesite="lax"
    )


def check_same_origin(request: Request, settings: Settings) -> None:
    """ForbiddenError for a changing request that does not come from our own pages.

    ``Sec-Fetch-Site`` decides where it is there; else ``Origin`` must be ours; neither is refused.
    """
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site in _TRUSTED_SITES:
            return
    elif request.headers.get("origin") == _own_origin(request, settings):
        return
    raise ForbiddenError("This request did not come from a page of this console.")


def _own_origin(request: Request, settings: Settings) -> str:
    """Behind a proxy only the public URL knows; without one, what the browser itself asked for."""
    if settings.public_url is None:
        return f"http://{request.headers.get('host', '')}"
    address = urlsplit(settings.api_url)
    return f"{address.scheme}://{address.netloc}".lower()


def _is_https(settings: Settings) -> bool:
    return urlsplit(settings.api_url).scheme == "https"
