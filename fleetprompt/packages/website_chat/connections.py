"""What the chat connects with: a mail server for escalations, and a CAPTCHA's secret."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.errors import ConflictError
from fleetprompt.executions.models import Execution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.transports.smtp import check_smtp, unseal_smtp
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Connectable, Resolution, Verification
from fleetprompt.packages.website_chat.trial import TEST, request_test
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import Schedule
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.secret import Secret
from fleetprompt.webchat.captcha import checked_secret
from fleetprompt.webchat.tenant_settings import ChatSettings

SMTP = "smtp"
CAPTCHA = "captcha"
_NOTHING_TO_RUN = "The chat has nothing to run: it answers visitors as they come."
_NOTHING_TO_SETTLE = (
    "What the chat sends cannot be looked for afterwards; the conversation has it all."
)


class ChatOperations:
    """The chat's part in connecting and testing; it keeps no schedule."""

    credential_kind = SMTP
    credential_option = "smtp_credential_id"
    run_directive = TEST
    test_directive = TEST

    @property
    def further_connections(self) -> Mapping[str, Connectable]:
        """A CAPTCHA's secret."""
        return {CAPTCHA: Connectable("captcha_credential_id", _captcha_label, _verify_captcha)}

    def label(self, secret: Secret, settings: Settings) -> str:
        """The mail server's host."""
        return unseal_smtp(secret.reveal(), allow_plain=settings.allow_plain_http).host

    async def verify(
        self, client: OutboundClient, secret: Secret, config: Mapping[str, Any]
    ) -> Verification:
        """Log in at the mail server and leave again."""
        found = await check_smtp(
            client, unseal_smtp(secret.reveal(), allow_plain=client.allows_plain)
        )
        if found.state == "posted":
            return Verification("connected", None, "The mail server takes this login.")
        if found.state == "rejected":
            return Verification("failing", found.error_kind, found.message)
        return Verification("unverified", found.error_kind, found.message)

    def used_kinds(self, config: Mapping[str, Any]) -> frozenset[str]:
        """What is connected."""
        settings = ChatSettings.of_json(config)
        connected = {SMTP: settings.smtp_credential_id, CAPTCHA: settings.captcha_credential_id}
        return frozenset(kind for kind, credential in connected.items() if credential)

    def schedule(self, config: Mapping[str, Any]) -> Schedule | None:
        """None: visitors come when they come."""
        return None

    async def request_run(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        actor: Actor,
        now: datetime,
    ) -> tuple[Directive, Execution]:
        """ConflictError: there is nothing to run."""
        raise ConflictError(_NOTHING_TO_RUN)

    async def request_scheduled(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        slot: ScheduleSlot,
    ) -> Directive:
        """ConflictError: there is nothing to run."""
        raise ConflictError(_NOTHING_TO_RUN)

    async def request_test(
        self, session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor
    ) -> tuple[Directive, Execution]:
        """Look at every site, and post one line where the team is told of conversations."""
        return await request_test(session, tenant, installation, actor)

    async def request_resolution(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        message_id: UUID,
        resolution: Resolution,
        actor: Actor,
    ) -> Directive:
        """ConflictError: neither a webhook nor a mail server can be asked."""
        raise ConflictError(_NOTHING_TO_SETTLE)


def _captcha_label(secret: Secret, settings: Settings) -> str:
    checked_secret(secret.reveal())
    return "CAPTCHA"


async def _verify_captcha(
    client: OutboundClient, secret: Secret, config: Mapping[str, Any]
) -> Verification:
    """Nothing can be tried: a vendor judges a secret only beside a visitor's answer."""
    return Verification("connected", None, "Kept. The first visitor who solves one tries it.")
