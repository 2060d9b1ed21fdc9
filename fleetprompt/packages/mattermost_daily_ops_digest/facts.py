"""What a digest says of a window, as values: no database, no text.

Rows arrive grouped and ranked (``collect.py``); equal groups are merged here and everything is put
in a fixed order, so that the same signals make equal facts whatever the order of their rows. A row
whose ``name`` is None stands for all groups of its kind beyond those listed: ``names`` of them,
``count`` in sum. Totals are therefore exact however many groups there are.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, Literal, Self

from fleetprompt.schedules.local_time import Window

Family = Literal["package", "directive", "execution", "run"]

FAILED_STATES = frozenset({"failed", "unknown"})


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Signals of one type. ``told`` types are those that outcomes already tell of."""

    name: str | None
    count: int
    told: bool
    names: int = 1
    late: int = 0
    earliest_late: datetime | None = None
    own: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of one family and name reached a state.

    ``name`` is a package, directive type, kind of execution or Dagster job (empty where the signal
    names none); ``state`` of a package is ``install.completed`` and the like.
    """

    family: Family
    state: str
    name: str | None
    count: int
    names: int = 1

    @property
    def failed(self) -> bool:
        """Whether somebody should look: an unknown outcome counts as failed."""
        return self.state in FAILED_STATES or self.state.endswith(".failed")


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failures of one signal type, subject and error kind; the sample is the latest of them."""

    name: str | None
    what: str
    kind: str
    count: int
    first: datetime
    last: datetime
    names: int = 1
    message: str = ""
    correlation_id: str | None = None
    execution_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the executions reported; None where none of them did. Cost in US dollars."""

    cost_usd: Decimal | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers that are compared with the previous window's, and stored for the next."""

    signals: int = 0
    errors: int = 0
    packages_changed: int = 0
    packages_failed: int = 0
    directives_succeeded: int = 0
    directives_failed: int = 0
    executions_completed: int = 0
    executions_failed: int = 0
    runs_completed: int = 0
    runs_failed: int = 0
    cost_usd: Decimal | None = None

    def as_json(self) -> dict[str, Any]:
        """For storing; the cost as a decimal string."""
        stored = asdict(self)
        stored["cost_usd"] = None if self.cost_usd is None else str(self.cost_usd)
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """What ``as_json`` wrote; names that are not totals are passed over."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        if values.get("cost_usd") is not None:
            values["cost_usd"] = Decimal(values["cost_usd"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class DigestFacts:
    """Everything that a digest says of one window.

    ``signals`` counts each signal of the window once, ``late`` of them with ``occurred_at`` before
    the window's start; ``own`` of them were made by the digest itself.
    """

    window: Window
    signals: int
    own: int
    late: int
    earliest_late: datetime | None
    types: tuple[TypeCount, ...]
    outcomes: tuple[Outcome, ...]
    errors: tuple[ErrorGroup, ...]
    usage: Usage
    totals: Totals
    previous: Totals | None

    @property
    def empty(self) -> bool:
        """Whether nothing happened but the digest itself."""
        return self.signals == self.own and not self.outcomes and not self.errors

    def count(self, family: Family, *states: str) -> int:
        """How many of that family reached one of those states."""
        return sum(o.count for o in self.outcomes if o.family == family and o.state in states)

    def failed(self, family: Family) -> int:
        """How many of that family failed or have an unknown outcome."""
        return sum(o.count for o in self.outcomes if o.family == family and o.failed)


def facts_from_rows(
    window: Window,
    *,
    types: Iterable[TypeCount] = (),
    outcomes: Iterable[Outcome] = (),
    errors: Iterable[ErrorGroup] = (),
    usage: Usage | None = None,
    previous: Totals | None = None,
) -> DigestFacts:
    """The facts of a window from grouped rows, in whatever order they come."""
    merged_types = _merged_types(types)
    merged_outcomes = _merged_outcomes(outcomes)
    merged_errors = _merged_errors(errors)
    used = usage or Usage()
    late_since = [t.earliest_late for t in merged_types if t.earliest_late is not None]
    return DigestFacts(
        window=window,
        signals=sum(t.count for t in merged_types),
        own=sum(t.own for t in merged_types),
        late=sum(t.late for t in merged_types),
        earliest_late=min(late_since, default=None),
        types=merged_types,
        outcomes=merged_outcomes,
        errors=merged_errors,
        usage=used,
        totals=totals_of(merged_types, merged_outcomes, merged_errors, used),
        previous=previous,
    )


def totals_of(
    types: Iterable[TypeCount],
    outcomes: Iterable[Outcome],
    errors: Iterable[ErrorGroup],
    usage: Usage,
) -> Totals:
    """The numbers to compare windows by."""
    rows = tuple(outcomes)

    def ended(family: Family, *, failed: bool, state: str = "") -> int:
        return sum(
            row.count
            for row in rows
            if row.family == family and row.failed is failed and row.state.endswith(state)
        )

    return Totals(
        signals=sum(row.count for row in types),
        errors=sum(row.count for row in errors),
        packages_changed=ended("package", failed=False, state="completed"),
        packages_failed=ended("package", failed=True),
        directives_succeeded=ended("directive", failed=False, state="succeeded"),
        directives_failed=ended("directive", failed=True),
        executions_completed=ended("execution", failed=False, state="completed"),
        executions_failed=ended("execution", failed=True),
        runs_completed=ended("run", failed=False, state="completed"),
        runs_failed=ended("run", failed=True),
        cost_usd=usage.cost_usd,
    )


# Named groups by falling count, then by name; what stands for the rest comes last.


def _merged_types(rows: Iterable[TypeCount]) -> tuple[TypeCount, ...]:
    def key(row: TypeCount) -> tuple[bool, bool, str]:
        return (row.told, row.name is None, row.name or "")

    merged = []
    for _, group in groupby(sorted(rows, key=key), key):
        same = list(group)
        since = [row.earliest_late for row in same if row.earliest_late is not None]
        merged.append(
            replace(
                same[0],
                count=sum(row.count for row in same),
                names=1 if same[0].name is not None else sum(row.names for row in same),
                late=sum(row.late for row in same),
                earliest_late=min(since, default=None),
                own=sum(row.own for row in same),
            )
        )
    return tuple(sorted(merged, key=lambda row: (row.name is None, -row.count, *key(row))))


def _merged_outcomes(rows: Iterable[Outcome]) -> tuple[Outcome, ...]:
    def key(row: Outcome) -> tuple[str, str, bool, str]:
        return (row.family, row.state, row.name is None, row.name or "")

    merged = []
    for _, group in groupby(sorted(rows, key=key), key):
        same = list(group)
        names = 1 if same[0].name is not None else sum(row.names for row in same)
        merged.append(replace(same[0], count=sum(row.count for row in same), names=names))
    return tuple(sorted(merged, key=lambda row: (row.name is None, -row.count, *key(row))))


def _merged_errors(rows: Iterable[ErrorGroup]) -> tuple[ErrorGroup, ...]:
    def key(row: ErrorGroup) -> tuple[bool, str, str, str]:
        return (row.name is None, row.name or "", row.what, row.kind)

    def newest(row: ErrorGroup) -> tuple[datetime, str, str, str, str]:
        ids = (row.correlation_id or "", row.execution_id or "", row.run_id or "")
        return (row.last, row.message, *ids)

    merged = []
    for _, group in groupby(sorted(rows, key=key), key):
        same = list(group)
        merged.append(
            replace(
                max(same, key=newest),
                count=sum(row.count for row in same),
                first=min(row.first for row in same),
                names=1 if same[0].name is not None else sum(row.names for row in same),
            )
        )
    return tuple(sorted(merged, key=lambda row: (row.name is None, -row.count, *key(row))))
