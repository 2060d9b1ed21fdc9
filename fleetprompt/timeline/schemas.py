"""A timeline as it is answered."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

# In the order in which entries of one moment stand: what was told, asked for, allowed, done.
Kind = Literal[
    "replay", "signal", "directive", "transition", "approval", "execution", "log", "message", "run"
]


class Entry(BaseModel):
    """One thing that happened. ``at`` is in UTC.

    ``detail`` always names the entry's own ``correlation_id``; its other members depend on the kind.
    An execution and a message have an entry for each of their moments, under one id.
    """

    at: datetime
    kind: Kind
    id: str
    title: str
    detail: dict[str, Any]
    links: dict[str, str] = Field(default_factory=dict)

    @field_validator("at", mode="after")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)


class LeftOut(BaseModel):
    """What the limits kept out of the answer; ``exact`` is false where there may be even more."""

    entries: int = 0
    correlation_ids: int = 0
    exact: bool = True


class Timeline(BaseModel):
    """Everything of one correlation id and of its causes and consequences, the earliest first.

    ``correlation_id`` is the one that was asked for, or that of the object whose id was given; null
    when that object has none. ``correlation_ids`` are all that the answer covers.
    """

    asked: str
    correlation_id: str | None
    correlation_ids: list[str]
    entries: list[Entry]
    more: LeftOut
