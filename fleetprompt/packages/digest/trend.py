"""How a window compares with the week before it: what is unusual, what went away, and its course."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.facts import DigestFacts
from fleetprompt.packages.digest.history import Usual, last_week, usual
from fleetprompt.packages.digest.wording import Links

_SHOWN = 3
# Bars of fewer windows tell nothing that the changes do not.
_FEWEST_BARS = 3
_FEW = Fraction(3)
_FEW_CENTS = Fraction(5, 100)


@dataclass(frozen=True, slots=True)
class Measure:
    """A total that is watched: how it is told, and the least distance that is worth a word."""

    total: str
    tell: Callable[[Fraction], str]
    plain: Callable[[Fraction], str] = wording.amount
    least: Fraction = _FEW


@dataclass(frozen=True, slots=True)
class Unusual:
    """A total far from what it usually is."""

    measure: Measure
    value: Fraction
    usual: Usual

    @property
    def low(self) -> bool:
        """Whether it is less than usual."""
        return self.value < self.usual.median

    def sentence(self) -> str:
        """``30 errors (usually 4, from 2 to 6)``."""
        plain, known = self.measure.plain, self.usual
        span = f"from {plain(known.low)} to {plain(known.high)}"
        if known.low == known.high:
            span = "every day"
        return f"{self.measure.tell(self.value)} (usually {plain(known.median)}, {span})"


def _counted(one: str, more: str | None = None) -> Callable[[Fraction], str]:
    return lambda value: wording.many(int(value), one, more)


# Worst first.
_MEASURES = (
    Measure("errors", _counted("error")),
    Measure("packages_failed", _counted("failed package change")),
    Measure("directives_failed", _counted("failed directive")),
    Measure("executions_failed", _counted("failed execution")),
    Measure("runs_failed", _counted("failed workflow run")),
    Measure(
        "cost_usd",
        lambda value: f"{wording.money_of(value)} of cost",
        wording.money_of,
        _FEW_CENTS,
    ),
    Measure("mails_received", _counted("mail received", "mails received")),
    Measure("chat_messages", _counted("chat message")),
    Measure("executions_completed", _counted("completed execution")),
    Measure("directives_succeeded", _counted("directive succeeded", "directives succeeded")),
)
_COURSES = {
    "errors": "errors",
    "signals": "signals",
    "executions_completed": "executions",
    "cost_usd": "cost",
    "mails_received": "mails",
    "chat_messages": "chat",
    "directives_succeeded": "directives",
}
# More rows of bars than this are no longer looked at.
_MOST_COURSES = 4


@dataclass(frozen=True, slots=True)
class Trend:
    """One window beside its week; ``with_cost`` is whether cost is told of."""

    facts: DigestFacts
    with_cost: bool = True

    def usual(self, total: str) -> Usual | None:
        """What is usual of this total."""
        week = last_week(self.facts.window, self.facts.before)
        return usual([past.totals.value(total) for past in week])

    def median(self, total: str) -> Fraction | None:
        """The middle of the week's values."""
        known = self.usual(total)
        return known.median if known else None

    def delta(self, total: str) -> str:
        """How a count differs from the window before, and from what is usual."""
        before = self.facts.previous
        return wording.delta(
            getattr(self.facts.totals, total),
            getattr(before, total) if before else None,
            self.median(total),
        )

    def unusual(self) -> Iterator[Unusual]:
        """The totals that are far from what they usually are, worst first."""
        for measure in _MEASURES:
            if measure.total == "cost_usd" and not self.with_cost:
                continue
            known, value = self.usual(measure.total), self.facts.totals.value(measure.total)
            if known is not None and known.is_unusual(value, measure.least):
                yield Unusual(measure, value, known)

    def unusual_line(self) -> str | None:
        """All that is unusual, the worst of it by name."""
        found = list(self.unusual())
        if not found:
            return None
        parts = [one.sentence() for one in found[:_SHOWN]]
        if len(found) > _SHOWN:
            parts.append(f"+{len(found) - _SHOWN} more")
        return f"**Unusual** · {' · '.join(parts)}"

    def gone_line(self, links: Links) -> str | None:
        """The errors of the window before that did not come again."""
        gone = self.facts.gone()
        if not gone:
            return None
        parts = []
        for seen in gone[:_SHOWN]:
            what = f" {wording.code(seen.what)}" if seen.what else ""
            times = wording.link(wording.number(seen.count), links.timeline(seen.lead))
            parts.append(f"{wording.code(seen.name)}{what} {times}")
        if len(gone) > _SHOWN:
            rest = gone[_SHOWN:]
            parts.append(f"+{len(rest)} more (sum {wording.number(sum(s.count for s in rest))})")
        return f"**Gone since the window before** · {', '.join(parts)}"

    def course_line(self) -> str | None:
        """A week and this window as bars, each total from nothing to its greatest."""
        week = last_week(self.facts.window, self.facts.before)
        told = [past.totals for past in week] + [self.facts.totals]
        if len(told) < _FEWEST_BARS:
            return None
        parts = []
        for total, label in _COURSES.items():
            bars = wording.sparkline([one.value(total) for one in told])
            # What went on evenly needs no picture.
            if len(set(bars)) > 1 and (total != "cost_usd" or self.with_cost):
                parts.append(f"{label} {bars}")
        if not parts:
            return None
        shown = " · ".join(parts[:_MOST_COURSES])
        return f"**Course** of {len(told)} digests, this one last · {shown}"
