"""The digest's configuration: typed, with defaults, and what JSON Schema cannot say of it.

Everything has a default, so that a package can be installed first and configured after (the seed's
installation flow); ``missing()`` tells what must still be given before a digest can be posted.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import time
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.transports.mattermost import parse_channel
from fleetprompt.schedules.local_time import parse_time_of_day, validate_zone

Mode = Literal["webhook", "bot", "hybrid"]

# The name at the start of a team's addresses.
_TEAM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_UNSAFE_IN_URL = re.compile(r"[\s\x00-\x1f\x7f<>\"'`\\]")


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration. ``channel`` None means the webhook's own channel.

    ``mode`` says how it is posted: through a webhook, as a bot, or through a webhook and read back
    with a token (docs/decisions/posting-once.md).
    """

    mode: Mode = "webhook"
    mattermost_credential_id: UUID | None = None
    mattermost_token_id: UUID | None = None
    team: str | None = None
    timezone: str = "UTC"
    schedule_time: str = "09:00"
    enabled: bool = True
    channel: str | None = None
    include_llm_summary: Literal[False] = False
    max_lines: int = 40
    include_cost_estimates: bool = True
    post_as_username: str | None = None
    post_icon_url: str | None = None
    empty_window: Literal["post", "skip"] = "post"
    silent_when_green: bool = True

    @property
    def zone(self) -> ZoneInfo:
        """The zone that days and times of day are meant in."""
        return validate_zone(self.timezone)

    @property
    def time_of_day(self) -> time:
        """When a digest is due, in ``zone``."""
        return parse_time_of_day(self.schedule_time)

    def as_json(self) -> dict[str, Any]:
        """Every option with its value: what is stored and checksummed."""
        stored = asdict(self)
        for name in ("mattermost_credential_id", "mattermost_token_id"):
            if stored[name] is not None:
                stored[name] = str(stored[name])
        return stored

    def missing(self) -> tuple[str, ...]:
        """Options without which nothing can be posted in this mode."""
        return tuple(name for name in _NEEDED[self.mode] if not getattr(self, name))


_NEEDED: Mapping[Mode, tuple[str, ...]] = {
    "webhook": ("mattermost_credential_id",),
    "bot": ("mattermost_token_id", "team", "channel"),
    "hybrid": ("mattermost_credential_id", "mattermost_token_id", "team", "channel"),
}


def validate(config: Mapping[str, Any]) -> Config:
    """The typed configuration of a mapping that the manifest's schema has accepted.

    Raises InvalidError with every error found, its pointers relative to ``config``.
    """
    checked = dict(config)
    errors: list[dict[str, Any]] = []
    for name, check in _CHECKS.items():
        if checked.get(name) is None:
            continue
        try:
            checked[name] = check(checked[name])
        except InvalidError as error:
            errors.append({"pointer": f"/{name}", "detail": error.detail})
    if errors:
        raise InvalidError(errors[0]["detail"], errors=errors)
    return Config(**checked)


def _credential(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError as error:
        raise InvalidError("Must be the id of a credential, a UUID.") from error


def _timezone(value: str) -> str:
    return validate_zone(value).key


def _schedule_time(value: str) -> str:
    return parse_time_of_day(value).strftime("%H:%M")


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


def _llm_summary(value: bool) -> bool:
    if value:
        raise InvalidError(
            "A summary by a language model is not offered yet; set include_llm_summary to false."
        )
    return False


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


_CHECKS: dict[str, Callable[[Any], object]] = {
    "mattermost_credential_id": _credential,
    "mattermost_token_id": _credential,
    "team": _team,
    "timezone": _timezone,
    "schedule_time": _schedule_time,
    "channel": _channel,
    "include_llm_summary": _llm_summary,
    "post_as_username": _username,
    "post_icon_url": _icon_url,
}
