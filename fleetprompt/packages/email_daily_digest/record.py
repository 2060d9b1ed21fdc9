"""What follows from a letter's outcome: what every digest does, with how it went."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.types import Failure
from fleetprompt.outbound.transports.gmail import MailWay
from fleetprompt.packages.digest.record import not_sent, sent
from fleetprompt.packages.digest.story import Story
from fleetprompt.packages.email_daily_digest.config import Config
from fleetprompt.packages.email_daily_digest.connection import DESTINATION
from fleetprompt.packages.email_daily_digest.requests import KIND, DigestParams, TestParams
from fleetprompt.tenants.service import Tenant


@dataclass(frozen=True, slots=True)
class Sending:
    """One letter on its way."""

    story: Story
    config: Config
    way: MailWay
    sha256: str

    async def posted(self, session: AsyncSession) -> None:
        """All that follows from its being sent, in the transaction that says so."""
        config, way = self.config, self.way
        used = config.gmail_credential_id if way.went_by == "gmail" else config.smtp_credential_id
        told = {"destination": DESTINATION, "transport": way.went_by}
        recipients = way.recipients or None
        await sent(session, KIND, self.story, used, told, sha256=self.sha256, recipients=recipients)


async def sending_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: DigestParams | TestParams,
    failure: Failure,
) -> None:
    """Show a failure on its installation and slot, and tell of its class once."""
    await not_sent(session, KIND, tenant, directive, params, failure)
