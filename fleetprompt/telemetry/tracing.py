"""Tracing: how a span gets its ids and its place, and whether spans are made at all.

A trace id is derived from a correlation id (the first 16 bytes of its SHA-256), a span id from the id of
what the span is about. So every process puts its spans into the right trace and can link to a cause
without any context travelling in rows; and a sampler that goes by the trace id keeps or drops a
correlation as a whole. Which spans the product makes stands in ``spans``.

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
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Attributes = Mapping[str, str | int | float | bool]

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
    with current(begin(name, kind, attributes or {})) as made:
        yield made


def caller_of(traceparent: str) -> "SpanContext | None":
    """The context that a caller sent (W3C Trace Context); None if it sent none that can be read."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, _nowhere())
    found = get_current_span(context).get_span_context()
    return found if found.is_valid else None


def context_of(trace_id: int, span_id: int) -> "SpanContext":
    """What a span needs to know of another one that it is within or linked to."""
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def begin(
    name: str,
    kind: Kind,
    attributes: Attributes,
    *,
    ids: tuple[int | None, int | None] | None = None,
    parent: "SpanContext | None" = None,
    links: "Sequence[SpanContext]" = (),
    start_ns: int | None = None,
) -> "Span":
    """A new span: within ``parent``; else with ``ids`` at the top of its trace; else within the current.

    ``ids`` are those of its trace and its own; ``start_ns`` is when it began, since the epoch. Only where
    ``on`` says so.
    """
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


def end(made: "Span", *, failed: bool) -> None:
    """End it, as an error or as neither good nor bad."""
    from opentelemetry.trace import StatusCode

    if failed:
        made.set_status(StatusCode.ERROR)
    made.end()


@contextmanager
def current(made: "Span") -> "Iterator[Span]":
    """Make it the current span, which ends with the block.

    An error is told by its class alone, since its words may hold anything.
    """
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


def _nowhere() -> "Context":
    from opentelemetry.context import Context

    return Context()
