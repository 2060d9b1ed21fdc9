"""Words and figures of the digest: the same on every machine, whatever its locale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Protocol
from urllib.parse import quote, urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from fleetprompt.outbound.transports.mattermost import code_span
from fleetprompt.schedules.local_time import Window

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Characters of a name that are shown.
NAME_LIMIT = 80
_URL_LIMIT = 300
_BARS = "▁▂▃▄▅▆▇█"
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Links:
    """Where the digest's figures lead: base addresses without a closing slash, None where unknown.

    ``correlation_id`` is the digest's own, the same for every rendering of one slot; ``tenant`` the
    slug in the names of asset partitions.
    """

    console: str | None = None
    dagster: str | None = None
    correlation_id: str | None = None
    tenant: str | None = None

    def timeline(self, correlation_id: str | None) -> str | None:
        """Everything under one correlation id."""
        return self._at(self.console, "/console/timeline/", correlation_id)

    def execution(self, execution_id: str | None) -> str | None:
        """One execution's page; what cannot be an execution's id is a story's."""
        page = "executions" if _is_id(execution_id) else "timeline"
        return self._at(self.console, f"/console/{page}/", execution_id)

    def executions(self, state: str, kind: str | None = None) -> str | None:
        """The executions of one state, and of one kind if asked."""
        return self._listed("executions", state=state, kind=kind)

    def signals(self, window: Window, type_: str | None = None) -> str | None:
        """The signals that happened in the window, of one type if asked."""
        since, until = _iso(window.start), _iso(window.end)
        return self._listed("signals", type=type_, since=since, until=until)

    def run(self, run_id: str | None) -> str | None:
        """The page of one Dagster run."""
        return self._at(self.dagster, "/runs/", run_id)

    def runs(self, status: str) -> str | None:
        """Dagster's runs of one status."""
        return f"{self.dagster}/runs?q%5B%5D=status%3A{status}" if self.dagster else None

    def directives(self, state: str | None = None, type_: str | None = None) -> str | None:
        """The directives of one state and type, or all."""
        return self._listed("directives", state=state, type=type_)

    def approvals(self) -> str | None:
        """What waits for people's word."""
        return f"{self.console}/console/approvals" if self.console else None

    def counts(self, window: Window) -> str | None:
        """The asset partition with the counts by type, of the UTC day that holds the window's middle."""
        middle = (window.start + window.length / 2).astimezone(UTC)
        key = f"{middle.date().isoformat()}|{self.tenant}" if self.tenant else None
        address = self._at(self.dagster, "/assets/daily_counts?partition=", key)
        return f"{address}&view=partitions" if address else None

    def _listed(self, page: str, **filters: str | None) -> str | None:
        """A page of the console with what it shows cut down by these filters; without them if too long."""
        if not self.console:
            return None
        given = {name: value for name, value in filters.items() if value}
        query = urlencode(given, quote_via=quote, safe="", errors="replace")
        base = f"{self.console}/console/{page}"
        return f"{base}?{query}" if query and len(base) + len(query) < _URL_LIMIT else base

    @staticmethod
    def _at(base: str | None, path: str, name: str | None) -> str | None:
        # Percent-encoded whole: nothing of a producer's text is Markdown or a mention in an address.
        if not base or not name:
            return None
        address = f"{base}{path}{quote(name, safe='', errors='replace')}"
        return address if len(address) <= _URL_LIMIT else None


def _is_id(text: str | None) -> bool:
    try:
        return str(UUID(text or "")) == text
    except ValueError:
        return False


def _iso(instant: datetime) -> str:
    """``2026-03-07T14:00:00Z``."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Group(Protocol):
    """A listed group, or the one that stands for the rest (``name`` None)."""

    @property
    def name(self) -> str | None: ...
    @property
    def count(self) -> int: ...
    @property
    def names(self) -> int: ...


def code(text: str) -> str:
    """Somebody else's text as a code span, shortened."""
    return code_span(text, NAME_LIMIT)


def link(label: str, address: str | None) -> str:
    """``label``, which must be our own words, leading to ``address`` if there is one."""
    return f"[{label}]({address})" if address else label


def number(value: int) -> str:
    """``1,234``."""
    return f"{value:,}"


def many(value: int, one: str, more: str | None = None) -> str:
    """``1 error``, ``2 errors``."""
    return f"{number(value)} {one if value == 1 else more or one + 's'}"


