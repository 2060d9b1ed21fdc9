"""Working on directives from a run, and showing outcomes: ids, types, times, errors; never params."""

from collections import Counter, deque
from dataclasses import dataclass, field

import dagster as dg

from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.secrets import redact
from fleetprompt_dagster.metadata import Metadata, markdown_table
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource
from fleetprompt_dagster.runs import work_tags

_MOST_ROWS = 200


def worker_name(run_id: str) -> str:
    """How leases, transitions and workers name the run that works on directives."""
    return f"dagster:{run_id}"


def directive_runner(
    context: dg.OpExecutionContext,
    opened: OpenPlatform,
    platform: PlatformResource,
    *,
    concurrency: int = 8,
) -> DirectiveRunner:
    """A runner whose leases and executions name this Dagster run."""
    return DirectiveRunner(
        opened.database,
        opened.settings,
        owner=worker_name(context.run_id),
        concurrency=concurrency,
        dagster_run_id=context.run_id,
        clock=platform.now,
    )


def line_of(outcome: DirectiveOutcome) -> str:
    """One line of the run's log; the correlation id leads to the timeline."""
    error = f" ({outcome.error_kind}: {_told(outcome)})" if outcome.error_kind else ""
    return (
        f"{outcome.tenant} {outcome.type} {outcome.state}{error}, attempt {outcome.attempt}, "
        f"waited {outcome.waited:.2f} s, took {outcome.took:.2f} s, directive {outcome.directive_id}, "
        f"correlation {outcome.correlation_id or 'none'}"
    )


@dataclass
class Tally:
    """What a run did, in bounded memory: how many, how they ended, the slowest start, the latest."""

    states: Counter[str] = field(default_factory=Counter)
    longest_wait: float = 0.0
    latest: deque[DirectiveOutcome] = field(default_factory=lambda: deque(maxlen=_MOST_ROWS))
    tenants: set[str] = field(default_factory=set)

    def add(self, outcome: DirectiveOutcome) -> None:
        """Count one more."""
        self.states[outcome.state] += 1
        self.longest_wait = max(self.longest_wait, outcome.waited)
        self.latest.append(outcome)
        self.tenants.add(outcome.tenant)

    def tags(self) -> dict[str, str]:
        """For the list of runs: whose directives, how many attempts, and how many in vain if any were."""
        number = self.states.total()
        in_vain = number - self.states["succeeded"]
        found = work_tags(self.tenants, attempts=number)
        return found | {"fleetprompt/not_succeeded": str(in_vain)} if in_vain else found

    def metadata(self) -> Metadata:
        """Numbers, and a table of the latest."""
        number = self.states.total()
        return {
            "attempts": dg.MetadataValue.int(number),
            "succeeded": dg.MetadataValue.int(self.states["succeeded"]),
            "not_succeeded": dg.MetadataValue.int(number - self.states["succeeded"]),
            "longest_wait_seconds": dg.MetadataValue.float(round(self.longest_wait, 3)),
            "directives": dg.MetadataValue.md(
                markdown_table(_HEADS, [_row(outcome) for outcome in reversed(self.latest)])
            ),
        }


_HEADS = [
    "tenant",
    "type",
    "state",
    "attempt",
    "waited s",
    "took s",
    "directive",
    "correlation",
    "error",
]


def _row(outcome: DirectiveOutcome) -> tuple[object, ...]:
    return (
        outcome.tenant,
        outcome.type,
        outcome.state,
        outcome.attempt,
        f"{outcome.waited:.2f}",
        f"{outcome.took:.2f}",
        outcome.directive_id,
        outcome.correlation_id or "",
        f"{outcome.error_kind}: {_told(outcome)}" if outcome.error_kind else "",
    )


def _told(outcome: DirectiveOutcome) -> str:
    return redact(outcome.error_message or "")
