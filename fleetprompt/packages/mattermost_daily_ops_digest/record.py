"""What follows from a post's outcome: what every digest does, and its credential."""

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.types import Failure
from fleetprompt.packages.digest.record import not_sent, sent
from fleetprompt.packages.digest.story import Story
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import TOKEN, WEBHOOK
from fleetprompt.packages.mattermost_daily_ops_digest.requests import (
    KIND,
    DigestParams,
    TestPostParams,
)
from fleetprompt.packages.models import Installation
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential


@dataclass(frozen=True, slots=True)
class Posting:
    """One message on its way."""

    story: Story
    config: Config
    destination: str
    sha256: str

    async def posted(self, session: AsyncSession) -> None:
        """All that follows from its being posted, in the transaction that says so."""
        config, told = self.config, {"destination": self.destination}
        used = config.mattermost_credential_id
        if config.mode == "bot":
            used = config.mattermost_token_id
        await sent(session, KIND, self.story, used, told, sha256=self.sha256)


async def post_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: DigestParams | TestPostParams,
    failure: Failure,
) -> None:
    """Show a failure on its installation, slot and credential, and tell of it once."""
    told = await not_sent(session, KIND, tenant, directive, params, failure)
    if not told or failure.error_kind != "auth":
        return
    config = await session.scalar(
        select(Installation.config).where(Installation.id == params.installation_id)
    )
    bot = (config or {}).get("mode") == "bot"
    await session.execute(
        update(IntegrationCredential)
        .where(
            IntegrationCredential.installation_id == params.installation_id,
            IntegrationCredential.kind == (TOKEN if bot else WEBHOOK),
        )
        .values(state="failing", checked_at=func.clock_timestamp(), last_error=failure.message)
    )
