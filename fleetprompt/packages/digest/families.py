"""What became of packages, directives, executions and workflow runs: a family of outcomes each."""

from collections.abc import Iterator
from dataclasses import dataclass

from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.facts import DigestFacts
from fleetprompt.packages.digest.rows import Family, Outcome
from fleetprompt.packages.digest.trend import Trend
from fleetprompt.packages.digest.wording import Links

_OPEN = ("requested", "pending", "running")
TITLES: dict[Family, str] = {
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
_RUN_STATUS = {"succeeded": "SUCCESS", "failed": "FAILURE", "cancelled": "CANCELED"}
_EXECUTION_STATE = {
    "succeeded": "completed",
    "failed": "failed",
    "unknown": "failed",
    "cancelled": "cancelled",
}
# The names in Totals: (what went well, what failed).
_TOTALS: dict[Family, tuple[str, str]] = {
    "package": ("packages_changed", "packages_failed"),
    "directive": ("directives_succeeded", "directives_failed"),
    "execution": ("executions_completed", "executions_failed"),
    "run": ("runs_completed", "runs_failed"),
}


@dataclass(frozen=True, slots=True)
class Families:
    """The lines of the families of outcomes."""

    facts: DigestFacts
    trend: Trend
    links: Links

    def failed_line(self, family: Family) -> str:
        """A family in which something failed, with all else of it."""
        rows = [row for row in self.facts.outcomes if row.family == family]
        failed = [row for row in rows if row.failed]
        total = _TOTALS[family][True]
        count = getattr(self.facts.totals, total)
        unknown = self.facts.count(family, "unknown")
        states = "unknown" if unknown == count else "failed"
        to_fail = {row.name for row in failed if row.state != "unknown"}
        told = wording.link(f"{wording.number(count)} failed", self._lead(family, states))
        label = f"**{told}**{self.trend.delta(total)}"
        if unknown:
            some = wording.link(wording.number(unknown), self._lead(family, "unknown"))
            label += f", {some} of them with unknown outcome"
        named = wording.listing(
            _by_name(failed),
            3,
            lambda name: self._lead(family, "failed" if name in to_fail else "unknown", name),
        )
        parts = [f"**{TITLES[family]}** · {label}: {named}"]
        return " · ".join([*parts, *self.went_well(family)])

    def went_well(self, family: Family) -> Iterator[str]:
        """What went well in a family, and what is neither good nor bad."""
        rows = [row for row in self.facts.outcomes if row.family == family]
        if family == "package":
            for state in sorted({row.state for row in rows if not row.failed}):
                done = [row for row in rows if row.state == state]
                count = wording.many(sum(row.count for row in done), "package")
                # A package may have verbs of its own; their names are not our words.
                verb = _DONE.get(state) or wording.code(state)
                told = wording.link(count, self._lead(family, "succeeded"))
                yield f"{told} {verb}: {wording.listing(done, 3)}"
            return
        total = _TOTALS[family][False]
        count = getattr(self.facts.totals, total)
        if count or (self.facts.previous and getattr(self.facts.previous, total)):
            done_word = "succeeded" if family == "directive" else "completed"
            noun = wording.link(
                wording.many(count, _NOUNS[family]), self._lead(family, "succeeded")
            )
            yield f"{noun} {done_word}{self.trend.delta(total)}"
        still_open = self.facts.count(family, *_OPEN)
        if still_open:
            yield self._also(family, still_open, "still open", "pending")
        cancelled = self.facts.count(family, "cancelled")
        if cancelled:
            yield self._also(family, cancelled, "cancelled", "cancelled")

    def _also(self, family: Family, count: int, word: str, state: str) -> str:
        return f"{wording.link(wording.number(count), self._lead(family, state))} {word}"

    def _lead(self, family: Family, state: str, name: str | None = None) -> str | None:
        """The page that lists what a figure counts; packages are changed by directives."""
        if family == "run":
            return self.links.runs(_RUN_STATUS.get(state, "STARTED"))
        if family == "execution":
            return self.links.executions(_EXECUTION_STATE.get(state, "running"), name)
        return self.links.directives(state, name if family == "directive" else None)


def _by_name(rows: list[Outcome]) -> list[Outcome]:
    """Rows of several states added up by name, most first."""
    sums: dict[str | None, tuple[int, int]] = {}
    for row in rows:
        count, names = sums.get(row.name, (0, 0))
        sums[row.name] = (count + row.count, names + row.names if row.name is None else 1)
    added = [Outcome(rows[0].family, "failed", name, *sums[name]) for name in sums]
    return sorted(added, key=lambda row: (row.name is None, -row.count, row.name or ""))
