"""The digest's text: Markdown for Mattermost, a pure function of the facts.

Worst first: what failed and what to do about it stands on top; whatever went well is one line. The
text never has more than ``max_lines`` lines or LIMIT characters; it is cut at whole lines, and what
is left out is counted exactly. Every text that is not ours goes through the escaping of
``fleetprompt.outbound.transports.mattermost``, so that nothing in it is a mention or markup.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from zoneinfo import ZoneInfo

from fleetprompt.outbound.transports.mattermost import plain, table_cell
from fleetprompt.packages.mattermost_daily_ops_digest import wording
from fleetprompt.packages.mattermost_daily_ops_digest.advice import advice, lead
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.facts import DigestFacts, Family, Outcome
from fleetprompt.packages.mattermost_daily_ops_digest.wording import NAME_LIMIT, Links
from fleetprompt.schedules.local_time import Window

# Mattermost splits at 16,383 characters, in the middle of a line; stay well below.
LIMIT = 15_000
_MESSAGE_LIMIT = 120
_KINDS = frozenset({"auth", "network", "rate_limit", "validation", "unknown"})
_OPEN = ("requested", "pending", "running")


@dataclass(frozen=True, slots=True)
class DigestText:
    """A rendered digest. ``counts`` are the totals that it states; ``sha256`` is of its UTF-8."""

    text: str
    line_count: int
    sha256: str
    counts: Mapping[str, int]
    empty: bool
    failing: bool


def render(
    facts: DigestFacts,
    config: Config,
    window: Window,
    zone: ZoneInfo,
    tenant_name: str,
    links: Links,
) -> DigestText:
    """The text for these facts: equal arguments, equal bytes."""
    writer = _Writer(facts, config, window, zone, plain(tenant_name, NAME_LIMIT), links)
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
    config: Config
    window: Window
    zone: ZoneInfo
    tenant: str
    links: Links

    @property
    def failing(self) -> bool:
        """Whether anything is told of that somebody should look at."""
        return bool(self.facts.errors) or any(o.failed for o in self.facts.outcomes)

    def layouts(self) -> Iterator[list[str]]:
        """The digest from its fullest form to its shortest; the last one always fits."""
        if self.facts.empty:
            yield [
                f"⚪ **{self.tenant}** · nothing happened · {wording.span(self.window, self.zone)}"
            ]
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
        facts, previous = self.facts, self.facts.previous
        date = wording.day(self.window.end, self.zone, year=True)
        if facts.errors:
            count = facts.totals.errors
            changed = wording.delta(count, previous.errors if previous else None)
            headline = f"#### 🔴 {self.tenant} · {date} · {wording.many(count, 'error')}{changed}"
        elif self.failing:
            headline = f"#### 🔴 {self.tenant} · {date} · failures"
        elif facts.count("directive", "awaiting_approval"):
            headline = f"#### 🟡 {self.tenant} · {date} · waiting for you"
        else:
            headline = f"#### 🟢 {self.tenant} · {date} · all good"
        todo = advice(facts, self.links)
        return [headline, f"**Next:** {todo}"] if todo else [headline]

    def _table(self, rows: int) -> list[str]:
        named = [group for group in self.facts.errors if group.name is not None]
        # One row that says "+1 more" would be no shorter than the row itself.
        rows += len(self.facts.errors) == len(named) == rows + 1
        shown, rest = named[:rows], self.facts.errors[rows:]
        lines = ["| Count | Error | Kind | Last | Latest message |", "|--:|:--|:--|:--|:--|"]
        for group in shown:
            what = f" {table_cell(group.what, NAME_LIMIT)}" if group.what else ""
            kind = group.kind if group.kind in _KINDS else table_cell(group.kind, NAME_LIMIT)
            cells = (
                wording.link(wording.number(group.count), lead(group, self.links)),
                table_cell(group.name or "", NAME_LIMIT) + what,
                kind.replace("_", " "),
                f"{wording.day(group.last, self.zone)} {wording.clock(group.last, self.zone)}",
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
        failed = [family for family in _TITLES if self.facts.failed(family)]
        for family in failed:
            yield self._failed_line(family)
        waiting = self.facts.count("directive", "awaiting_approval")
        if waiting:
            rows = [o for o in self.facts.outcomes if o.state == "awaiting_approval"]
            told = wording.listing(rows, 3)
            yield f"**Approvals** · {wording.many(waiting, 'directive')} waiting: {told}"
        good = [family for family in _TITLES if family not in failed]
        quiet = [told for family in good for told in self._good(family)]
        if quiet:
            yield f"{'All good: ' if failed else ''}{' · '.join(quiet)}"
        yield self._signals_line()
        yield from self._cost_line()
        if self.facts.late and self.facts.earliest_late:
            since = self.facts.earliest_late
            yield (
                f"**Late** · {wording.many(self.facts.late, 'signal')} from before this window, the "
                f"earliest of {wording.day(since, self.zone, year=True)} "
                f"{wording.clock(since, self.zone)}"
            )

    def _failed_line(self, family: Family) -> str:
        rows = [row for row in self.facts.outcomes if row.family == family]
        failed = [row for row in rows if row.failed]
        count, before = self._compared(family, failed=True)
        label = f"**{wording.number(count)} failed**{wording.delta(count, before)}"
        unknown = self.facts.count(family, "unknown")
        if unknown:
            label += f", {wording.number(unknown)} of them with unknown outcome"
        parts = [f"**{_TITLES[family]}** · {label}: {wording.listing(_by_name(failed), 3)}"]
        return " · ".join([*parts, *self._good(family)])

    def _good(self, family: Family) -> Iterator[str]:
        """What went well in a family, and what is neither good nor bad."""
        rows = [row for row in self.facts.outcomes if row.family == family]
        if family == "package":
            for state in sorted({row.state for row in rows if not row.failed}):
                done = [row for row in rows if row.state == state]
                count = sum(row.count for row in done)
                # A package may have verbs of its own; their names are not our words.
                verb = _DONE.get(state) or wording.code(state)
                yield f"{wording.many(count, 'package')} {verb}: {wording.listing(done, 3)}"
            return
        count, before = self._compared(family, failed=False)
        if count or before:
            done_word = "succeeded" if family == "directive" else "completed"
            noun = wording.many(count, _NOUNS[family])
            yield f"{noun} {done_word}{wording.delta(count, before)}"
        still_open = self.facts.count(family, *_OPEN)
        if still_open:
            yield f"{wording.number(still_open)} still open"
        cancelled = self.facts.count(family, "cancelled")
        if cancelled:
            yield f"{wording.number(cancelled)} cancelled"

    def _compared(self, family: Family, *, failed: bool) -> tuple[int, int | None]:
        """This window's number and the one before it."""
        name = _TOTALS[family][failed]
        before = self.facts.previous
        return getattr(self.facts.totals, name), getattr(before, name) if before else None

    def _signals_line(self) -> str:
        before = self.facts.previous
        count = self.facts.signals
        line = f"**Signals** · {wording.number(count)}"
        line += wording.delta(count, before.signals if before else None)
        others = [row for row in self.facts.types if not row.told]
        return f"{line}, among them {wording.listing(others, 5)}" if others else line

    def _cost_line(self) -> Iterator[str]:
        used, before = self.facts.usage, self.facts.previous
        if not self.config.include_cost_estimates:
            return
        parts = []
        if used.cost_usd is not None:
            changed = wording.money_delta(used.cost_usd, before.cost_usd if before else None)
            parts.append(f"{wording.money(used.cost_usd)}{changed}")
        if used.tokens_in is not None or used.tokens_out is not None:
            tokens = f"{wording.number(used.tokens_in or 0)} tokens in"
            parts.append(f"{tokens}, {wording.number(used.tokens_out or 0)} out")
        if parts:
            yield f"**Cost** · {' · '.join(parts)}"

    def _window_line(self) -> str:
        line = wording.span(self.window, self.zone)
        if self.facts.previous:
            line += " · (+/−) against the window before"
        address = self.links.timeline(self.links.correlation_id)
        return f"{line} · {wording.link('how this was made', address)}" if address else line


