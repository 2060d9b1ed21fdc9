"""``POST /bootstrap``: the site's settings, a token, and the visitor's conversation."""

from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request

from fleetprompt.errors import VisitorExpiredError
from fleetprompt.webchat import access, conversations, tokens, visitors
from fleetprompt.webchat.views import conversation_view
from fleetprompt_api.addresses import address_of
from fleetprompt_api.auth import Platform
from fleetprompt_api.webchat.guests import PageRoute, TheSite, router

routes = router(PageRoute)


class Bootstrap(BaseModel):
    """What a page knows of its visitor."""

    visitor: Annotated[str | None, Field(max_length=4096)] = None
    language: Annotated[str | None, Field(max_length=64)] = None


@routes.post("/bootstrap")
async def bootstrap(
    asked: Bootstrap, request: Request, site: TheSite, platform: Platform
) -> dict[str, Any]:
    """Keeps no trace of a visitor who has not begun a conversation.

    A secret that does not hold any more is answered with that of a new visitor.
    """
    now = platform.clock()
    async with platform.database.tenant(site.tenant.schema) as session:
        await access.admit_bootstrap(session, site, address_of(request, platform), now)
        found, visitor = None, asked.visitor or ""
        try:
            visitor_id = visitors.visitor_id(site.visitor_secret, visitor, now)
            await conversations.check_not_erased(session, site.id, visitor_id)
            found = await conversations.latest(session, site, visitor_id, now)
        except VisitorExpiredError:
            # Refused, the widget would ask with the same secret for ever.
            visitor = visitors.new_visitor(site.visitor_secret, now)
            visitor_id = visitors.visitor_id(site.visitor_secret, visitor, now)
    issued_at = int(now.timestamp())
    claims = tokens.Claims(
        site=site.id,
        visitor=visitor_id,
        origin=request.headers["origin"],
        issued_at=issued_at,
        expires_at=issued_at + site.settings.token_seconds,
    )
    return {
        "token": tokens.sign(claims, site.signing),
        "expires_in": site.settings.token_seconds,
        "visitor": visitor,
        "site": site.view(asked.language, now),
        "conversation": None if found is None else conversation_view(found),
    }
