"""Spans with OpenTelemetry: the only module that uses it. The extra ``otel`` installs it; only ``tracing.start`` imports this module.

The SDK reads its own variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…, OTEL_EXPORTER_OTLP_…; see
docs/tracing.md). If a program has set its own tracer provider, spans go there.

Guarantees: a thread sends spans, so no call waits for the collector. Up to OTEL_BSP_MAX_QUEUE_SIZE (2048) spans wait
for it; others are dropped. If the collector cannot be reached, this is logged at most once in 20 seconds for the same
reason. The end of the process waits for it up to ``CLOSE_S``. Spans contain no error messages and no values of calls.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace.propagation import set_span_in_context

from coordinator.telemetry.tracing import Kind, TraceContext, Value
from coordinator.version import version

__all__ = ["OpenTelemetry"]

CLOSE_S = 3.0

_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class OpenTelemetry:
    """Makes spans; a ``Tracer``. It closes the provider only if it is ``owned``."""

    def __init__(self, provider: trace.TracerProvider, *, owned: bool = False) -> None:
        self._tracer = provider.get_tracer("coordinator", version())
        self._owned = provider if owned and isinstance(provider, TracerProvider) else None

    @classmethod
    def opened(cls, service: str) -> OpenTelemetry:
        """Use the provider of the program; without one, create one that sends to a collector, in the name of ``service``."""
        found = trace.get_tracer_provider()
        if not isinstance(found, trace.ProxyTracerProvider):
            return cls(found)
        resource = Resource.create()
        facts = {SERVICE_VERSION: version()}
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            facts[SERVICE_NAME] = service
        provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, owned=True)

    def span(
        self, name: str, kind: Kind, attributes: Mapping[str, Value], parent: TraceContext | None
    ) -> _RecordedSpan:
        """Make a span below ``parent``, or below the current one."""
        context = None if parent is None else _context_of(parent)
        return _RecordedSpan(self._tracer.start_span(name, context, _KINDS[kind], attributes))

    def record(self, name: str, began_ns: int, attributes: Mapping[str, Value]) -> None:
        """Make a separate span that began at a time since 1970 and ends now."""
        self._tracer.start_span(name, Context(), SpanKind.INTERNAL, attributes, start_time=began_ns).end()

    def current(self) -> TraceContext | None:
        """Return the current context."""
        span = trace.get_current_span()
        if span is INVALID_SPAN:
            return None
        context = span.get_span_context()
        text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return TraceContext(text, context.trace_state.to_header() or None)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Have no current span within the context."""
        token = attach(Context())
        try:
            yield
        finally:
            detach(token)

    def close(self) -> None:
        """Send the remaining spans, for at most ``CLOSE_S``."""
        if self._owned is not None:
            closing = threading.Thread(target=self._owned.shutdown, name="tracing-close", daemon=True)
            closing.start()
            closing.join(CLOSE_S)


class _RecordedSpan:
    """A span of OpenTelemetry that is the current one within its context."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> Self:
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._token)
        if isinstance(error, Exception):
            self.fail(getattr(error, "name", None) or type(error).__name__)
        elif kind is not None:  # cancelled, which does not need attention
            self._span.set_attribute("error.type", kind.__name__)
        self._span.end()

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))


def _context_of(parent: TraceContext) -> Context:
    _, trace_id, span_id, flags = parent.traceparent.split("-")
    state = TraceState.from_header([parent.tracestate]) if parent.tracestate else TraceState()
    found = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)), trace_state=state
    )
    return set_span_in_context(NonRecordingSpan(found), Context())
