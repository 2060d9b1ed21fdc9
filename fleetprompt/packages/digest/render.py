"""The digest's text: Markdown for Mattermost, a pure function of the facts.

Worst first: what failed and what to do about it stands on top; whatever went well is one line. The
text never has more than ``max_lines`` lines or LIMIT characters; it is cut at whole lines, and what
is left out is counted exactly. Every text that is not ours goes through the escaping of
``fleetprompt.outbound.transports.mattermost``, so that nothing in it is a mention or markup.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any, Self
from zoneinfo import ZoneInfo

from fleetprompt.outbound.transports.mattermost import plain, table_cell
from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.advice import advice, lead
from fleetprompt.packages.digest.config import DigestConfig
from fleetprompt.packages.digest.delivery_record import DeliveryRecord
from fleetprompt.packages.digest.facts import DigestFacts
from fleetprompt.packages.digest.families import TITLES, Families
from fleetprompt.packages.digest.surfaces import others, surface_lines
from fleetprompt.packages.digest.trend import Trend
from fleetprompt.packages.digest.wording import NAME_LIMIT, Links
from fleetprompt.schedules.local_time import Window

# Mattermost splits at 16,383 characters, in the middle of a line; stay well below.
LIMIT = 15_000
_MESSAGE_LIMIT = 120
# Characters of a language model's summary; a longer one is not taken.
SUMMARY_LIMIT = 400
_KINDS = frozenset({"auth", "network", "rate_limit", "validation", "unknown"})


@dataclass(frozen=True, slots=True)
class DigestText:
    """A rendered digest. ``counts`` are the totals that it states; ``sha256`` is of its UTF-8."""

    text: str
    line_count: int
    sha256: str
    counts: Mapping[str, int]
    empty: bool
    failing: bool

    def as_json(self) -> dict[str, Any]:
        """For storing, so that a later attempt posts the same bytes."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` wrote; other names are passed over."""
        return cls(**{field.name: stored[field.name] for field in fields(cls)})


def render(
    facts: DigestFacts,
    config: DigestConfig,
    window: Window,
    zone: ZoneInfo,
    tenant_name: str,
    links: Links,
    record: DeliveryRecord | None = None,
    summary: str | None = None,
    last_told: datetime | None = None,
) -> DigestText:
    """The text for these facts: equal arguments, equal bytes.

    ``summary`` is a language model's, already held against the facts (``summary.py``). ``last_told`` is
    where the digest before ended, if this window does not continue it.
    """
    tenant = plain(tenant_name, NAME_LIMIT)
    told = plain(summary, SUMMARY_LIMIT) if summary else None
    delivered = record or DeliveryRecord()
    writer = _Writer(facts, config, window, zone, tenant, links, delivered, told, last_told)
    lines = next(found for found in writer.layouts() if _fits(found, config.max_lines))
    text = "\n".join(lines)
    totals = facts.totals
    return DigestText(
        text=text,
        line_count=len(lines),
        sha256=sha256(text.encode()).hexdigest(),
        counts={
            "signals": totals.signals,
            "late": facts.late,
            "errors": totals.errors,
            "packages_failed": totals.packages_failed,
            "directives_failed": totals.directives_failed,
            "executions_completed": totals.executions_completed,
            "executions_failed": totals.executions_failed,
            "runs_failed": totals.runs_failed,
        },
        empty=facts.empty,
        failing=writer.failing,
    )


def _fits(lines: list[str], max_lines: int) -> bool:
    return len(lines) <= max_lines and sum(len(line) + 1 for line in lines) <= LIMIT


