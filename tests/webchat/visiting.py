"""Visitors of a tenant's site, without a server between: the chat as its requests call it."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat import conversations, erasure, messages
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.conversations import Arrival, Contact
from fleetprompt.webchat.messages import Received
from fleetprompt.webchat.registration import register
from fleetprompt.webchat.site_settings import SiteSettings
from fleetprompt.webchat.sites import Site, Sites
from fleetprompt.webchat.tenant_settings import Mode

ORIGIN = "https://shop.example"


async def new_site(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    *,
    name: str = "Nordwind Shop",
    mode: Mode = "native",
    origins: tuple[str, ...] = (ORIGIN,),
    **values: Any,
) -> str:
    """A site of the tenant with these settings; its public key."""
    data_key = await Vault(database, load_master_key(settings)).current_key(tenant)
    async with database.tenant(tenant.schema) as session:
        site, _ = await register(
            session,
            tenant,
            data_key,
            site_id=new_id(),
            name=name,
            origins=origins,
            settings=SiteSettings.model_validate(values),
            mode=mode,
        )
    return site.site_key


async def look_up(database: Database, settings: Settings, site_key: str) -> Site:
    """The site as a request that comes now sees it."""
    return await Sites(database, Vault(database, load_master_key(settings)), 0).find(site_key)


@dataclass
class Visitor:
    """One visitor of a site."""

    database: Database
    site: Site
    address: str = "198.51.100.7"
    clock: Clock = system_clock
    id: UUID = field(default_factory=uuid4)
    conversation: UUID = field(default_factory=uuid4)

    def guest(self) -> Guest:
        """The visitor at this moment."""
        now = self.clock()
        expires_at = int(now.timestamp()) + 900
        return Guest(self.site, self.id, self.address, "Mozilla/5.0 (Test)", expires_at, now)

    async def begin(self, name: str | None = None, email: str | None = None) -> "Visitor":
        """Have an open conversation."""
        async with self.database.tenant(self.site.tenant.schema) as session:
            arrival = Arrival(contact=Contact(name, email), page_url=f"{ORIGIN}/zebra")
            found, _ = await conversations.open_conversation(session, self.guest(), arrival)
        self.conversation = found.id
        return self

    async def say(self, text: str) -> Received:
        """Send one message."""
        async with self.database.tenant(self.site.tenant.schema) as session:
            return await messages.receive(session, self.guest(), self.conversation, uuid4(), text)

    async def end(self) -> None:
        """End the conversation."""
        async with self.database.tenant(self.site.tenant.schema) as session:
            found = await conversations.own_conversation(
                session, self.guest(), self.conversation, lock=True
            )
            await conversations.close(session, found, by="visitor", now=self.clock())

    async def ask_to_be_forgotten(self) -> None:
        """Have everything removed."""
        async with self.database.tenant(self.site.tenant.schema) as session:
            await erasure.erase_visitor(session, self.site.id, self.id, self.clock(), by="visitor")
