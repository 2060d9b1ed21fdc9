"""The list: by site and status, who waits longest first, with what the team has not read."""

from typing import get_args
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from fleetprompt.tenants.keys import Scope
from fleetprompt.webchat import inbox
from fleetprompt.webchat.inbox import Status
from fleetprompt.webchat.registration import list_sites
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import INBOX, LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.console.people import people_in

routes = page_router(INBOX)

STATUSES: tuple[Status, ...] = get_args(Status)
_PAGE = 50


@routes.api_route("", methods=LOOKING)
async def to_conversations() -> Response:
    """The inbox begins with its list."""
    return RedirectResponse(f"{INBOX}/conversations", 308)


@routes.api_route("/conversations", methods=LOOKING)
async def read_conversations(
    visitor: Visitor,
    platform: Platform,
    status: str = "open",
    site: str = "",
    mine: bool = False,
    behind: UUID | None = None,
) -> Response:
    """Conversations of one status or of all."""
    identity = visitor.identity
    identity.require(Scope.WEBCHAT_READ)
    chosen = next((one for one in STATUSES if one == status), None)
    async with platform.database.tenant(identity.tenant.schema) as session:
        sites = {str(one.id): one for one in await list_sites(session)}
        found = await inbox.waiting_first(
            session,
            site_id=sites[site].id if site in sites else None,
            status=chosen,
            assignee=identity.actor if mine else None,
            behind=behind,
            limit=_PAGE,
        )
        last = await inbox.last_messages(session, found)
        waiting = await inbox.number_waiting(session)
    return render(
        "conversations.html",
        visitor=visitor,
        here="Inbox",
        now=platform.clock(),
        conversations=found,
        last=last,
        waiting=waiting,
        sites=sites,
        site=site if site in sites else "",
        statuses=STATUSES,
        chosen=chosen or "all",
        mine=mine,
        people=await people_in(platform.database, identity.tenant, [one.assignee for one in found]),
        behind=found[-1].id if len(found) == _PAGE else None,
    )
