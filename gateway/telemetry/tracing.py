"""Spans of requests through OpenTelemetry's SDK; the only module that knows it.

Rule: which trace a request belongs to, and whether it is sampled, is decided when it comes, because its
upstream has to be told; the spans themselves are made at its end. Exporting is a thread's work. Knows nothing
about what spans say.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway import __version__
from gateway.record import Record
from gateway.serve.job import Job
from gateway.telemetry.spans import Span, request_span
from gateway.telemetry.trace import Parent, Spans, Trace, parent

END = 3.0  # seconds for spans that are not exported yet, at the end

_new_span = partial(secrets.token_hex, 8)


class _Ids(RandomIdGenerator):
    """Ids that were told to others before their spans are made, else new ones."""

    trace = span = ""

    def generate_trace_id(self) -> int:
        given, self.trace = self.trace, ""
        return int(given, 16) if given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        given, self.span = self.span, ""
        return int(given, 16) if given else super().generate_span_id()


class Tracing:
    """``exporter`` takes the spans, in a thread; by default an OTLP receiver at ``spans.endpoint``."""

    def __init__(self, spans: Spans, exporter: SpanExporter | None = None) -> None:
        self.content = spans.content
        self._ids = _Ids()
        known = Resource.create({"service.name": "modal-gateway", "service.version": __version__})
        self._provider = TracerProvider(
            resource=known.merge(OTELResourceDetector().detect()),  # OTEL_SERVICE_NAME and its like
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        if exporter is None:
            exporter = OTLPSpanExporter(endpoint=f"{(spans.endpoint or '').rstrip('/')}/v1/traces")
        self._exporter = exporter
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("modal-gateway", __version__)

    def begin(self, head: Mapping[bytes, bytes]) -> Trace:
        """The trace that a request with these headers belongs to."""
        above = parent(head)
        trace_id = above.trace_id if above is not None else secrets.token_hex(16)
        said = self._provider.sampler.should_sample(
            _context(above), int(trace_id, 16), "request", SpanKind.SERVER
        )
        sampled = said.decision is Decision.RECORD_AND_SAMPLE
        state = above.state if above is not None else ""
        new = _new_span if sampled else None
        return Trace(trace_id, "01" if sampled else "00", state, above, _new_span(), new)

    def observe(self, record: Record, job: Job) -> None:
        """Make the spans of a request that is over."""
        trace = job.trace
        if trace is None or trace.new_span is None:
            return
        self._ids.trace = trace.trace_id if trace.parent is None else ""
        span = request_span(record, job, content=self.content)
        self._make(span, SpanKind.SERVER, _context(trace.parent))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Afterwards everything is exported, as far as that takes no longer than ``END``."""
        try:
            yield
        finally:
            await asyncio.shield(asyncio.get_running_loop().create_task(self._end()))

    async def _end(self) -> None:
        """In a thread that nobody has to wait for: a receiver that is away is asked again and again."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(over.set)

        threading.Thread(target=end, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(END):
                await over.wait()
        except TimeoutError:
            self._exporter.shutdown()  # ends the pauses in which it waits

    def _make(self, span: Span, kind: SpanKind, context: Context) -> None:
        self._ids.span = span.id
        made = self._tracer.start_span(span.name, context, kind, span.attributes, start_time=span.start)
        self._ids.span = self._ids.trace = ""
        if span.error is not None:
            made.set_status(Status(StatusCode.ERROR, span.error))
        inside = set_span_in_context(made, Context())
        for each in span.below:
            self._make(each, SpanKind.CLIENT if each.id else SpanKind.INTERNAL, inside)
        made.end(span.end)


def _context(above: Parent | None) -> Context:
    if above is None:
        return Context()
    state = TraceState.from_header([above.state]) if above.state else None
    flags = TraceFlags(int(above.flags, 16))
    told = SpanContext(
        int(above.trace_id, 16), int(above.span_id, 16), is_remote=True, trace_flags=flags, trace_state=state
    )
    return set_span_in_context(NonRecordingSpan(told), Context())
