"""The e-mail digest's configuration: typed, with defaults, and what JSON Schema cannot say of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import time
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.transports.smtp.letter import address
from fleetprompt.packages.mattermost_daily_ops_digest import config as mattermost
from fleetprompt.schedules.local_time import parse_time_of_day, validate_zone

GMAIL = "gmail"
SMTP = "smtp"


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration. ``sender`` None means the first active admin."""

    gmail_credential_id: UUID | None = None
    smtp_credential_id: UUID | None = None
    sender: str | None = None
    timezone: str = "UTC"
    schedule_time: str = "09:00"
    enabled: bool = True
    max_lines: int = 80
    include_cost_estimates: bool = True
    empty_window: Literal["post", "skip"] = "skip"

    @property
    def zone(self) -> ZoneInfo:
        """The zone that days and times of day are meant in."""
        return validate_zone(self.timezone)

    @property
    def time_of_day(self) -> time:
        """When a digest is due, in ``zone``."""
        return parse_time_of_day(self.schedule_time)

    @property
    def of_text(self) -> mattermost.Config:
        """What the digest's text is written with: it is one text, wherever it goes."""
        return mattermost.Config(
            max_lines=self.max_lines, include_cost_estimates=self.include_cost_estimates
        )

    def as_json(self) -> dict[str, Any]:
        """Every option with its value: what is stored and checksummed."""
        stored = asdict(self)
        for name in ("gmail_credential_id", "smtp_credential_id"):
            if stored[name] is not None:
                stored[name] = str(stored[name])
        return stored

    def missing(self) -> tuple[str, ...]:
        """Options without which nothing can be sent: one of the two connections is enough."""
        connected = self.gmail_credential_id or self.smtp_credential_id
        return () if connected else ("gmail_credential_id", "smtp_credential_id")


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


def _sender(value: str) -> str | None:
    if not value.strip():
        return None
    try:
        return address(value.strip()).addr_spec
    except ValueError as error:
        raise InvalidError("Must be an e-mail address, such as ops@example.org.") from error


def _timezone(value: str) -> str:
    return validate_zone(value).key


def _schedule_time(value: str) -> str:
    return parse_time_of_day(value).strftime("%H:%M")


_CHECKS: dict[str, Callable[[Any], object]] = {
    "gmail_credential_id": _credential,
    "smtp_credential_id": _credential,
    "sender": _sender,
    "timezone": _timezone,
    "schedule_time": _schedule_time,
}
