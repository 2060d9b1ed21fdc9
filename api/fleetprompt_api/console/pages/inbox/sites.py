"""The websites with the chat, and the lines that put it on their pages."""

from dataclasses import dataclass

from starlette.responses import Response

from fleetprompt.errors import ConflictError
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import Scope
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.registration import list_sites
from fleetprompt.webchat.tenant_settings import ChatSettings, tenant_chat
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import INBOX, LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.webchat.snippets import Snippet, snippet_of

routes = page_router(INBOX)


@dataclass(frozen=True, slots=True)
class ShownSite:
    """A site with its snippet, or why there is none."""

    site: ChatSite
    snippet: Snippet | None
    missing: str = ""


@routes.api_route("/sites", methods=LOOKING)
async def read_sites(visitor: Visitor, platform: Platform) -> Response:
    """Every site with its snippet."""
    visitor.identity.require(Scope.WEBCHAT_READ)
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        chat = (await tenant_chat(session)).settings
        sites = [_shown(one, chat, platform.settings) for one in await list_sites(session)]
    return render("sites.html", visitor=visitor, here="Inbox", now=platform.clock(), sites=sites)


def _shown(site: ChatSite, chat: ChatSettings, settings: Settings) -> ShownSite:
    try:
        return ShownSite(site, snippet_of(site, chat, settings))
    except ConflictError as error:
        return ShownSite(site, None, error.detail)
