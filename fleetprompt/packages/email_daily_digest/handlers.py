"""What the e-mail digest offers to the platform: directives, schedule, connections."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import DirectiveType, RetryPolicy
from fleetprompt.executions.models import Execution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.gmail import check_gmail, unseal_gmail
from fleetprompt.outbound.transports.smtp import check_smtp, unseal_smtp
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.config import GMAIL, SMTP
from fleetprompt.packages.email_daily_digest.record import sending_failed
from fleetprompt.packages.email_daily_digest.requests import (
    RUN,
    SETTLE,
    TEST,
    DigestParams,
    SettleParams,
    TestParams,
    request_manual,
    request_scheduled,
    request_test,
)
from fleetprompt.packages.email_daily_digest.run import run_digest
from fleetprompt.packages.email_daily_digest.sending import send_test
from fleetprompt.packages.email_daily_digest.settling import request_resolution, settle_letter
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Connectable, Resolution, Verification
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import Schedule
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.secret import Secret

_KEY_ALONE = "The key works. Whether it may act as the sender shows with the first e-mail."
_SENDER_TOO = "The key works, and it may write as the sender; nothing was sent."


class EmailDigestOperations:
    """The e-mail digest's part in connecting, scheduling and running."""

    credential_kind = GMAIL
    credential_option = "gmail_credential_id"
    run_directive = RUN
    test_directive = TEST

    @property
    def further_connections(self) -> Mapping[str, Connectable]:
        """A mail server beside Gmail, or instead of it."""
        return {SMTP: Connectable("smtp_credential_id", _server_label, _verify_server)}

    def label(self, secret: Secret, settings: Settings) -> str:
        """The service account's address."""
        account = unseal_gmail(secret.reveal())
        account.check_addresses(settings)
        return account.name

    async def verify(
        self, client: OutboundClient, secret: Secret, config: Mapping[str, Any]
    ) -> Verification:
        """Ask for a token, and with a sender set for its drafts; leaves nothing there."""
        sender = email_config.validate(config).sender
        found = await check_gmail(client, unseal_gmail(secret.reveal()), sender)
        return _verification(found, _SENDER_TOO if sender else _KEY_ALONE)

    def used_kinds(self, config: Mapping[str, Any]) -> frozenset[str]:
        """What is connected."""
        checked = email_config.validate(config)
        connected = {GMAIL: checked.gmail_credential_id, SMTP: checked.smtp_credential_id}
        return frozenset(kind for kind, credential in connected.items() if credential)

    def schedule(self, config: Mapping[str, Any]) -> Schedule | None:
        """Daily at the configured time, once something is connected and unless it is paused."""
        checked = email_config.validate(config)
        if not checked.enabled or checked.missing():
            return None
        return Schedule(checked.time_of_day, checked.zone)

    async def request_run(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        actor: Actor,
        now: datetime,
    ) -> tuple[Directive, Execution]:
        """A digest of the 24 hours up to now."""
        return await request_manual(session, tenant, installation, actor, now)

    async def request_scheduled(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        slot: ScheduleSlot,
    ) -> Directive:
        """The digest of the slot's window."""
        return await request_scheduled(session, tenant, installation, slot)

    async def request_test(
        self, session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor
    ) -> tuple[Directive, Execution]:
        """A few words to all active admins."""
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
        """Look at a letter's draft, send it again, or give it up."""
        return await request_resolution(
            session, tenant, installation, message_id, resolution, actor
        )


def _server_label(secret: Secret, settings: Settings) -> str:
    return unseal_smtp(secret.reveal(), allow_plain=settings.allow_plain_http).host


async def _verify_server(
    client: OutboundClient, secret: Secret, config: Mapping[str, Any]
) -> Verification:
    """Log in and leave again. In clear only what the sending would do in clear as well."""
    server = unseal_smtp(secret.reveal(), allow_plain=client.allows_plain)
    return _verification(await check_smtp(client, server), "The mail server takes this login.")


def _verification(found: Outcome, words: str) -> Verification:
    if found.state == "posted":
        return Verification("connected", None, words)
    if found.state == "rejected":
        return Verification("failing", found.error_kind, found.message)
    return Verification("unverified", found.error_kind, found.message)


OPERATIONS = EmailDigestOperations()

# The digest reads the signals of its window when it is due; none of them makes it act by itself.
signal_handlers: Mapping[str, Any] = {}

DIRECTIVE_TYPES = (
    DirectiveType(
        RUN,
        "Writes the digest of one window and mails it to the active admins once.",
        DigestParams,
        run_digest,
        timeout=180.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=sending_failed,
    ),
    DirectiveType(
        TEST,
        "Mails a few words to active admins, to show that it works.",
        TestParams,
        send_test,
        timeout=180.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=sending_failed,
    ),
    DirectiveType(
        SETTLE,
        "Looks at the draft of an e-mail that was not certainly sent, sends it again, or gives it up.",
        SettleParams,
        settle_letter,
        timeout=180.0,
        retry=RetryPolicy(max_attempts=10, first_bound=30.0, longest_bound=1800.0),
    ),
)
