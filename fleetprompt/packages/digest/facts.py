"""What a digest says of a window, as values: no database, no text.

Equal groups of rows are merged and everything is put in a fixed order, so that the same signals
make equal facts whatever the order of their rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fleetprompt.packages.digest.history import Past, SeenError, Totals
from fleetprompt.packages.digest.rows import (
    CHAT_MESSAGE,
    MAIL_RECEIVED,
    ErrorGroup,
    Family,
    Outcome,
    TypeCount,
    Usage,
    Waiting,
    merged_errors,
    merged_outcomes,
    merged_types,
    merged_waiting,
)
from fleetprompt.schedules.local_time import Window


@dataclass(frozen=True, slots=True)
class DigestFacts:
    """Everything that a digest says of one window.

    ``signals`` counts each signal of the window once, ``late`` of them with ``occurred_at`` before
    the window's start; ``own`` of them were made by the digest itself. ``before`` are the earlier
    windows that are known, oldest first.
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
    waiting: tuple[Waiting, ...]
    before: tuple[Past, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing happened but the digest itself, and nothing waits."""
        happened = self.outcomes or self.errors or self.waiting
        return self.signals == self.own and not happened

    @property
    def window_before(self) -> Past | None:
        """The window that this one continues."""
        last = self.before[-1] if self.before else None
        return last if last is not None and last.window.end == self.window.start else None

    @property
    def previous(self) -> Totals | None:
        """The totals of the window before."""
        return self.window_before.totals if self.window_before else None

    @property
    def all_errors_listed(self) -> bool:
        """Whether no group of errors is hidden in a sum."""
        return all(group.name is not None for group in self.errors)

    def is_new(self, group: ErrorGroup) -> bool:
        """Whether no earlier window that is known had this error; False where that is not known."""
        last = self.window_before
        if last is None or last.errors is None or group.name is None:
            return False
        seen = (seen for past in self.before for seen in past.errors or ())
        return all(one.fingerprint != group.fingerprint for one in seen)

    def gone(self) -> tuple[SeenError, ...]:
        """The errors of the window before that did not come again, most first."""
        last = self.window_before
        if last is None or not self.all_errors_listed:
            return ()
        now = {group.fingerprint for group in self.errors}
        absent = [seen for seen in last.errors or () if seen.fingerprint not in now]
        return tuple(sorted(absent, key=lambda seen: (-seen.count, seen.fingerprint)))

    def as_past(self) -> Past:
        """What the digests that follow are told of this window."""
        seen = tuple(
            SeenError(
                *group.fingerprint,
                group.count,
                group.last,
                group.correlation_id or group.execution_id,
            )
            for group in self.errors
        )
        return Past(self.window, self.totals, seen if self.all_errors_listed else None)

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
    waiting: Iterable[Waiting] = (),
    before: Iterable[Past] = (),
) -> DigestFacts:
    """The facts of a window from grouped rows, in whatever order they come."""
    by_type, ended, failures = merged_types(types), merged_outcomes(outcomes), merged_errors(errors)
    used = usage or Usage()
    late_since = [t.earliest_late for t in by_type if t.earliest_late is not None]
    return DigestFacts(
        window=window,
        signals=sum(t.count for t in by_type),
        own=sum(t.own for t in by_type),
        late=sum(t.late for t in by_type),
        earliest_late=min(late_since, default=None),
        types=by_type,
        outcomes=ended,
        errors=failures,
        usage=used,
        totals=totals_of(by_type, ended, failures, used),
        waiting=merged_waiting(waiting),
        before=tuple(sorted(before, key=lambda past: past.window.end)),
    )


def totals_of(
    types: Iterable[TypeCount],
    outcomes: Iterable[Outcome],
    errors: Iterable[ErrorGroup],
    usage: Usage,
) -> Totals:
    """The numbers to compare windows by."""
    rows, counted = tuple(outcomes), tuple(types)

    def of_type(name: str) -> int:
        return sum(row.count for row in counted if row.name == name)

    def ended(family: Family, *, failed: bool, state: str = "") -> int:
        return sum(
            row.count
            for row in rows
            if row.family == family and row.failed is failed and row.state.endswith(state)
        )

    return Totals(
        signals=sum(row.count for row in counted),
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
        mails_received=of_type(MAIL_RECEIVED),
        chat_messages=of_type(CHAT_MESSAGE),
    )
