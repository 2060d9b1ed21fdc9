"""Sites: registered, changed, given new secrets, switched off."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.tenants.keys import make_token
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.cipher import DataKey
from fleetprompt.webchat.models import ChatSite, ChatSiteSecret, SiteKey
from fleetprompt.webchat.origins import allowed_origin
from fleetprompt.webchat.site_secrets import PURPOSES, Purpose, make_secret, retire_secret
from fleetprompt.webchat.site_settings import SiteSettings
from fleetprompt.webchat.tenant_settings import Mode


async def register(
    session: AsyncSession,
    tenant: Tenant,
    data_key: DataKey,
    *,
    site_id: UUID,
    name: str,
    origins: Sequence[str],
    settings: SiteSettings,
    mode: Mode = "native",
) -> tuple[ChatSite, bool]:
    """The site of this id, and whether it was made now: with a public key, secrets and settings.

    One that is there gets name, origins and settings, and is switched on.
    """
    allowed = list(dict.fromkeys(allowed_origin(origin) for origin in origins))
    values = settings.model_dump(mode="json", exclude_defaults=True)
    site = await session.get(ChatSite, site_id, with_for_update=True)
    if site is not None:
        site.name, site.origins, site.settings = name, allowed, values
        site.mode, site.status = mode, "active"
        return site, False
    site = ChatSite(
        id=site_id,
        site_key=make_token("pub"),
        name=name,
        status="active",
        mode=mode,
        origins=allowed,
        settings=values,
    )
    session.add(site)
    await session.flush()
    session.add(SiteKey(site_key=site.site_key, tenant_schema=tenant.schema, site_id=site.id))
    for purpose in PURPOSES:
        await make_secret(session, tenant, data_key, site.id, purpose, new_id())
    return site, True


async def rotate(
    session: AsyncSession,
    tenant: Tenant,
    data_key: DataKey,
    site_id: UUID,
    purpose: Purpose,
    now: datetime,
    *,
    secret_id: UUID,
) -> None:
    """Give a site a new secret of this id; tokens under the old one hold for what is left of their time.

    Repeating it with the same id changes nothing.
    """
    await get_site(session, site_id, lock=True)
    if await session.get(ChatSiteSecret, secret_id) is None:
        await retire_secret(session, site_id, purpose, now)
        await make_secret(session, tenant, data_key, site_id, purpose, secret_id)


async def get_site(session: AsyncSession, site_id: UUID, *, lock: bool = False) -> ChatSite:
    """The tenant's site of this id; NotFoundError otherwise."""
    found = await session.get(ChatSite, site_id, with_for_update=lock, populate_existing=lock)
    if found is None:
        raise NotFoundError(f"There is no site {site_id}.")
    return found


def mode_of(site: ChatSite) -> Mode:
    """Whose chat the site embeds."""
    return "charla_embed" if site.mode == "charla_embed" else "native"


async def list_sites(session: AsyncSession) -> list[ChatSite]:
    """All sites of the tenant, oldest first."""
    return list(await session.scalars(select(ChatSite).order_by(ChatSite.id)))
