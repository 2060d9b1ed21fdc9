"""Spans: what a correlation id went through, over all processes, as one trace.

The trace id is derived from the correlation id (the first 16 bytes of its SHA-256), a signal's and an
attempt's span id from their own ids. So every process puts its spans into the right trace and can
link to a cause without any context travelling in rows; and a sampler that goes by the trace id
keeps or drops a correlation as a whole. Attributes follow OpenTelemetry's conventions for messaging
and HTTP; neither params nor payloads, addresses' paths nor messages of errors are among them.

Nothing of OpenTelemetry is imported, and no object made, unless ``start`` found an endpoint.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import randbits
from time import time_ns
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

    from fleetprompt.directives.leases import ClaimedDirective

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Attributes = Mapping[str, str | int | float | bool]

_MOST_LINKS = 128  # the least that OpenTelemetry's implementations keep
_SYSTEM = "fleetprompt"

# Ids of the next span that is begun, None where any will do.
NEXT_IDS: ContextVar[tuple[int | None, int | None]] = ContextVar("next_ids", default=(None, None))


@dataclass(slots=True)
class RequestTrace:
    """Where the span of the HTTP request under way belongs; known when its correlation is."""

    caller: "SpanContext | None" = None
    trace_id: int | None = None
    span_id: int = field(default_factory=lambda: randbits(64) or 1)

    def __post_init__(self) -> None:
        """A caller that sent a trace's context goes before anything else."""
        if self.caller is not None:
            self.trace_id = self.caller.trace_id

    def belongs_to(self, correlation_ids: Iterable[str]) -> int:
        """The trace of the request, decided now: that of the one correlation it is about."""
        if self.trace_id is None:
            distinct = set(correlation_ids)
            self.trace_id = (
                trace_id_of(distinct.pop()) if len(distinct) == 1 else randbits(128) or 1
            )
        return self.trace_id


SpanContexts = Sequence["SpanContext"]

REQUEST: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)

_tracer: "Tracer | None" = None


def on() -> bool:
    """Whether spans are made."""
    return _tracer is not None


def start(service: str) -> None:
    """Send spans to the endpoint that the environment names; without one, do nothing.

    ``OTEL_SDK_DISABLED=true`` and ``OTEL_TRACES_EXPORTER=none`` are honoured, as are the other standard
    variables. A second call changes nothing.
    """
    if on() or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return
    from fleetprompt.telemetry.exporting import exporting_tracer

    use(exporting_tracer(service))


def use(tracer: "Tracer | None") -> None:
    """Make spans with this tracer from now on; None makes none. Its ids must come from ``NEXT_IDS``."""
    global _tracer
    _tracer = tracer


def flush() -> None:
    """Send what waits, for a process that ends; blocks for at most five seconds."""
    if on():
        from fleetprompt.telemetry.exporting import flush_exporter

        flush_exporter()


def trace_id_of(correlation_id: str) -> int:
    """The trace of a correlation id."""
    return (
        int.from_bytes(sha256(correlation_id.encode("utf-8", "surrogatepass")).digest()[:16]) or 1
    )


def span_id_of(*names: object) -> int:
    """The span of a thing, by its id and what else tells it from others."""
    return int.from_bytes(sha256(":".join(map(str, names)).encode()).digest()[:8]) or 1


def note_correlation(correlation_id: str | None) -> None:
    """Say what the HTTP request under way is about; the first word counts."""
    if on() and correlation_id is not None and (request := REQUEST.get()) is not None:
        request.belongs_to([correlation_id])


@contextmanager
def span(
    name: str, kind: Kind = "INTERNAL", attributes: Attributes | None = None
) -> "Iterator[Span | None]":
    """A span within the current one, for as long as the block runs; None when tracing is off."""
    if not on():
        yield None
        return
    with _current(_begin(name, kind, attributes or {})) as made:
        yield made


