"""W3C trace context through HTTP, outbox, Kafka and provider calls.

A request always has a `traceparent`, whether or not spans are exported, so that logs and events can be joined by it.
Spans cost something only where OTEL_EXPORTER_OTLP_ENDPOINT is set; the SDK is not even imported otherwise.
"""

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

# https://www.w3.org/TR/trace-context/#traceparent-header: four lower-case hex fields; all-zero ids are invalid
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


# asking OpenTelemetry instead looks into the environment each time, a tenth of the cost of accepting a request
_exporting = False


def configure(service: str, *, version: str = "0") -> None:
    """Export spans where OTEL_EXPORTER_OTLP_ENDPOINT names a collector (OTLP over HTTP); else do nothing."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"scenewire-{service}", "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    global _exporting
    _exporting = True


def parse(header: str | None) -> str | None:
    """The header when it is a valid traceparent (of version 00 in full), else None."""
    if header is None:
        return None
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None or (found[1] == "00" and found[5]):
        return None
    # of a later version only the four known fields are kept
    return f"00-{found[2]}-{found[3]}-{found[4]}"


def make() -> str:
    """A new trace, marked as sampled so that a later process that exports spans records it."""
    # no secret: the system's generator would cost every request two calls into the kernel
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-01"


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]


@contextmanager
def span(name: str, traceparent: str | None, *, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[str]:
    """A span under `traceparent` (a new trace without one); gives the traceparent to hand on.

    With tracing off that is the given one, or a new one where none was given.
    """
    parent = parse(traceparent)
    if not _exporting:
        # spans would be made and thrown away
        yield parent or make()
        return
    tracer = trace.get_tracer("scenewire")
    context = None
    if parent is not None:
        _, trace_hex, span_hex, flags = parent.split("-")
        remote = SpanContext(
            int(trace_hex, 16), int(span_hex, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
        )
        context = trace.set_span_in_context(NonRecordingSpan(remote))
    with tracer.start_as_current_span(name, context=context, kind=kind) as current:
        own = current.get_span_context()
        if own.is_valid and current.is_recording():
            yield f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        else:
            yield parent or make()
