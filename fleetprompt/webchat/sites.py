"""Sites as the chat's requests see them: found by their public key, with their secrets opened."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, text

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.errors import NotFoundError
from fleetprompt.tenants.keys import well_formed
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.hours import hours_view
from fleetprompt.webchat.models import ChatSite, ChatSiteSecret
from fleetprompt.webchat.personal_data import PersonalData, personal_data
from fleetprompt.webchat.site_secrets import open_secret
from fleetprompt.webchat.site_settings import (
    Language,
    Notify,
    SiteSettings,
    Texts,
    text_colour_on,
)
from fleetprompt.webchat.tenant_settings import TenantChat, tenant_chat
from fleetprompt.webchat.tokens import LONGEST_LIFE, SigningSecret

_MOST_KEPT = 10_000
_FIND = text(
    """
    SELECT k.site_id, o.id, o.slug, o.schema_name
    FROM fleetprompt.webchat_site_keys k
    JOIN fleetprompt.organizations o ON o.schema_name = k.tenant_schema AND o.state = 'active'
    WHERE k.site_key = :site_key
    """
)


@dataclass(frozen=True, slots=True)
class Site:
    """A site of a tenant; the tenant of a visitor's request is this one and no other."""

    id: UUID
    key: str
    tenant: Tenant
    name: str
    active: bool
    origins: frozenset[str]
    settings: SiteSettings
    chat: TenantChat
    token_secrets: dict[UUID, SigningSecret] = field(repr=False)
    visitor_secret: bytes = field(repr=False)
    identity_secret: bytes = field(repr=False)

    @property
    def signing(self) -> SigningSecret:
        """The secret that new tokens are signed with."""
        return next(one for one in self.token_secrets.values() if one.retired_at is None)

    @property
    def notify(self) -> Notify | None:
        """Where each conversation's first message is posted: as the site says, else the tenant."""
        return self.settings.notify or self.chat.settings.notify

    @property
    def personal_data(self) -> PersonalData:
        """What of visitors' words, names and addresses leaves their conversations."""
        return personal_data(self.settings, self.chat.settings)

    def consent_view(self, language: str | None) -> dict[str, Any] | None:
        """What a visitor is asked to agree to, in the language where the site has it."""
        consent = self.settings.consent
        if consent is None:
            return None
        texts = self._texts(language)
        return {**consent.model_dump(), "text": texts.consent or consent.text}

    def view(self, language: str | None, now: datetime) -> dict[str, Any]:
        """The site as the widget shows it (docs/reference/webchat-api.md)."""
        settings, texts = self.settings, self._texts(language)
        spoken = self._language(language)
        accent = settings.theme.accent
        return {
            "title": texts.title or settings.title or self.name,
            "greeting": texts.greeting or settings.greeting,
            "hours": hours_view(settings.hours, texts, spoken, now),
            "theme": {**settings.theme.model_dump(), "on_accent": text_colour_on(accent)},
            "consent": self.consent_view(language),
            "prechat": settings.prechat.model_dump(),
            "ask_contact": settings.ask_contact,
            "rating": settings.rating,
        }

    def _language(self, language: str | None) -> Language:
        known: dict[str, Language] = {one: one for one in ("ar", "de", "en", "es", "fr", "ja")}
        return known.get(language or "", self.settings.language)

    def _texts(self, language: str | None) -> Texts:
        return self.settings.texts.get(self._language(language), Texts())


class Sites:
    """Finds sites by key; what was found may be used again for ``lifetime`` seconds, which bounds how
    long a site that was switched off still answers."""

    def __init__(
        self, database: Database, vault: Vault, lifetime: float, clock: Clock = system_clock
    ) -> None:
        self._database, self._vault, self._clock = database, vault, clock
        self._lifetime = lifetime
        self._found: dict[str, tuple[float, Site]] = {}
        self._loading: dict[str, asyncio.Task[Site]] = {}
        self._opened: dict[UUID, bytes] = {}

    async def find(self, site_key: str) -> Site:
        """The site of this public key; NotFoundError otherwise."""
        kept = self._found.get(site_key)
        if kept is not None and time.monotonic() - kept[0] < self._lifetime:
            return kept[1]
        if not site_key.startswith("fp_pub_") or not well_formed(site_key):
            raise NotFoundError("There is no such site.")
        task = self._loading.get(site_key)
        if task is None:
            task = asyncio.create_task(self._load(site_key), name="site")
            self._loading[site_key] = task
            task.add_done_callback(lambda done: self._loaded(site_key, done))
        return await asyncio.shield(task)

    def _loaded(self, site_key: str, task: asyncio.Task[Site]) -> None:
        del self._loading[site_key]
        if task.cancelled() or task.exception() is not None:
            self._found.pop(site_key, None)
            return
        if len(self._found) >= _MOST_KEPT:
            self._found.clear()
        self._found[site_key] = (time.monotonic(), task.result())

    async def _load(self, site_key: str) -> Site:
        found = await self._database.statement(_FIND, {"site_key": site_key})
        if not found:
            raise NotFoundError("There is no such site.")
        (row,) = found
        tenant = Tenant(row.id, row.slug, row.schema_name)
        usable_since = self._clock() - timedelta(seconds=LONGEST_LIFE)
        async with self._database.tenant(tenant.schema) as session:
            site = await session.get(ChatSite, row.site_id)
            if site is None:
                raise NotFoundError("There is no such site.")
            chat = await tenant_chat(session)
            stored = await session.scalars(
                select(ChatSiteSecret).where(
                    ChatSiteSecret.site_id == site.id,
                    or_(
                        ChatSiteSecret.retired_at.is_(None),
                        ChatSiteSecret.retired_at > usable_since,
                    ),
                )
            )
            secrets = list(stored)
        opened = {one.id: await self._open(tenant, one) for one in secrets}
        current = {one.purpose: opened[one.id] for one in secrets if one.retired_at is None}
        return Site(
            id=site.id,
            key=site_key,
            tenant=tenant,
            name=site.name,
            active=site.status == "active" and site.mode == "native" and not chat.switched_off,
            origins=frozenset(site.origins),
            settings=SiteSettings.model_validate(site.settings),
            chat=chat,
            token_secrets={
                one.id: SigningSecret(one.id, opened[one.id], one.retired_at)
                for one in secrets
                if one.purpose == "token"
            },
            visitor_secret=current["visitor"],
            identity_secret=current["identity"],
        )

    async def _open(self, tenant: Tenant, stored: ChatSiteSecret) -> bytes:
        """Opened once in the process: a secret never changes, it is replaced."""
        if stored.id not in self._opened:
            data_key = await self._vault.key(tenant, stored.key_id)
            if len(self._opened) >= _MOST_KEPT:
                self._opened.clear()
            self._opened[stored.id] = open_secret(data_key, tenant, stored)
        return self._opened[stored.id]
