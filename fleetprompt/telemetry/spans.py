"""The product's spans: what a correlation id went through, over all processes, as one trace.

Attributes follow OpenTelemetry's conventions for messaging and HTTP; neither params nor payloads,
addresses' paths nor messages of errors are among them.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from secrets import randbits
from typing import TYPE_CHECKING
from uuid import UUID

from fleetprompt.telemetry.tracing import (
    REQUEST,
    Attributes,
    RequestTrace,
    begin,
    context_of,
    current,
    end,
    on,
    span,
    span_id_of,
    trace_id_of,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

    from fleetprompt.directives.leases import ClaimedDirective

_MOST_LINKS = 128  # the least that OpenTelemetry's implementations keep
_SYSTEM = "fleetprompt"

SpanContexts = Sequence["SpanContext"]


def request_ended(
    request: RequestTrace, name: str, started_ns: int, attributes: Attributes, *, failed: bool
) -> None:
    """Make the span of an HTTP request, once it is known where it belongs."""
    made = begin(
        name,
        "SERVER",
        attributes,
        ids=(request.belongs_to(()), request.span_id),
        parent=request.caller,
        start_ns=started_ns,
    )
    end(made, failed=failed)


def signals_submitted(items: Sequence[tuple[UUID, str, str | None]]) -> SpanContexts:
    """Spans of signals that were taken in, for a flush to link to: ``(id, type, correlation id)`` each.

    A signal without a correlation id is its own, as it is on the timeline.
    """
    correlations = [correlation_id or str(id_) for id_, _, correlation_id in items]
    request = REQUEST.get()
    if request is not None:
        request.belongs_to(correlations)
    made = []
    for (id_, type_, _), correlation_id in zip(items, correlations, strict=True):
        trace_id = trace_id_of(correlation_id)
        same = request is not None and request.trace_id == trace_id
        outer = [] if request is None else [context_of(request.trace_id or 1, request.span_id)]
        one = begin(
            f"create {type_}",
            "PRODUCER",
            {
                "messaging.system": _SYSTEM,
                "messaging.operation.type": "create",
                "messaging.operation.name": "create",
                "messaging.destination.name": "signals",
                "messaging.message.id": str(id_),
                "messaging.message.conversation_id": correlation_id,
                "fleetprompt.signal.type": type_,
            },
            ids=(trace_id, span_id_of(id_)),
            parent=outer[0] if same else None,
            links=() if same else outer,
        )
        made.append(one.get_span_context())
        one.end()
    return made


def flushed(started_ns: int, signals: SpanContexts, *, failed: bool) -> None:
    """The span of one group commit, which belongs to no correlation alone and is linked to its signals."""
    made = begin(
        "flush signals",
        "CLIENT",
        {
            "db.system.name": "postgresql",
            "messaging.system": _SYSTEM,
            "messaging.operation.type": "send",
            "messaging.operation.name": "flush",
            "messaging.destination.name": "signals",
            "messaging.batch.message_count": len(signals),
        },
        ids=(randbits(128) or 1, None),
        links=signals[:_MOST_LINKS],
        start_ns=started_ns,
    )
    end(made, failed=failed)


@contextmanager
def handling(tenant: str, directive: "ClaimedDirective") -> "Iterator[Span | None]":
    """The span of a directive's handler, within that of its attempt."""
    if not on():
        yield None
        return
    made = begin(
        f"handle {directive.type}",
        "INTERNAL",
        {"fleetprompt.tenant": tenant, "fleetprompt.directive.type": directive.type},
        parent=_attempt_of(directive),
    )
    with current(made):
        yield made


def outbound(method: str, host: str, port: int) -> "AbstractContextManager[Span | None]":
    """The span of one request to somebody else; of the address, whose path may be a secret, the host only."""
    return span(
        method,
        "CLIENT",
        {"http.request.method": method, "server.address": host, "server.port": port},
    )


def answered(made: "Span | None", status: int | None, problem: Exception | None) -> None:
    """Note on an outbound request's span how it went."""
    if made is None:
        return
    from opentelemetry.trace import StatusCode

    if status is not None:
        made.set_attribute("http.response.status_code", status)
    if status is None or status >= 400:
        made.set_attribute(
            "error.type", type(problem).__qualname__ if status is None else str(status)
        )
        made.set_status(StatusCode.ERROR)


def attempt_ended(
    tenant: str, directive: "ClaimedDirective", state: str, error_kind: str | None
) -> None:
    """The span of an attempt, from its claim to its end, linked to what caused the directive.

    A connector's begins when the directive was due: when it was fetched is not told at its end.
    """
    if not on():
        return
    attempt, links = _attempt_of(directive), []
    if directive.causation_id is not None:
        cause = directive.causation_id.rpartition(":")[2]
        links.append(context_of(attempt.trace_id, span_id_of(cause)))
    attributes: dict[str, str | int] = {
        "messaging.system": _SYSTEM,
        "messaging.operation.type": "process",
        "messaging.operation.name": "attempt",
        "messaging.destination.name": "directives",
        "messaging.message.id": str(directive.id),
        "messaging.message.conversation_id": directive.correlation_id or str(directive.id),
        "fleetprompt.tenant": tenant,
        "fleetprompt.directive.type": directive.type,
        "fleetprompt.directive.attempt": directive.attempt,
        "fleetprompt.directive.state": state,
    }
    if error_kind is not None:
        attributes["error.type"] = error_kind
    made = begin(
        f"attempt {directive.type}",
        "CONSUMER",
        attributes,
        ids=(attempt.trace_id, attempt.span_id),
        links=links,
        start_ns=int(directive.claimed_at.timestamp() * 1e9),
    )
    end(made, failed=state in ("failed", "unknown"))


def _attempt_of(directive: "ClaimedDirective") -> "SpanContext":
    correlation_id = directive.correlation_id or str(directive.id)
    return context_of(trace_id_of(correlation_id), span_id_of(directive.id, directive.attempt))
