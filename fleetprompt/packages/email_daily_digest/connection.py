"""From a configuration to the way that a letter takes, with its secrets opened."""

from collections.abc import Sequence
from uuid import UUID

from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.outbound.transports.gmail import Earlier, GmailAccount, MailWay, unseal_gmail
from fleetprompt.outbound.transports.smtp import Audience, Letter, SmtpServer, unseal_smtp
from fleetprompt.packages.email_daily_digest.audience import audience
from fleetprompt.packages.email_daily_digest.config import Config
from fleetprompt.vault.cipher import SealError

# What people see of where it goes. The people themselves are asked for when it is sent.
DESTINATION = "active admins, by e-mail"
_UNUSABLE = "The stored connection cannot be used: {reason} Connect it again."


async def open_way(
    context: HandlerContext,
    config: Config,
    letter: Letter,
    row: OutboundMessage | None,
    only: Sequence[str] | None = None,
) -> MailWay:
    """The way for this letter; ``row`` is its entry in the ledger if an attempt was made before.

    A Gmail key that cannot be opened leaves the mail server, unless a draft is in doubt.
    """
    if config.missing():
        raise DirectiveFailed("validation", "Nothing is connected: connect Gmail or a mail server.")
    earlier = earlier_of(row)
    smtp = await _smtp(context, config)
    try:
        gmail = await _gmail(context, config)
    except DirectiveFailed:
        if smtp is None or (earlier is not None and not earlier.certain):
            raise
        await context.execution.log(
            "warning", "Gmail's key cannot be used; by the mail server alone"
        )
        gmail = None

    async def asked() -> Audience:
        return await audience(context.database, context.tenant, config.sender, only)

    return MailWay(
        context.http, letter, asked, gmail, smtp, earlier=earlier, repeated=row is not None
    )


def earlier_of(row: OutboundMessage | None) -> Earlier | None:
    """What an attempt before left in Gmail, as far as the ledger tells."""
    if row is None or row.remote_place is None or row.state == "posted":
        return None
    certain = row.state in ("retryable", "rejected")
    return Earlier(
        draft=row.remote_place,
        author=row.remote_author or "",
        certain=certain,
        refused=certain and row.error_kind in ("auth", "validation"),
    )


async def _gmail(context: HandlerContext, config: Config) -> GmailAccount | None:
    sealed = await _opened(context, config.gmail_credential_id)
    if sealed is None:
        return None
    try:
        account = unseal_gmail(sealed)
        account.check_addresses(context.settings)
    except InvalidError as error:
        raise DirectiveFailed("auth", _UNUSABLE.format(reason=error.detail)) from None
    return account


async def _smtp(context: HandlerContext, config: Config) -> SmtpServer | None:
    sealed = await _opened(context, config.smtp_credential_id)
    if sealed is None:
        return None
    try:
        return unseal_smtp(sealed, allow_plain=context.settings.allow_plain_http)
    except InvalidError as error:
        raise DirectiveFailed("auth", _UNUSABLE.format(reason=error.detail)) from None


async def _opened(context: HandlerContext, credential_id: UUID | None) -> str | None:
    if credential_id is None:
        return None
    try:
        secret = await context.vault.open_credential(context.tenant, credential_id)
    except (SealError, NotFoundError) as error:
        raise DirectiveFailed("auth", _UNUSABLE.format(reason=error.detail)) from None
    return secret.reveal()
