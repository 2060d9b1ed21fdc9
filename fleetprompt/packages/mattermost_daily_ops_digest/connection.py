"""From a configuration to the way that a message takes, with its secrets opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.outbound.delivery import Way
from fleetprompt.outbound.transports.mattermost import (
    Attachment,
    BotWay,
    HybridWay,
    WebhookMessage,
    WebhookWay,
    parse_webhook_url,
    unseal_server,
)
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config, Mode
from fleetprompt.vault.cipher import SealError
from fleetprompt.vault.models import IntegrationCredential
from fleetprompt.vault.secret import Secret
from fleetprompt.vault.service import get_credential

# From this attempt on a digest goes out unproven rather than not at all, if the token's side does not answer.
_WAITED_FOR_TOKEN = 4
WEBHOOK = "mattermost"
TOKEN = "mattermost_token"  # noqa: S105 - a kind of credential, not a token
KINDS_OF_MODE: Mapping[Mode, frozenset[str]] = {
    "webhook": frozenset({WEBHOOK}),
    "bot": frozenset({TOKEN}),
    "hybrid": frozenset({WEBHOOK, TOKEN}),
}
_WORDS = {
    "mattermost_credential_id": "paste the incoming webhook's URL",
    "mattermost_token_id": "connect an access token",
    "team": "name the team",
    "channel": "name the channel",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message goes, as people may see it: server and channel; and what it is posted with."""

    destination: str
    credential: IntegrationCredential


async def destination_of(session: AsyncSession, config: Config) -> str:
    """Server and channel, as people may see them; DirectiveFailed where something is missing."""
    return (await posting_place(session, config)).destination


async def posting_place(session: AsyncSession, config: Config) -> Place:
    """The destination with its credential, still sealed; DirectiveFailed where something is missing."""
    missing = config.missing()
    if missing:
        what = ", ".join(_WORDS[name] for name in missing)
        raise DirectiveFailed("validation", f"Mattermost is not connected: {what}.")
    posting = (
        config.mattermost_token_id if config.mode == "bot" else config.mattermost_credential_id
    )
    assert posting is not None  # noqa: S101 - nothing is missing
    try:
        credential = await get_credential(session, posting)
    except NotFoundError:
        raise DirectiveFailed(
            "auth", "The Mattermost connection was removed. Connect Mattermost again."
        ) from None
    return Place(f"{credential.label}#{config.channel or 'default'}", credential)


async def open_way(
    context: HandlerContext,
    config: Config,
    text: str,
    *,
    silent: bool,
    picture: Attachment | None = None,
    read: IntegrationCredential | None = None,
) -> Way:
    """The way of the configuration's mode for this text; nothing may be missing in it.

    ``picture`` goes along as a bot alone. ``read`` is a credential that need not be read once more.
    """
    message = WebhookMessage(
        text=text,
        channel=config.channel,
        username=config.post_as_username,
        icon_url=config.post_icon_url,
        silent=silent,
    )
    plain_http = context.settings.allow_plain_http
    team, channel = config.team or "", config.channel or ""
    if config.mode == "bot":
        sealed = await _opened(context, config.mattermost_token_id, "token", read)
        server = unseal_server(sealed.reveal(), allow_plain_http=plain_http)
        return BotWay(context.http, server, team, channel, message, picture)
    url = await _opened(context, config.mattermost_credential_id, "webhook", read)
    hook = WebhookWay(
        context.http, parse_webhook_url(url.reveal(), allow_plain_http=plain_http), message
    )
    if config.mode == "webhook":
        return hook
    try:
        sealed = await _opened(context, config.mattermost_token_id, "token")
        server = unseal_server(sealed.reveal(), allow_plain_http=plain_http)
    except (DirectiveFailed, InvalidError):
        await context.execution.log(
            "warning", "the token cannot be used; posting through the webhook alone"
        )
        return hook
    wait = context.directive.attempt < _WAITED_FOR_TOKEN
    return HybridWay(hook, server, team, channel, wait=wait)


async def tell_left_out(context: HandlerContext, way: Way) -> None:
    """Say in the execution's log why a picture did not go along."""
    if (reason := left_out(way)) is not None:
        await context.execution.log("warning", "posted without its picture", reason=reason)


def left_out(way: Way) -> str | None:
    """Why a picture did not go along, if one was to."""
    return way.left_out if isinstance(way, BotWay) else None


async def _opened(
    context: HandlerContext,
    credential_id: Any,
    what: str,
    read: IntegrationCredential | None = None,
) -> Secret:
    assert isinstance(credential_id, UUID)  # noqa: S101 - posting_place has checked
    try:
        if read is not None and read.id == credential_id:
            return await context.vault.opened(context.tenant, read)
        return await context.vault.open_credential(context.tenant, credential_id)
    except (SealError, NotFoundError) as error:
        raise DirectiveFailed(
            "auth", f"The stored {what} cannot be used: {error.detail} Connect Mattermost again."
        ) from None
