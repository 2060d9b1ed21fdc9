"""What happens, told to the metrics: one call at the place where it happens.

Calls cost about a microsecond and touch neither the database nor the network. Those made inside a
transaction count what is written; a commit that then fails counts one too many.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from fleetprompt.telemetry import spans
from fleetprompt.telemetry.catalogue import (
    ATTEMPT_DURATION,
    ATTEMPTS_ENDED,
    FLUSH_DURATION,
    FLUSH_ROWS,
    HEARTBEAT_FAILURES,
    HTTP_DURATION,
    INGEST_REFUSED,
    LEASES_LOST,
    LEASES_RESCUED,
    OUTBOUND_DURATION,
    OUTBOUND_MESSAGES,
    SIGNALS_STORED,
    STALE_REPORTS,
    START_DELAY,
)
from fleetprompt.telemetry.counting import RECORDER
from fleetprompt.telemetry.process import PROCESS

if TYPE_CHECKING:
    from fleetprompt.directives.leases import ClaimedDirective, Settlement
    from fleetprompt.directives.types import AnyDirectiveType

_FAILURES = {
    "RefusedError": "refused",
    "ConnectFailedError": "connect_failed",
    "ResponseLostError": "response_lost",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def directives_claimed(claimed: Sequence["ClaimedDirective"], target: str) -> None:
    """Directives were claimed; ``target`` is the platform or a connector's id."""
    for one in claimed:
        waited = (one.claimed_at - one.available_at).total_seconds()
        RECORDER.observe(START_DELAY, max(0.0, waited), (one.type, target_class(target)))
    if claimed and target == "platform":
        PROCESS.started()


def leases_rescued(*, again: int, given_up: int) -> None:
    """Directives were found under a lease that had run out."""
    if again:
        RECORDER.add(LEASES_RESCUED, ("again",), again)
    if given_up:
        RECORDER.add(LEASES_RESCUED, ("given_up",), given_up)


@contextmanager
def handling(type_name: str) -> Iterator[None]:
    """A handler runs for as long as the block does."""
    started = perf_counter()
    try:
        yield
    finally:
        RECORDER.observe(ATTEMPT_DURATION, perf_counter() - started, (type_name,))


def attempt_ended(
    tenant: str,
    kind: "AnyDirectiveType | None",
    directive: "ClaimedDirective",
    settlement: "Settlement",
) -> None:
    """An attempt's end was written down. What ended before its first attempt is none."""
    if directive.attempt == 0:
        return
    target = "platform" if kind is None else kind.target
    error_kind = settlement.error_kind
    RECORDER.add(ATTEMPTS_ENDED, (directive.type, target, settlement.state, error_kind or "none"))
    spans.attempt_ended(tenant, directive, settlement.state, error_kind)


def stale_reports(number: int) -> None:
    """The ends of so many attempts were refused."""
    if number:
        RECORDER.add(STALE_REPORTS, (), number)


def lease_lost() -> None:
    """A heartbeat found a lease gone."""
    RECORDER.add(LEASES_LOST)


def heartbeat_failed() -> None:
    """A heartbeat could not be written."""
    RECORDER.add(HEARTBEAT_FAILURES)


def flushed(rows: int, seconds: float) -> None:
    """One flush of signals was committed and answered."""
    RECORDER.observe(FLUSH_ROWS, rows)
    RECORDER.observe(FLUSH_DURATION, seconds)


def signals_stored(created: int, duplicates: int) -> None:
    """So many signals of a commit were new, so many were there before."""
    if created:
        RECORDER.add(SIGNALS_STORED, ("created",), created)
    if duplicates:
        RECORDER.add(SIGNALS_STORED, ("duplicate",), duplicates)


def signals_refused(problem: str) -> None:
    """A request with signals, or one signal of a partial batch, was refused with this problem."""
    RECORDER.add(INGEST_REFUSED, (problem,))


def message_settled(outcome: str, error_kind: str | None) -> None:
    """The ledger knows what became of an attempt to send."""
    RECORDER.add(OUTBOUND_MESSAGES, (outcome, error_kind or "none"))


def outbound_request(seconds: float, status: int | None, failure: str) -> None:
    """A request left, or could not; ``failure`` is the error's class where there is no status."""
    result = _FAILURES.get(failure, "failed") if status is None else f"{status // 100}xx"
    RECORDER.observe(OUTBOUND_DURATION, seconds, (result,))


def http_request(method: str, route: str, status: int, seconds: float) -> None:
    """A request to the API was answered; ``route`` is the template, never the path."""
    RECORDER.observe(
        HTTP_DURATION,
        seconds,
        (method if method in _METHODS else "other", route, f"{status // 100}xx"),
    )


def target_class(target: str) -> str:
    """A directive's target as a label: connectors are many, their class is one."""
    return "platform" if target == "platform" else "connector"
