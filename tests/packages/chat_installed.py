"""A tenant with the chat installed, its sites, and where its team hears of visitors."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from fleetprompt.directives.actors import Actor
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import credentials, service
from fleetprompt.packages.models import Installation
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.replays import service as replays
from fleetprompt.signals.replays.models import Replay
from fleetprompt.signals.replays.selection import Selection
from fleetprompt.vault.secret import Secret
from fleetprompt.webchat.sites import Site
from tests.doubles.mattermost import RunningMattermost
from tests.doubles.smtp import MailServer
from tests.packages.installed import ADMIN, Platform, connected
from tests.webchat.visiting import Visitor, look_up, new_site

SLUG = "website_chat"
OWNER = Actor("user:ada", "owner")
TEAM = "chat@team.example"


@dataclass
class Chat(Platform):
    """The platform as the chat's tenant uses it."""

    async def installed(
        self,
        mattermost: RunningMattermost | None = None,
        smtp: MailServer | None = None,
        **config: Any,
    ) -> Installation:
        """The package, telling of conversations in what is given."""
        if mattermost is not None:
            digest = await connected(self, mattermost)
            config["notify_installation_id"] = str(digest.id)
        if smtp is not None:
            config = {"email_to": [TEAM], "email_every_conversation": True, **config}
        async with self.database.tenant(self.tenant.schema) as session:
            _, installation = await service.install(session, self.tenant, SLUG, config, ADMIN)
        await self.work()
        if smtp is not None:
            await self.connect_kind(installation.id, "smtp", f"smtp://127.0.0.1:{smtp.port}")
        return await self.installation(installation.id)

    async def connect_kind(self, installation_id: UUID, kind: str, secret: str) -> None:
        """Keep a secret for the package."""
        _, found = await credentials.connect(
            self.database,
            self.vault,
            OutboundClient(self.settings),
            self.settings,
            self.tenant,
            installation_id,
            Secret(secret),
            ADMIN,
            kind=kind,
            clock=self.clock,
        )
        assert found.state == "connected", found

    async def site(self, **values: Any) -> Site:
        """A site with these settings."""
        key = await new_site(self.database, self.settings, self.tenant, **values)
        return await look_up(self.database, self.settings, key)

    async def visitor(self, site: Site, **contact: str) -> Visitor:
        """Somebody with an open conversation."""
        return await Visitor(self.database, site).begin(**contact)

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of the signals of one type."""
        return [data for type_, data in await self.signals(kind) if type_ == kind]

    async def emit(self, kind: str, source: str, **more: Any) -> None:
        """A signal of some producer."""
        async with self.database.tenant(self.tenant.schema) as session:
            await emit(session, NewSignal(type=kind, source=source, **more))

    async def replay(self, kind: str) -> Replay:
        """Have the handlers asked again about every signal of one type, live."""
        selection = Selection(occurred_from=datetime(2000, 1, 1, tzinfo=UTC), types=(kind,))
        async with self.database.tenant(self.tenant.schema) as session:
            asked = await replays.ask_for_replay(
                session, self.tenant, selection, live=True, actor=OWNER
            )
        await self.work(rounds=2)
        async with self.database.tenant(self.tenant.schema) as session:
            found = await replays.get_replay(session, asked.id)
        assert found.state == "completed"
        return found

    async def counted(self, kind: str) -> int:
        """How many directives of a type there are."""
        async with self.database.tenant(self.tenant.schema) as session:
            query = text("SELECT count(*) FROM directives WHERE type = :kind")
            return int(await session.scalar(query, {"kind": kind}) or 0)
