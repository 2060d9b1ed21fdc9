"""What every digest's configuration has: when it comes, what it tells, and how it is checked.

Everything has a default, so that a package can be installed first and configured after (the seed's
installation flow); ``missing()`` of a package's own configuration tells what must still be given.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import time
from typing import Any, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from fleetprompt.errors import InvalidError
from fleetprompt.schedules.local_time import parse_time_of_day, validate_zone

Check = Callable[[Any], object]
AnyConfig = TypeVar("AnyConfig", bound="DigestConfig")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestConfig:
    """A checked configuration of a digest, of whatever way it goes."""

    timezone: str = "UTC"
    schedule_time: str = "09:00"
    enabled: bool = True
    include_llm_summary: bool = False
    max_lines: int = 40
    include_cost_estimates: bool = True
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
        return {
            name: str(value) if isinstance(value, UUID) else value
            for name, value in asdict(self).items()
        }

    def missing(self) -> tuple[str, ...]:
        """Options without which nothing can be sent."""
        raise NotImplementedError


def checked(
    kind: type[AnyConfig], config: Mapping[str, Any], checks: Mapping[str, Check]
) -> AnyConfig:
    """The typed configuration of a mapping that the manifest's schema has accepted.

    ``checks`` are the package's own, by option. Raises InvalidError with every error found, its
    pointers relative to ``config``.
    """
    values = dict(config)
    errors: list[dict[str, Any]] = []
    for name, check in {**_CHECKS, **checks}.items():
        if values.get(name) is None:
            continue
        try:
            values[name] = check(values[name])
        except InvalidError as error:
            errors.append({"pointer": f"/{name}", "detail": error.detail})
    if errors:
        raise InvalidError(errors[0]["detail"], errors=errors)
    return kind(**values)


def credential(value: str) -> UUID:
    """The id of a credential."""
    try:
        return UUID(value)
    except ValueError as error:
        raise InvalidError("Must be the id of a credential, a UUID.") from error


def _timezone(value: str) -> str:
    return validate_zone(value).key


def _schedule_time(value: str) -> str:
    return parse_time_of_day(value).strftime("%H:%M")


_CHECKS: Mapping[str, Check] = {"timezone": _timezone, "schedule_time": _schedule_time}
