"""What the digest offers to the platform: its directive, its schedule, its connection."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import DirectiveType, RetryPolicy
from fleetprompt.errors import ErrorKind
from fleetprompt.executions.models import Execution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.transports.mattermost import check_webhook, parse_webhook_url
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.record import PROVIDER, digest_failed
from fleetprompt.packages.mattermost_daily_ops_digest.requests import (
    RUN,
    DigestParams,
    request_manual_digest,
    request_scheduled_digest,
)
from fleetprompt.packages.mattermost_daily_ops_digest.run import run_digest
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Verification
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import Schedule
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.secret import Secret

_UNVERIFIED: Mapping[str, ErrorKind] = {
    "unreachable": "network",
    "no_clear_answer": "unknown",
    "rate_limited": "rate_limit",
}
_FAILING: Mapping[str, ErrorKind] = {
    "unknown_webhook": "auth",
    "forbidden": "auth",
    "webhooks_disabled": "validation",
    "not_mattermost": "validation",
    "redirected": "validation",
    "refused": "validation",
}


class DigestOperations:
    """The digest's part in connecting, scheduling and running."""

    credential_kind = PROVIDER
    credential_option = "mattermost_credential_id"
    run_directive = RUN

    def label(self, secret: Secret, settings: Settings) -> str:
        """The Mattermost server's host."""
        return parse_webhook_url(secret.reveal(), allow_plain_http=settings.allow_plain_http).host

    async def verify(
        self, client: OutboundClient, secret: Secret, config: Mapping[str, Any]
    ) -> Verification:
        """Ask the server whether it knows the webhook; posts nothing."""
        # What was accepted when it was stored is not judged again; the client judges the scheme.
        url = parse_webhook_url(secret.reveal(), allow_plain_http=True)
        check = await check_webhook(client, url)
        if check.ok:
            return Verification("connected")
        if check.verdict in _FAILING:
            return Verification("failing", _FAILING[check.verdict], check.message)
        return Verification("unverified", _UNVERIFIED[check.verdict], check.message)

    def schedule(self, config: Mapping[str, Any]) -> Schedule | None:
        """Daily at the configured time, once it is connected and unless it is paused."""
        checked = digest_config.validate(config)
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
        return await request_manual_digest(session, tenant, installation, actor, now)

    async def request_scheduled(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        slot: ScheduleSlot,
    ) -> Directive:
        """The digest of the slot's window."""
        return await request_scheduled_digest(session, tenant, installation, slot)


OPERATIONS = DigestOperations()

# The digest reads the signals of its window when it is due; none of them makes it act by itself.
signal_handlers: Mapping[str, Any] = {}

DIRECTIVE_TYPES = (
    DirectiveType(
        RUN,
        "Writes the digest of one window and posts it to Mattermost once.",
        DigestParams,
        run_digest,
        timeout=120.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=digest_failed,
    ),
)
