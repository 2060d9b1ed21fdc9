"""What a tenant may set of a site: texts, look, hours, consent, limits."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

Language = Literal["ar", "de", "en", "es", "fr", "ja"]
Wanted = Literal["off", "optional", "required"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _plain(text: str) -> str:
    if any(ord(char) < 32 and char != "\n" for char in text):
        raise ValueError("holds control characters")
    return text


def _web_address(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError("an http or https address")
    return url


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("a time zone such as Europe/Berlin") from None
    return name


Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_plain)]
Passage = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_plain)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
PropertyKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Link = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_web_address)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Theme(_Part):
    """``accent`` as ``#rrggbb``; what is written on it is chosen for its contrast."""

    accent: Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")] = "#1f5eff"
    scheme: Literal["auto", "light", "dark"] = "auto"
    side: Literal["end", "start"] = "end"


class Consent(_Part):
    """What a visitor agrees to before anything is stored; a new ``version`` is asked for again."""

    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    text: Passage
    link: Link | None = None


class Hours(_Part):
    """When somebody answers: spans of local time by weekday; ``24:00`` is the end of a day."""

    zone: Annotated[str, AfterValidator(_zone)]
    week: dict[Weekday, Annotated[list[tuple[Clock, Clock]], Field(max_length=8)]]
    text: Line | None = None
    away: Line | None = None

    @model_validator(mode="after")
    def _forward(self) -> "Hours":
        for spans in self.week.values():
            if any(start >= end for start, end in spans):
                raise ValueError("a span ends after it starts, on the same day")
        return self


class Prechat(_Part):
    """What is asked for with the first message."""

    name: Wanted = "off"
    email: Wanted = "off"


class Texts(_Part):
    """A site's texts in one more language; what is missing is shown in the site's own."""

    title: Line | None = None
    greeting: Passage | None = None
    consent: Passage | None = None
    open: Line | None = None
    away: Line | None = None


class Limits(_Part):
    """How much may come from where. Beyond the free sessions and messages of one network, work is asked."""

    bootstraps_per_address_minute: int = Field(default=600, ge=1)
    sessions_per_address_hour: int = Field(default=300, ge=1)
    free_sessions_per_address_hour: int = Field(default=10, ge=0)
    sessions_per_site_minute: int = Field(default=120, ge=1)
    messages_per_conversation_minute: int = Field(default=20, ge=1)
    messages_per_visitor_minute: int = Field(default=30, ge=1)
    messages_per_address_minute: int = Field(default=600, ge=1)
    free_messages_per_address_minute: int = Field(default=120, ge=0)
    messages_per_site_minute: int = Field(default=1200, ge=1)
    changes_per_visitor_minute: int = Field(default=60, ge=1)


class Notify(_Part):
    """Post the first message of each conversation with this installation's Mattermost connection."""

    installation_id: UUID
    channel: Line | None = None


class SiteSettings(_Part):
    """Everything that may be set of a site; each part has a default."""

    title: Line | None = None
    greeting: Passage | None = None
    language: Language = "en"
    texts: dict[Language, Texts] = Field(default_factory=dict)
    hours: Hours | None = None
    theme: Theme = Theme()
    consent: Consent | None = None
    prechat: Prechat = Prechat()
    ask_contact: bool = True
    rating: bool = True
    token_seconds: int = Field(default=900, ge=60, le=900)
    limits: Limits = Limits()
    content_in_signals: bool = Field(
        default=True, description="Whether signals hold what visitors write and who they are."
    )
    notify: Notify | None = None
    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="Days after which conversations are erased; null for the tenant's own term.",
    )
    charla_property_key: PropertyKey | None = None


_HEX = re.compile(r"#(..)(..)(..)")


def text_colour_on(accent: str) -> str:
    """White or black, whichever stands out more (WCAG 2.2 §1.4.3); one of them has 4.5:1 at least."""
    found = _HEX.fullmatch(accent)
    if found is None:
        raise ValueError("a colour is #rrggbb")
    red, green, blue = (_linear(int(part, 16) / 255) for part in found.groups())
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