def delta(now: int, before: int | None, usual: Fraction | None = None) -> str:
    """How much more or less than in the window before, and what is usual, with a space in front.

    ``(+26, usually 4)``; nothing where nothing differs.
    """
    parts = []
    if before is not None and now != before:
        parts.append(f"{'+' if now > before else '−'}{number(abs(now - before))}")
    if usual is not None and usual != now:
        parts.append(f"usually {amount(usual)}")
    return f" ({', '.join(parts)})" if parts else ""


def amount(value: Fraction) -> str:
    """A count, or the middle between two: ``1,234`` or ``12.5``."""
    whole, half = divmod(round(2 * value), 2)
    return f"{whole:,}{'.5' if half else ''}"


def money(value: Decimal) -> str:
    """US dollars to the cent."""
    return "<$0.01" if 0 < value < Decimal("0.005") else f"${value:,.2f}"


def money_of(value: Fraction) -> str:
    """The same of an exact fraction."""
    return money(Decimal(value.numerator) / Decimal(value.denominator))


def money_delta(now: Decimal, before: Decimal | None, usual: Fraction | None = None) -> str:
    """The change of cost, where it is a cent or more, and what is usual."""
    parts = []
    if before is not None and abs(now - before) >= _CENT / 2:
        parts.append(f"{'+' if now > before else '−'}{money(abs(now - before))}")
    if usual is not None and abs(Fraction(now) - usual) >= Fraction(_CENT / 2):
        parts.append(f"usually {money_of(usual)}")
    return f" ({', '.join(parts)})" if parts else ""


def sparkline(values: Sequence[Fraction]) -> str:
    """One bar for each value, from nothing to the greatest: ``▁▁▂▁▁█``."""
    greatest = max(values, default=Fraction(0))
    if not greatest:
        return _BARS[0] * len(values)
    return "".join(_BARS[ceil(value * (len(_BARS) - 1) / greatest)] for value in values)


def listing(
    groups: Sequence[Group], most: int, address: Callable[[str], str | None] = lambda _: None
) -> str:
    """The first ``most`` named groups with their counts, and exactly how much is left out.

    ``address`` is where a named group's count leads. A group that is all there is goes without its count:
    that stands before the list.
    """
    if len(groups) == 1 and groups[0].name is not None:
        return code(groups[0].name or "unnamed")
    named = [group for group in groups if group.name is not None][:most]
    parts = [
        f"{code(group.name or 'unnamed')} {link(number(group.count), address(group.name or ''))}"
        for group in named
    ]
    rest = [group for group in groups if group.name is None or group not in named]
    if rest:
        parts.append(more(rest))
    return ", ".join(parts)


def more(rest: Sequence[Group]) -> str:
    """``+3 more (sum 9)``: how many groups are not shown and what they add up to."""
    names = number(sum(group.names for group in rest))
    return f"+{names} more (sum {number(sum(group.count for group in rest))})"


def day(instant: datetime, zone: ZoneInfo, *, year: bool = False) -> str:
    """``Sun 8 Mar``, with the year if asked."""
    shown = instant.astimezone(zone)
    date = f"{_DAYS[shown.weekday()]} {shown.day} {_MONTHS[shown.month - 1]}"
    return f"{date} {shown.year}" if year else date


def clock(instant: datetime, zone: ZoneInfo) -> str:
    """``09:00``."""
    shown = instant.astimezone(zone)
    return f"{shown.hour:02}:{shown.minute:02}"


def span(window: Window, zone: ZoneInfo) -> str:
    """The window in local time, in UTC, and its true length."""
    start, end = window.start.astimezone(zone), window.end.astimezone(zone)
    local = (
        f"{day(start, zone)} {clock(start, zone)} → {day(end, zone)} {clock(end, zone)} {zone.key}"
    )
    parts = [local]
    if start.utcoffset() or end.utcoffset() or zone.key != "UTC":
        utc = ZoneInfo("UTC")
        first, last = window.start.astimezone(utc), window.end.astimezone(utc)
        parts.append(
            f"{first.date().isoformat()} {clock(first, utc)} → "
            f"{last.date().isoformat()} {clock(last, utc)} UTC"
        )
    changed = start.utcoffset() != end.utcoffset()
    parts.append(length(window.length) + (", clock change" if changed else ""))
    return " · ".join(parts)


def length(value: timedelta) -> str:
    """``23 h``, ``24 h 30 min``."""
    minutes = int(value.total_seconds() // 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number(hours)} h"] if hours else []
    if minutes or not hours:
        parts.append(f"{minutes} min")
    return " ".join(parts)