def request_ended(
    request: RequestTrace, name: str, started_ns: int, attributes: Attributes, *, failed: bool
) -> None:
    """Make the span of an HTTP request, once it is known where it belongs."""
    made = _begin(
        name,
        "SERVER",
        attributes,
        ids=(request.belongs_to(()), request.span_id),
        parent=request.caller,
        start_ns=started_ns,
    )
    _end(made, failed=failed)


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
        outer = [] if request is None else [_context_of(request.trace_id or 1, request.span_id)]
        one = _begin(
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
    made = _begin(
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
    _end(made, failed=failed)


@contextmanager
def handling(tenant: str, directive: "ClaimedDirective") -> "Iterator[Span | None]":
    """The span of a directive's handler, within that of its attempt."""
    if not on():
        yield None
        return
    made = _begin(
        f"handle {directive.type}",
        "INTERNAL",
        {"fleetprompt.tenant": tenant, "fleetprompt.directive.type": directive.type},
        parent=_attempt_of(directive),
    )
    with _current(made):
        yield made


@contextmanager
def outbound(method: str, host: str, port: int) -> "Iterator[Span | None]":
    """The span of one request to somebody else; of the address, whose path may be a secret, the host only."""
    if not on():
        yield None
        return
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "server.address": host,
        "server.port": port,
    }
    with _current(_begin(method, "CLIENT", attributes)) as made:
        yield made


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
        links.append(_context_of(attempt.trace_id, span_id_of(cause)))
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
    made = _begin(
        f"attempt {directive.type}",
        "CONSUMER",
        attributes,
        ids=(attempt.trace_id, attempt.span_id),
        links=links,
        start_ns=int(directive.claimed_at.timestamp() * 1e9),
    )
    _end(made, failed=state in ("failed", "unknown"))


def caller_of(traceparent: str) -> "SpanContext | None":
    """The context that a caller sent (W3C Trace Context); None if it sent none that can be read."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, _nowhere())
    found = get_current_span(context).get_span_context()
    return found if found.is_valid else None


def _attempt_of(directive: "ClaimedDirective") -> "SpanContext":
    correlation_id = directive.correlation_id or str(directive.id)
    return _context_of(trace_id_of(correlation_id), span_id_of(directive.id, directive.attempt))


def _context_of(trace_id: int, span_id: int) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _nowhere() -> "Context":
    from opentelemetry.context import Context

    return Context()


def _begin(
    name: str,
    kind: Kind,
    attributes: Attributes,
    *,
    ids: tuple[int | None, int | None] | None = None,
    parent: "SpanContext | None" = None,
    links: "Sequence[SpanContext]" = (),
    start_ns: int | None = None,
) -> "Span":
    """A new span: within ``parent``; else with ``ids`` at the top of its trace; else within the current."""
    from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

    assert _tracer is not None  # noqa: S101 - callers ask ``on`` first
    context = None
    if parent is not None:
        context = set_span_in_context(NonRecordingSpan(parent), _nowhere())
    elif ids is not None:
        context = _nowhere()
    token = NEXT_IDS.set(ids or (None, None))
    try:
        linked: list[Link] = [Link(one) for one in links]
        return _tracer.start_span(
            name,
            context,
            SpanKind[kind],
            dict(attributes),
            linked,
            start_time=time_ns() if start_ns is None else start_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
    finally:
        NEXT_IDS.reset(token)


def _end(made: "Span", *, failed: bool) -> None:
    from opentelemetry.trace import StatusCode

    if failed:
        made.set_status(StatusCode.ERROR)
    made.end()


@contextmanager
def _current(made: "Span") -> "Iterator[Any]":
    """Make it the current span; an error is told by its class alone, since its words may hold anything."""
    from opentelemetry.trace import StatusCode, use_span

    failed = False
    try:
        with use_span(made, record_exception=False, set_status_on_exception=False):
            yield made
    except BaseException as error:
        failed = True
        made.set_attribute("error.type", type(error).__qualname__)
        raise
    finally:
        if failed:
            made.set_status(StatusCode.ERROR)
        made.end()
