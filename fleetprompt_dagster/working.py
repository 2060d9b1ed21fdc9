"""Working on directives from a run, and showing outcomes: ids, types, times, errors; never params."""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.secrets import redact
from fleetprompt.settings import Settings
from fleetprompt_dagster.metadata import Metadata, markdown_table
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource

_MOST_ROWS = 200


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
        owner=f"dagster:{context.run_id}",
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


def outcome_metadata(outcomes: Sequence[DirectiveOutcome], settings: Settings) -> Metadata:
    """What a run did: how many, how they ended, the slowest start, and a table of the latest."""
    states = Counter(outcome.state for outcome in outcomes)
    latest = list(reversed(outcomes))[:_MOST_ROWS]
    heads = [
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
    return {
        "attempts": dg.MetadataValue.int(len(outcomes)),
        "succeeded": dg.MetadataValue.int(states["succeeded"]),
        "not_succeeded": dg.MetadataValue.int(len(outcomes) - states["succeeded"]),
        "longest_wait_seconds": dg.MetadataValue.float(
            round(max((outcome.waited for outcome in outcomes), default=0.0), 3)
        ),
        "directives": dg.MetadataValue.md(
            markdown_table(
                heads,
                [
                    (
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
                    for outcome in latest
                ],
            )
        ),
    }


def _told(outcome: DirectiveOutcome) -> str:
    return redact(outcome.error_message or "")
