"""The Mattermost digest's configuration: what it adds to every digest's, and how it is checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.transports.mattermost import parse_channel
from fleetprompt.packages.digest.config import Check, DigestConfig, checked, credential

Mode = Literal["webhook", "bot", "hybrid"]

# The name at the start of a team's addresses.
_TEAM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_UNSAFE_IN_URL = re.compile(r"[\s\x00-\x1f\x7f<>\"'`\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(DigestConfig):
    """A checked configuration. ``channel`` None means the webhook's own channel.

    ``mode`` says how it is posted: through a webhook, as a bot, or through a webhook and read back
    with a token (docs/decisions/posting-once.md).
    """

    mode: Mode = "webhook"
    mattermost_credential_id: UUID | None = None
    mattermost_token_id: UUID | None = None
    team: str | None = None
    channel: str | None = None
    post_as_username: str | None = None
    post_icon_url: str | None = None
    silent_when_green: bool = True
    attach_trend: bool = True

    def missing(self) -> tuple[str, ...]:
        """Options without which nothing can be posted in this mode."""
        return tuple(name for name in _NEEDED[self.mode] if not getattr(self, name))


_NEEDED: Mapping[Mode, tuple[str, ...]] = {
    "webhook": ("mattermost_credential_id",),
    "bot": ("mattermost_token_id", "team", "channel"),
    "hybrid": ("mattermost_credential_id", "mattermost_token_id", "team", "channel"),
}


def validate(config: Mapping[str, Any]) -> Config:
    """The typed configuration of a mapping that the manifest's schema has accepted; InvalidError."""
    return checked(Config, config, _CHECKS)


def _channel(value: str) -> str | None:
    return parse_channel(value) if value else None


def _team(value: str) -> str | None:
    name = value.strip()
    if name and not _TEAM.fullmatch(name):
        raise InvalidError(
            "A team's name has 1 to 64 lower-case letters, digits and -, as at the start of its "
            "channels' URLs; the name shown is another one."
        )
    return name or None


def _username(value: str) -> str:
    if value != value.strip() or not value.isprintable() or "@" in value:
        raise InvalidError("Must be printable, without @ and without space around it.")
    return value


def _icon_url(value: str) -> str:
    refused = InvalidError("Must be an https address with a host and no user or password.")
    try:
        parts = urlsplit(value)
        port_is_sound = parts.port is None or parts.port > 0
    except ValueError as error:
        raise refused from error
    if (
        parts.scheme != "https"
        or not parts.hostname
        or "@" in parts.netloc
        or not port_is_sound
        or _UNSAFE_IN_URL.search(value)
    ):
        raise refused
    return value


_CHECKS: Mapping[str, Check] = {
    "mattermost_credential_id": credential,
    "mattermost_token_id": credential,
    "team": _team,
    "channel": _channel,
    "post_as_username": _username,
    "post_icon_url": _icon_url,
}
