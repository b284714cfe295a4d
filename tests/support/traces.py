"""What the tests of traces share: a gateway whose spans stay here, and a client with a span of its own."""

from __future__ import annotations

from random import Random

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from proxy.config.settings import TracesConfig
from proxy.control.telemetry.otlp import Otlp
from proxy.relay.exchange.tracing import Tracing
from proxy.server.single import Server

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
PARENT_ID = 0xB7AD6B7169203331
STATE = "tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


def traceparent(trace_id: int = TRACE_ID, span_id: int = PARENT_ID, flags: int = 1) -> str:
    return f"traceparent: 00-{trace_id:032x}-{span_id:016x}-{flags:02x}"


def told(head: bytes) -> list[str]:
    """What a provider was told of the trace: the lines of its request's head."""
    return sorted(line for line in head.decode().split("\r\n") if line.lower().startswith("trace"))


class Kept(SpanExporter):
    """A collector in this process."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans):
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""


class Traced:
    """A gateway that traces, from now on; to its ``spans`` come those of the requests that are over."""

    def __init__(self, server: Server, sample: float | None = None) -> None:
        self._kept = Kept()
        self.collector = Otlp(TracesConfig(enabled=True, sample=sample), None, self._kept)
        self.gateway = server.gateway
        self.gateway.tracing = Tracing(self.collector, Random(1))

    @property
    def spans(self) -> list[ReadableSpan]:
        self.collector._processor.force_flush()
        return self._kept.spans

    def tree(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """The span of the only request, and those of its attempts, which are below it."""
        [request] = [span for span in self.spans if span.kind is SpanKind.SERVER]
        attempts = [span for span in self.spans if span.kind is SpanKind.CLIENT]
        assert len(attempts) + 1 == len(self.spans)
        for span in attempts:
            assert span.parent.span_id == request.context.span_id
            assert span.context.trace_id == request.context.trace_id
            assert request.start_time <= span.start_time <= span.end_time <= request.end_time
        return request, attempts
