"""Who a visitor's request comes from: site by public key, page by origin, visitor by token.

Checked in this order before any body is read. The tenant is the site's, and no other part of a request
is asked for one.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import (
    NotFoundError,
    OriginNotAllowedError,
    SiteDisabledError,
    TokenRequiredError,
    TooLargeError,
)
from fleetprompt.webchat import tokens
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.captcha import vouched
from fleetprompt.webchat.origins import browser_can_hash, matches
from fleetprompt.webchat.sites import Site
from fleetprompt_api.addresses import address_of
from fleetprompt_api.routing import check_json
from fleetprompt_api.state import state_of
from fleetprompt_api.webchat.cross_origin import PREFIX

BODY_LIMIT = 20 * 1024  # bytes
_AGENT_LIMIT = 512

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route for the pages of a site."""

    def get_route_handler(self) -> Handler:
        """The route's handler behind the checks."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            await self.admit(request)
            body = await request.body()
            if len(body) > BODY_LIMIT:
                raise TooLargeError(f"A request holds at most {BODY_LIMIT} bytes here.")
            check_json(request, body)
            return await handle(request)

        return checked

    async def admit(self, request: Request) -> Site:
        """The site that the request may use; kept for the endpoint."""
        site = await _site(request)
        request.state.site = site
        return site


class GuestRoute(PageRoute):
    """A route for visitors, who have a token."""

    async def admit(self, request: Request) -> Site:
        """The site and its visitor."""
        site = await super().admit(request)
        platform = state_of(request)
        request.state.guest = await vouched(
            _guest(request, site), platform.outbound, platform.vault, platform.settings
        )
        return site


def router(route_class: type[PageRoute]) -> APIRouter:
    """A router of the visitors' API, which docs/reference/webchat-api.md describes."""
    return APIRouter(prefix=PREFIX, route_class=route_class, include_in_schema=False)


async def _site(request: Request) -> Site:
    platform = state_of(request)
    site_key = request.headers.get("webchat-site")
    if site_key is None:
        raise NotFoundError("The header Webchat-Site names the site.")
    site = await platform.chat_sites.find(site_key)
    if not matches(request.headers.get("origin", ""), site.origins):
        raise OriginNotAllowedError
    if not site.active:
        raise SiteDisabledError
    return site


def _guest(request: Request, site: Site) -> Guest:
    platform = state_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRequiredError
    now = platform.clock()
    claims = tokens.check(
        token,
        site=site.id,
        origin=request.headers["origin"],
        secrets=site.token_secrets,
        now=now,
    )
    return Guest(
        site=site,
        visitor_id=claims.visitor,
        address=address_of(request, platform),
        user_agent=request.headers.get("user-agent", "")[:_AGENT_LIMIT],
        expires_at=claims.expires_at,
        now=now,
        answer=request.headers.get("webchat-challenge"),
        can_work=browser_can_hash(request.headers["origin"]),
    )


def site_of(request: Request) -> Site:
    """The site that the route admitted."""
    site: Site = request.state.site
    return site


def guest_of(request: Request) -> Guest:
    """The visitor that the route admitted."""
    guest: Guest = request.state.guest
    return guest


TheSite = Annotated[Site, Depends(site_of)]
TheGuest = Annotated[Guest, Depends(guest_of)]
