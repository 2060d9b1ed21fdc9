"""A tenant with the e-mail digest installed, and its people."""

from dataclasses import dataclass
from uuid import UUID

from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import credentials, service
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Verification
from fleetprompt.tenants import members
from fleetprompt.tenants.keys import Role
from fleetprompt.vault.secret import Secret
from tests.doubles.gmail import Gmail
from tests.doubles.smtp import MailServer
from tests.packages.installed import ADMIN, Platform

SLUG = "email_daily_digest"


@dataclass
class Mailing(Platform):
    """The platform as the e-mail digest's tenant uses it."""

    async def person(self, name: str, role: Role = "admin") -> str:
        """A member of the tenant; the address."""
        email = f"{name}@{self.tenant.slug}.example"
        async with self.database.platform() as session:
            await members.add_member(session, self.tenant, email=email, role=role)
        return email

    async def leaves(self, email: str) -> None:
        """Nobody of this address is a member any more."""
        async with self.database.platform() as session:
            found = await members.find_member(session, self.tenant, email)
            await members.remove_member(session, self.tenant, found.user_id)

    async def installed(
        self, gmail: Gmail | None = None, smtp: MailServer | None = None, **config: object
    ) -> Installation:
        """The installation, with what is given connected."""
        async with self.database.tenant(self.tenant.schema) as session:
            _, installation = await service.install(session, self.tenant, SLUG, {}, ADMIN)
        await self.work()
        await self.configure(installation.id, empty_window="post", **config)
        if gmail is not None:
            found = await self.connect_kind(installation.id, "gmail", gmail.sealed)
            assert found.state == "connected", found
        if smtp is not None:
            url = f"smtp://127.0.0.1:{smtp.port}"
            found = await self.connect_kind(installation.id, "smtp", url)
            assert found.state == "connected", found
        return await self.installation(installation.id)

    async def connect_kind(self, installation_id: UUID, kind: str, secret: str) -> Verification:
        """Connect one of the two."""
        _, verification = await credentials.connect(
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
        return verification