@dataclass(frozen=True, slots=True)
class _Writer:
    facts: DigestFacts
    config: DigestConfig
    window: Window
    zone: ZoneInfo
    tenant: str
    links: Links
    record: DeliveryRecord
    summary: str | None
    last_told: datetime | None

    @property
    def trend(self) -> Trend:
        """The window beside its week."""
        return Trend(self.facts, with_cost=self.config.include_cost_estimates)

    @property
    def failing(self) -> bool:
        """Whether anything is told of that somebody should look at."""
        return bool(self.facts.errors) or any(o.failed for o in self.facts.outcomes)

    def layouts(self) -> Iterator[list[str]]:
        """The digest from its fullest form to its shortest; the last one always fits."""
        if self.facts.empty:
            yield [f"⚪ **{self.tenant}** · nothing happened · {self._window_line()}"]
            return
        head, body, tail = self._head(), list(self._body()), [self._window_line()]
        if self.facts.errors:
            named = sum(1 for group in self.facts.errors if group.name is not None)
            for rows in range(min(named, max(10, self.config.max_lines // 4)), 0, -1):
                yield [*head, "", *self._table(rows), "", *body, *tail]
            head = [*head, self._error_line()]
        for kept in range(len(body), -1, -1):
            left_out = len(body) - kept
            note = [f"+{left_out} more {'line' if left_out == 1 else 'lines'}"] if left_out else []
            yield [*head, *body[:kept], *note, *tail]

    def _head(self) -> list[str]:
        facts, unusual = self.facts, self.trend.unusual_line()
        date = wording.day(self.window.end, self.zone, year=True)
        if facts.errors:
            errors = wording.many(facts.totals.errors, "error")
            told = f"🔴 {{}} · {errors}{self.trend.delta('errors')}{self._new_kinds()}"
        elif self.failing:
            told = "🔴 {} · failures"
        elif facts.waiting:
            told = "🟡 {} · waiting for you"
        elif unusual:
            told = "🟡 {} · unusual"
        else:
            told = "🟢 {} · all good"
        headline = f"#### {told.format(f'{self.tenant} · {date}')}"
        todo = advice(facts, self.trend, self.links)
        short = f"**In short**, by a language model · {self.summary}" if self.summary else None
        return [headline, *filter(None, (short, todo and f"**Next:** {todo}", unusual))]

    def _new_kinds(self) -> str:
        """How many groups of errors no earlier window had, where all of today's are known."""
        new = sum(1 for group in self.facts.errors if self.facts.is_new(group))
        if not new or not self.facts.all_errors_listed:
            return ""
        return f" · {wording.many(new, 'new kind')}"

    def _table(self, rows: int) -> list[str]:
        named = [group for group in self.facts.errors if group.name is not None]
        # One row that says "+1 more" would be no shorter than the row itself.
        rows += len(self.facts.errors) == len(named) == rows + 1
        shown, rest = named[:rows], self.facts.errors[rows:]
        lines = ["| Count | Error | Kind | Last | Latest message |", "|--:|:--|:--|:--|:--|"]
        for group in shown:
            what = f" {table_cell(group.what, NAME_LIMIT)}" if group.what else ""
            if self.facts.is_new(group):
                what += " **new**"
            kind = group.kind if group.kind in _KINDS else table_cell(group.kind, NAME_LIMIT)
            cells = (
                wording.link(wording.number(group.count), lead(group, self.links)),
                table_cell(group.name or "", NAME_LIMIT) + what,
                kind.replace("_", " "),
                # One line, however narrow the column.
                self._moment(group.last).replace(" ", "\u00a0"),
                table_cell(group.message, _MESSAGE_LIMIT),
            )
            lines.append(f"| {' | '.join(cells)} |")
        if rest:
            total = wording.number(sum(group.count for group in rest))
            lines.append(f"| {total} | {wording.more(rest)} | | | |")
        return lines

    def _error_line(self) -> str:
        return f"**Errors** · {wording.listing(self.facts.errors, 3)}"

    def _body(self) -> Iterator[str]:
        families = Families(self.facts, self.trend, self.links)
        failed = [family for family in TITLES if self.facts.failed(family)]
        for family in failed:
            yield families.failed_line(family)
        yield from self._waiting_line()
        gone = self.trend.gone_line(self.links)
        if gone:
            yield gone
        good = [family for family in TITLES if family not in failed]
        quiet = [told for family in good for told in families.went_well(family)]
        if quiet:
            yield f"{'All good: ' if failed else ''}{' · '.join(quiet)}"
        yield from surface_lines(self.facts, self.trend, self.links)
        yield self._signals_line()
        yield from self._cost_line()
        if self.facts.late and self.facts.earliest_late:
            since = self.facts.earliest_late
            late = wording.many(self.facts.late, "signal")
            before = self.links.signals(Window(since, self.window.start))
            yield (
                f"**Late** · {wording.link(late, before)} from before this "
                f"window, the earliest of {self._moment(since, year=True)}"
            )
        course = self.trend.course_line()
        if course:
            yield course

    def _waiting_line(self) -> Iterator[str]:
        waiting = self.facts.waiting
        if not waiting:
            return
        count = wording.many(sum(row.count for row in waiting), "directive")
        since = min(row.since for row in waiting)
        expires = min(row.expires for row in waiting)
        yield (
            f"**Approvals** · {wording.link(count, self.links.approvals())} waiting: "
            f"{wording.listing(waiting, 3)} · the oldest since {self._moment(since)}, the first "
            f"lapses {self._moment(expires)}"
        )

    def _moment(self, instant: datetime, *, year: bool = False) -> str:
        return f"{wording.day(instant, self.zone, year=year)} {wording.clock(instant, self.zone)}"

    def _signals_line(self) -> str:
        count = wording.link(wording.number(self.facts.signals), self.links.signals(self.window))
        line = f"**Signals** · {count}{self.trend.delta('signals')}"
        by_type = self.links.counts(self.window)
        if by_type:
            line += f" · {wording.link('by type', by_type)}"
        rest = others(self.facts.types)
        if not rest:
            return line
        named = wording.listing(rest, 5, lambda name: self.links.signals(self.window, name))
        return f"{line} · among them {named}"

    def _cost_line(self) -> Iterator[str]:
        used, before = self.facts.usage, self.facts.previous
        if not self.config.include_cost_estimates:
            return
        parts = []
        if used.cost_usd is not None:
            last = before.cost_usd if before else None
            changed = wording.money_delta(used.cost_usd, last, self.trend.median("cost_usd"))
            parts.append(f"{wording.money(used.cost_usd)}{changed}")
        if used.tokens_in is not None or used.tokens_out is not None:
            tokens = f"{wording.number(used.tokens_in or 0)} tokens in"
            parts.append(f"{tokens}, {wording.number(used.tokens_out or 0)} out")
        if parts:
            yield f"**Cost** · {' · '.join(parts)}"

    def _window_line(self) -> str:
        parts = [wording.span(self.window, self.zone)]
        if self.last_told:
            parts.append(f"no digest since {self._moment(self.last_told, year=True)}")
        if self.facts.previous:
            against = "(+/−) against the window before"
            known = self.trend.usual("signals")
            parts.append(f"{against}, usually: the median of 7 days" if known else against)
        parts.append(self.record.told())
        address = self.links.timeline(self.links.correlation_id)
        parts.append(wording.link("how this was made", address) if address else "")
        return " · ".join(filter(None, parts))
