"""Grouped rows of a window, and how equal groups become one.

Rows arrive grouped and ranked (``collect.py``). A row whose ``name`` is None stands for all groups
of its kind beyond those listed: ``names`` of them, ``count`` in sum. Totals are therefore exact
however many groups there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Literal

Family = Literal["package", "directive", "execution", "run"]

MAIL_RECEIVED = "email.inbound.received"
CHAT_MESSAGE = "webchat.message.received"
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

    @property
    def fingerprint(self) -> tuple[str, str, str]:
        """What makes two groups of different windows the same error."""
        return (self.name or "", self.what, self.kind)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the executions reported; None where none of them did. Cost in US dollars."""

    cost_usd: Decimal | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Directives of one type that waited for people's word when the window ended."""

    name: str
    count: int
    since: datetime
    expires: datetime
    names: int = 1


# Named groups by falling count, then by name; what stands for the rest comes last.


def merged_types(rows: Iterable[TypeCount]) -> tuple[TypeCount, ...]:
    """Equal types as one."""

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


def merged_outcomes(rows: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Equal families, states and names as one."""

    def key(row: Outcome) -> tuple[str, str, bool, str]:
        return (row.family, row.state, row.name is None, row.name or "")

    merged = []
    for _, group in groupby(sorted(rows, key=key), key):
        same = list(group)
        names = 1 if same[0].name is not None else sum(row.names for row in same)
        merged.append(replace(same[0], count=sum(row.count for row in same), names=names))
    return tuple(sorted(merged, key=lambda row: (row.name is None, -row.count, *key(row))))


def merged_errors(rows: Iterable[ErrorGroup]) -> tuple[ErrorGroup, ...]:
    """Equal fingerprints as one; its sample is the latest."""

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


def merged_waiting(rows: Iterable[Waiting]) -> tuple[Waiting, ...]:
    """Equal types as one; the oldest and the first to lapse of them."""

    def name(row: Waiting) -> str:
        return row.name

    merged = []
    for _, group in groupby(sorted(rows, key=name), name):
        same = list(group)
        merged.append(
            replace(
                same[0],
                count=sum(row.count for row in same),
                since=min(row.since for row in same),
                expires=min(row.expires for row in same),
            )
        )
    return tuple(sorted(merged, key=lambda row: (-row.count, row.name)))
