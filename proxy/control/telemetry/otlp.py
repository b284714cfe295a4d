"""Exports spans to a collector over OTLP (HTTP, protobuf), in a thread of OpenTelemetry's own.

The thread's queue is bounded: spans that a collector does not take, because it is away or too slow, are
dropped, which is logged; no request waits for them. All but ``[traces]`` is set by OpenTelemetry's standard
variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context

from proxy import __version__
from proxy.config.settings import TracesConfig
from proxy.control.telemetry.spans import context_of, spans_of
from proxy.relay.exchange.tracing import SAMPLED

if TYPE_CHECKING:
    from proxy.relay.exchange.exchange import Exchange
    from proxy.relay.exchange.tracing import Parent, Trace

log = logging.getLogger("tokenhub.traces")


class _Session(requests.Session):
    """Follows no redirects: they would take the collector's key, which may be in a header, elsewhere. Not
    every version of the exporter prevents that."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


# How long a stop waits for a collector to take the last spans; a supervisor waits longer for its workers.
FLUSH_S = 2.0
# The thread serializes a batch for tens of milliseconds, and hands the interpreter to the event loop at this
# interval: with Python's own 5 ms, requests at 500 a second had a median of 0.53 ms instead of 0.37.
_SWITCH_S = 0.0002
_PATH = "/v1/traces"


class Otlp:
    """Samples requests and exports their spans.

    :param worker: which of several processes this is; None: the only one.
    :param exporter: of a test's own; None: as ``config`` and the standard variables say.
    :raises ValueError: a standard variable can't be used.
    """

    def __init__(
        self, config: TracesConfig, worker: int | None, exporter: SpanExporter | None = None
    ) -> None:
        if exporter is None:
            exporter = _exporter(endpoint_of(config, os.environ))
        sample = config.sample
        provider = TracerProvider(
            sampler=None if sample is None else ParentBased(TraceIdRatioBased(sample)),
            resource=resource_of(worker),
            shutdown_on_exit=False,
        )
        self.resource = provider.resource
        self._sampler = provider.sampler
        # The sampler then need not be called for a request that has a parent, which saves 12 µs.
        wanted = os.environ.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
        self._obeys_parents = sample is not None or wanted.strip().lower().startswith("parentbased_")
        self._exporter = exporter
        self._processor: SpanProcessor = BatchSpanProcessor(exporter)

    def samples(self, trace_id: int, parent: Parent | None) -> bool:
        """Decide whether a trace is sampled."""
        if parent is not None and self._obeys_parents:
            return bool(parent.flags & SAMPLED)
        context = Context()
        if parent is not None:
            span = NonRecordingSpan(context_of(*parent, is_remote=True))
            context = set_span_in_context(span, context)
        result = self._sampler.should_sample(context, trace_id, "request", SpanKind.SERVER)
        return result.decision is Decision.RECORD_AND_SAMPLE

    def take(self, exchange: Exchange, trace: Trace, status: int, now: float) -> None:
        """Make the spans of a request, and leave them to the thread."""
        for span in spans_of(exchange, trace, status, now, self.resource):
            self._processor.on_end(span)

    async def close(self) -> None:
        """Export the last spans, waiting up to :data:`FLUSH_S`."""
        loop = asyncio.get_running_loop()
        is_done = asyncio.Event()

        def flush() -> None:
            self._processor.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop did not wait
                loop.call_soon_threadsafe(is_done.set)

        threading.Thread(target=flush, name="flush-spans", daemon=True).start()
        try:
            await asyncio.wait_for(is_done.wait(), FLUSH_S)
        except TimeoutError:
            log.warning("the collector did not take the last spans within %g s: they are lost", FLUSH_S)
            self._exporter.shutdown()  # it would try again, and again


def _exporter(endpoint: str) -> SpanExporter:
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    if protocol != "http/protobuf":
        log.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %s, but spans go over http/protobuf", protocol)
    # At each of its attempts it would say that the collector is away; that it gave up says enough.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    sys.setswitchinterval(_SWITCH_S)
    parts = urlsplit(endpoint)
    log.info("spans go to %s://%s%s", parts.scheme, parts.netloc.rpartition("@")[2], parts.path)
    return OTLPSpanExporter(endpoint=endpoint, session=_Session())


def endpoint_of(config: TracesConfig, environ: Mapping[str, str]) -> str:
    """The address of the collector: of the file, else of the standard variables, else their default."""
    if not config.endpoint and environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    base = config.endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
    base = base.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def resource_of(worker: int | None) -> Resource:
    """The attributes of this process. ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` have the last
    word."""
    ours: dict[str, str | int] = {
        "service.name": "tokenhub",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
    if worker is not None:
        ours["tokenhub.worker"] = worker
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
