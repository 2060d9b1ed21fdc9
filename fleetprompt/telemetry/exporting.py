"""Sending spans over OTLP/HTTP: the only module that imports OpenTelemetry's SDK.

The SDK and the exporter are in the extra ``telemetry``. Where spans go, how many are sampled and how the
process is named is for the standard variables to say (``OTEL_EXPORTER_OTLP_*``, ``OTEL_TRACES_SAMPLER``,
``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``).
"""

import logging
import os
from importlib.metadata import version

from opentelemetry.trace import Tracer

from fleetprompt.telemetry.tracing import NEXT_IDS

_FLUSH_MILLISECONDS = 5000

logger = logging.getLogger(__name__)

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
except ImportError:
    _INSTALLED = False
else:
    _INSTALLED = True

    class GivenIds(RandomIdGenerator):
        """Ids as ``tracing`` wants them for the span that it is beginning, random ones otherwise."""

        def generate_trace_id(self) -> int:
            """The trace id of a span at the top of its trace."""
            return NEXT_IDS.get()[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            """The span's own id."""
            return NEXT_IDS.get()[1] or super().generate_span_id()

    _provider: TracerProvider | None = None

    def tracer_of(service: str, processor: SpanProcessor) -> Tracer:
        """A tracer whose spans go to this processor; that of the latest call is flushed at the end."""
        global _provider
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        _provider = TracerProvider(
            resource=Resource.create({**named, "service.version": version("fleetprompt")}),
            id_generator=GivenIds(),
        )
        _provider.add_span_processor(processor)
        return _provider.get_tracer("fleetprompt", version("fleetprompt"))


def exporting_tracer(service: str) -> Tracer | None:
    """A tracer that exports in the background; None, and a warning, if the extra is not installed."""
    if not _INSTALLED:
        logger.warning(
            "an OTLP endpoint is set, but no spans are sent: install `fleetprompt[telemetry]`"
        )
        return None
    return tracer_of(service, BatchSpanProcessor(OTLPSpanExporter()))


def flush_exporter() -> None:
    """Send what waits."""
    if _INSTALLED and _provider is not None:
        _provider.force_flush(_FLUSH_MILLISECONDS)
