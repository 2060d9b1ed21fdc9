"""Which signals a replay is about, and reading them in the order in which they were stored."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import ColumnElement, and_, func, not_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.signals.envelope import RESERVED_SOURCES, RESERVED_TYPES
from fleetprompt.signals.models import Signal
from fleetprompt.signals.read import Filter
from fleetprompt.signals.replays.models import Replay

_MOST_NAMES = 50


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("NUL cannot be stored")
    return text


Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
TypePattern = Annotated[
    str,
    StringConstraints(max_length=128, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?$"),
    Field(description="A signal type, or a prefix such as `email.*`."),
]
SourceName = Annotated[
    str, StringConstraints(max_length=128, pattern=r"^[a-z0-9_.-]+(:[a-z0-9_.-]+)*$")
]
Identifier = Annotated[
    str, StringConstraints(min_length=1, max_length=256), AfterValidator(_storable)
]
Slug = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9_]+$")]


class Selection(BaseModel):
    """Which signals: all conditions together; a half-open range of either time, or of both.

    `occurred_…` is when it happened, as the producer says; `inserted_…` is when it was stored here.
    With `package`, only that package's handlers are asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    occurred_from: Instant | None = None
    occurred_before: Instant | None = None
    inserted_from: Instant | None = None
    inserted_before: Instant | None = None
    types: Annotated[tuple[TypePattern, ...], Field(max_length=_MOST_NAMES)] = ()
    sources: Annotated[tuple[SourceName, ...], Field(max_length=_MOST_NAMES)] = ()
    subject_type: Identifier | None = None
    subject_id: Identifier | None = None
    correlation_id: Identifier | None = None
    package: Slug | None = None

    def faults(self, packages: Iterable[str]) -> list[dict[str, str]]:
        """What cannot be meant, as pointers and sentences; ``packages`` are those that exist."""
        found: list[dict[str, str]] = []
        if self.occurred_from is None and self.inserted_from is None:
            detail = "a replay needs a start: this, or inserted_from"
            found.append({"pointer": "/occurred_from", "detail": detail})
        for name in ("occurred", "inserted"):
            start, end = getattr(self, f"{name}_from"), getattr(self, f"{name}_before")
            if end is not None and start is not None and end <= start:
                found.append({"pointer": f"/{name}_before", "detail": f"must be after {name}_from"})
        for number, type_ in enumerate(self.types):
            if f"{type_.removesuffix('*').removesuffix('.')}.".startswith(RESERVED_TYPES):
                found.append({"pointer": f"/types/{number}", "detail": _NEVER_SHOWN})
        for number, source in enumerate(self.sources):
            if source.startswith(RESERVED_SOURCES):
                found.append({"pointer": f"/sources/{number}", "detail": _NEVER_SHOWN})
        if self.package is not None and self.package not in packages:
            found.append({"pointer": "/package", "detail": "there is no such package"})
        return found

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL. What the platform itself writes is left out: ingest shows it to no handler."""
        found = Filter(
            subject_type=self.subject_type,
            subject_id=self.subject_id,
            correlation_id=self.correlation_id,
            occurred_from=self.occurred_from,
            occurred_before=self.occurred_before,
        ).conditions()
        if self.inserted_from is not None:
            found.append(Signal.inserted_at >= self.inserted_from)
        if self.inserted_before is not None:
            found.append(Signal.inserted_at < self.inserted_before)
        if self.types:
            found.append(or_(*(and_(*Filter(type=one).conditions()) for one in self.types)))
        if self.sources:
            found.append(Signal.source.in_(self.sources))
        found += [not_(Signal.source.startswith(prefix)) for prefix in RESERVED_SOURCES]
        return found

    def as_json(self) -> dict[str, Any]:
        """What was set, as it is stored and shown."""
        return self.model_dump(mode="json", exclude_defaults=True)


_NEVER_SHOWN = "is the platform's own, which no handler is shown"


async def measure(session: AsyncSession, replay: Replay, selection: Selection) -> tuple[int, int]:
    """How many signals are selected, and the lowest transaction id among them (0 without any)."""
    row = (
        await session.execute(
            select(func.count(), func.min(Signal.txid)).where(
                Signal.txid < replay.before_txid, *selection.conditions()
            )
        )
    ).one()
    return row[0], row[1] or 0


async def read_on(
    session: AsyncSession, replay: Replay, selection: Selection, *, limit: int
) -> Sequence[Signal]:
    """The next signals behind the replay's cursor, among those stored when it was asked for."""
    return list(
        await session.scalars(
            select(Signal)
            .where(
                # The first condition is what the index serves; the second is what is meant.
                Signal.txid >= replay.cursor_txid,
                tuple_(Signal.txid, Signal.id) > tuple_(replay.cursor_txid, replay.cursor_id),
                Signal.txid < replay.before_txid,
                *selection.conditions(),
            )
            .order_by(Signal.txid, Signal.id)
            .limit(limit)
        )
    )
