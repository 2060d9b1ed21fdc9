"""What the digest offers to the platform: its directive, its schedule, its connection."""

from collections.abc import Mapping
from typing import Any

from fleetprompt.directives.types import DirectiveType, RetryPolicy
from fleetprompt.errors import ErrorKind
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.transports.mattermost import (
    Check,
    check_token,
    check_webhook,
    parse_webhook_url,
    unseal_server,
)
from fleetprompt.packages.digest.operations import DigestOperations
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import (
    KINDS_OF_MODE,
    TOKEN,
    WEBHOOK,
)
from fleetprompt.packages.mattermost_daily_ops_digest.picture import wants_picture
from fleetprompt.packages.mattermost_daily_ops_digest.posting import post_test
from fleetprompt.packages.mattermost_daily_ops_digest.record import post_failed
from fleetprompt.packages.mattermost_daily_ops_digest.requests import (
    KIND,
    DigestParams,
    SettleParams,
    TestPostParams,
)
from fleetprompt.packages.mattermost_daily_ops_digest.run import run_digest
from fleetprompt.packages.mattermost_daily_ops_digest.settling import settle_message
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Connectable, Verification
from fleetprompt.settings import Settings
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


class MattermostOperations(DigestOperations):
    """The digest's part in connecting, beside what every digest does."""

    credential_kind = WEBHOOK
    credential_option = "mattermost_credential_id"

    @property
    def further_connections(self) -> Mapping[str, Connectable]:
        """A token beside the webhook."""
        return {TOKEN: Connectable("mattermost_token_id", _server_label, _verify_token)}

    def label(self, secret: Secret, settings: Settings) -> str:
        """The Mattermost server's host."""
        return parse_webhook_url(secret.reveal(), allow_plain_http=settings.allow_plain_http).host

    async def verify(
        self, client: OutboundClient, secret: Secret, config: Mapping[str, Any]
    ) -> Verification:
        """Ask the server whether it knows the webhook; posts nothing."""
        # What was accepted when it was stored is not judged again; the client judges the scheme.
        url = parse_webhook_url(secret.reveal(), allow_plain_http=True)
        return _verification(await check_webhook(client, url))

    def used_kinds(self, config: Mapping[str, Any]) -> frozenset[str]:
        """What its mode posts and reads with."""
        return KINDS_OF_MODE[digest_config.validate(config).mode]

    def destination(self, installation: Installation) -> str:
        """The channel."""
        return installation.config.get("channel") or "default"


def _server_label(secret: Secret, settings: Settings) -> str:
    return unseal_server(secret.reveal(), allow_plain_http=settings.allow_plain_http).host


async def _verify_token(
    client: OutboundClient, secret: Secret, config: Mapping[str, Any]
) -> Verification:
    """Ask who the token is and what it may do; posts nothing."""
    checked = digest_config.validate(config)
    server = unseal_server(secret.reveal(), allow_plain_http=True)
    found = await check_token(
        client,
        server,
        checked.team,
        checked.channel,
        posts=checked.mode == "bot",
        attaches=wants_picture(checked),
    )
    return _verification(found)


def _verification(check: Check) -> Verification:
    if check.ok:
        return Verification("connected", None, check.message)
    if check.verdict in _FAILING:
        return Verification("failing", _FAILING[check.verdict], check.message)
    return Verification("unverified", _UNVERIFIED[check.verdict], check.message)


OPERATIONS = MattermostOperations(KIND, digest_config.validate)

# The digest reads the signals of its window when it is due; none of them makes it act by itself.
signal_handlers: Mapping[str, Any] = {}

DIRECTIVE_TYPES = (
    DirectiveType(
        KIND.run,
        "Writes the digest of one window and posts it to Mattermost once.",
        DigestParams,
        run_digest,
        timeout=120.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=post_failed,
    ),
    DirectiveType(
        KIND.test,
        "Posts one line to the digest's channel, to show that it works.",
        TestPostParams,
        post_test,
        timeout=120.0,
        retry=RetryPolicy(max_attempts=6, first_bound=10.0, longest_bound=900.0),
        after_failure=post_failed,
    ),
    DirectiveType(
        KIND.settle,
        "Looks for a message that was not certainly posted, posts it again, or gives it up.",
        SettleParams,
        settle_message,
        timeout=120.0,
        retry=RetryPolicy(max_attempts=10, first_bound=30.0, longest_bound=1800.0),
    ),
)
