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
from fleetprompt.schedules.local_time import parse_time_of_day, validate_zone

# Mattermost's own rule (model/channel.go): this expression, at most 64 characters, and neither of
# the two forms that it keeps for group and direct messages.
_CHANNEL = re.compile(r"[a-z0-9]+([a-z\-_0-9]+|(__)?)[a-z0-9]*", re.ASCII)
_GROUP_MESSAGE = re.compile(r"[0-9a-f]{40}")
_DIRECT_MESSAGE = re.compile(r"[a-z0-9]{26}__[a-z0-9]{26}")
_CHANNEL_MAX = 64
_UNSAFE_IN_URL = re.compile(r"[\s\x00-\x1f\x7f<>\"'`\\]")


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration. ``channel`` None means the webhook's own channel."""

    mattermost_credential_id: UUID | None = None
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
        if self.mattermost_credential_id is not None:
            stored["mattermost_credential_id"] = str(self.mattermost_credential_id)
        return stored

    def missing(self) -> tuple[str, ...]:
        """Options without which nothing can be posted."""
        return () if self.mattermost_credential_id else ("mattermost_credential_id",)


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
    name = value.removeprefix("#")
    if not value:
        return None
    if name.startswith("@"):
        raise InvalidError("Direct messages to @users are not posted; name a public channel.")
    if (
        len(name) > _CHANNEL_MAX
        or not _CHANNEL.fullmatch(name)
        or _GROUP_MESSAGE.fullmatch(name)
        or _DIRECT_MESSAGE.fullmatch(name)
    ):
        raise InvalidError(
            "Must be a channel's name as in its address, such as town-square: lower-case letters, "
            "digits, - and _, at most 64; not the display name."
        )
    return name


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
    "timezone": _timezone,
    "schedule_time": _schedule_time,
    "channel": _channel,
    "include_llm_summary": _llm_summary,
    "post_as_username": _username,
    "post_icon_url": _icon_url,
}
