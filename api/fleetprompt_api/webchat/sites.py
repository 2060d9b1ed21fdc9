"""Websites with the chat, for the team."""

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from fleetprompt.directives.wake import notify_directives
from fleetprompt.webchat import registration
from fleetprompt.webchat.handlers import RegisterParams
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.site_secrets import Purpose
from fleetprompt.webchat.tenant_settings import tenant_chat
from fleetprompt_api.auth import Platform, WebchatManage, WebchatRead
from fleetprompt_api.idempotency import IdempotencyKey
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.webchat.asked import Asked, ask
from fleetprompt_api.webchat.snippets import snippet_of
from fleetprompt_api.wire import Links, Listing, Wire, listing

routes = router("webchat")


class SiteView(Wire):
    """A site; `site_key` is public and names it in the snippet."""

    id: UUID
    site_key: str
    name: str
    status: str
    mode: str
    origins: list[str]
    settings: dict[str, Any]
    inserted_at: datetime
    updated_at: datetime
    links: Links


class SnippetView(BaseModel):
    """What a website needs for the chat.

    `html` goes into each of its pages and always loads the newest widget, or asks the visitor and then
    loads Charla's where the site embeds that; nothing else is told of Charla's. `pinned_html` loads the
    present one and no other, which the browser checks by `integrity`; both are null while this server
    has no widget. `content_security_policy` is what a page's policy has to allow, `plain_page` the chat
    without script.
    """

    html: str
    pinned_html: str | None = None
    integrity: str | None = None
    content_security_policy: dict[str, str] = {}
    plain_page: str | None = None


class NewSecret(BaseModel):
    """Which secret is replaced."""

    model_config = ConfigDict(extra="forbid")

    purpose: Purpose = "token"


@routes.get("/webchat/sites")
async def list_webchat_sites(
    request: Request, caller: WebchatRead, platform: Platform
) -> Listing[SiteView]:
    """All sites of the tenant."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await registration.list_sites(session)
    return listing(request, [_view(one) for one in found])


@routes.get("/webchat/sites/{site_id}")
async def read_webchat_site(site_id: UUID, caller: WebchatRead, platform: Platform) -> SiteView:
    """One site."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        return _view(await registration.get_site(session, site_id))


@routes.get("/webchat/sites/{site_id}/snippet", responses=problems(409))
async def read_webchat_snippet(
    site_id: UUID, caller: WebchatRead, platform: Platform
) -> SnippetView:
    """The lines that put the chat on a site's pages."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        site = await registration.get_site(session, site_id)
        chat = await tenant_chat(session)
    return SnippetView.model_validate(asdict(snippet_of(site, chat.settings, platform.settings)))


@routes.post("/webchat/sites", status_code=202, responses=problems(404, 409))
async def register_webchat_site(
    new: RegisterParams,
    caller: WebchatManage,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Asked:
    """Register a site, or change the one of `site_id`; the directive's result names it."""
    params = new.model_dump(mode="json")
    async with platform.database.tenant(caller.tenant.schema) as session:
        if new.site_id is not None:
            await registration.get_site(session, new.site_id)
        found = await ask(session, caller, "webchat.site.register", params, idempotency_key)
    await notify_directives(platform.database)
    return found


@routes.post("/webchat/sites/{site_id}/secrets", status_code=202, responses=problems(409))
async def rotate_webchat_secret(
    site_id: UUID,
    new: NewSecret,
    caller: WebchatManage,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Asked:
    """Replace a site's secret; tokens under the old one hold for what is left of their time."""
    params = {"site_id": str(site_id), "purpose": new.purpose}
    async with platform.database.tenant(caller.tenant.schema) as session:
        await registration.get_site(session, site_id)
        found = await ask(session, caller, "webchat.site.rotate_secret", params, idempotency_key)
    await notify_directives(platform.database)
    return found


@routes.post("/webchat/sites/{site_id}/disable", status_code=202, responses=problems(409))
async def disable_webchat_site(
    site_id: UUID,
    caller: WebchatManage,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Asked:
    """Switch the chat of a site off; registering it again switches it on."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        await registration.get_site(session, site_id)
        params = {"site_id": str(site_id)}
        found = await ask(session, caller, "webchat.site.disable", params, idempotency_key)
    await notify_directives(platform.database)
    return found


def _view(site: ChatSite) -> SiteView:
    own = f"/api/v1/webchat/sites/{site.id}"
    return SiteView(
        id=site.id,
        site_key=site.site_key,
        name=site.name,
        status=site.status,
        mode=site.mode,
        origins=site.origins,
        settings=site.settings,
        inserted_at=site.inserted_at,
        updated_at=site.updated_at,
        links={
            "self": own,
            "snippet": f"{own}/snippet",
            "conversations": f"/api/v1/webchat/conversations?site_id={site.id}",
            "new_secret": f"{own}/secrets",
            "disable": f"{own}/disable",
        },
    )