_TITLES: dict[Family, str] = {
    "package": "Packages",
    "directive": "Directives",
    "execution": "Executions",
    "run": "Workflow runs",
}
_NOUNS: dict[Family, str] = {
    "directive": "directive",
    "execution": "execution",
    "run": "workflow run",
}
_DONE = {
    "install.completed": "installed",
    "upgrade.completed": "upgraded",
    "configure.completed": "configured",
    "disable.completed": "disabled",
    "uninstall.completed": "removed",
}
# The names in Totals: (what went well, what failed).
_TOTALS: dict[Family, tuple[str, str]] = {
    "package": ("packages_changed", "packages_failed"),
    "directive": ("directives_succeeded", "directives_failed"),
    "execution": ("executions_completed", "executions_failed"),
    "run": ("runs_completed", "runs_failed"),
}


def _by_name(rows: list[Outcome]) -> list[Outcome]:
    """Rows of several states added up by name, most first."""
    sums: dict[str | None, tuple[int, int]] = {}
    for row in rows:
        count, names = sums.get(row.name, (0, 0))
        sums[row.name] = (count + row.count, names + row.names if row.name is None else 1)
    added = [Outcome(rows[0].family, "failed", name, *sums[name]) for name in sums]
    return sorted(added, key=lambda row: (row.name is None, -row.count, row.name or ""))
