"""What the e-mail digest offers to the platform: directives, schedule, connections."""

from collections.abc import Mapping
from typing import Any

from fleetprompt.directives.types import DirectiveType, RetryPolicy
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.gmail import check_gmail, unseal_gmail
from fleetprompt.outbound.transports.smtp import check_smtp, unseal_smtp
from fleetprompt.packages.digest.operations import DigestOperations
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.config import GMAIL, SMTP
from fleetprompt.packages.email_daily_digest.record import sending_failed
from fleetprompt.packages.email_daily_digest.requests import (
    KIND,
    DigestParams,
    SettleParams,
    TestParams,
)
from fleetprompt.packages.email_daily_digest.run import run_digest
from fleetprompt.packages.email_daily_digest.sending import send_test
from fleetprompt.packages.email_daily_digest.settling import settle_letter
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Connectable, Verification
from fleetprompt.settings import Settings
from fleetprompt.vault.secret import Secret

_KEY_ALONE = "The key works. Whether it may act as the sender shows with the first e-mail."
_SENDER_TOO = "The key works, and it may write as the sender; nothing was sent."


class EmailOperations(DigestOperations):
    """The e-mail digest's part in connecting, beside what every digest does."""

    credential_kind = GMAIL
    credential_option = "gmail_credential_id"

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

    def destination(self, installation: Installation) -> str:
        """The way alone: who gets it is asked when it is sent."""
        return "email"


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


OPERATIONS = EmailOperations(KIND, email_config.validate)

# The digest reads the signals of its window when it is due; none of them makes it act by itself.
signal_handlers: Mapping[str, Any] = {}

DIRECTIVE_TYPES = (
    DirectiveType(
        KIND.run,
        "Writes the digest of one window and mails it to the active admins once.",
        DigestParams,
        run_digest,
        timeout=180.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=sending_failed,
    ),
    DirectiveType(
        KIND.test,
        "Mails a few words to active admins, to show that it works.",
        TestParams,
        send_test,
        timeout=180.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=sending_failed,
    ),
    DirectiveType(
        KIND.settle,
        "Looks at the draft of an e-mail that was not certainly sent, sends it again, or gives it up.",
        SettleParams,
        settle_letter,
        timeout=180.0,
        retry=RetryPolicy(max_attempts=10, first_bound=30.0, longest_bound=1800.0),
    ),
)
