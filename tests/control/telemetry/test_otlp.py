"""Where spans go: endpoints, standard variables, and a collector that is away."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import uuid
from random import Random

import pytest
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from proxy import __version__
from proxy.config.settings import TracesConfig
from proxy.control.telemetry import otlp
from proxy.control.telemetry.otlp import Otlp, endpoint_of, resource_of
from proxy.relay.exchange.tracing import Parent, Tracing
from tests.support.fakes import ScriptedProvider, answers, dead_url, hangs
from tests.support.traces import Kept
from tests.support.two_providers import ask, config

ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(("written", "environ", "endpoint"), [
    ("", {}, "http://localhost:4318/v1/traces"),
    ("", {ALL: "https://c:1/base/"}, "https://c:1/base/v1/traces"),
    ("", {ALL: "http://c:1", TRACES: "http://d:2/as/it/is"}, "http://d:2/as/it/is"),
    ("http://e:3", {ALL: "http://c:1", TRACES: "http://d:2/x"}, "http://e:3/v1/traces"),
    ("http://e:3/", {}, "http://e:3/v1/traces"),
    ("http://e:3/v1/traces", {}, "http://e:3/v1/traces"),
])  # fmt: skip
def test_the_endpoint(written, environ, endpoint):
    assert endpoint_of(TracesConfig(endpoint=written), environ) == endpoint


def test_what_the_process_is(monkeypatch):
    one, two = resource_of(None).attributes, resource_of(3).attributes
    assert (one["service.name"], one["service.version"]) == ("tokenhub", __version__)
    assert one["process.pid"] == os.getpid()
    assert uuid.UUID(one["service.instance.id"]) != uuid.UUID(two["service.instance.id"])
    assert one["telemetry.sdk.name"] == "opentelemetry"
    assert "tokenhub.worker" not in one and two["tokenhub.worker"] == 3
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab,service.version=0")
    told = resource_of(None).attributes
    assert (told["service.name"], told["service.version"]) == ("edge", "0")
    assert told["deployment.environment.name"] == "lab"


def sampler_of(sample: float | None):
    made = Otlp(TracesConfig(sample=sample), None, Kept())
    made._processor.shutdown()
    return made._sampler


def test_how_much_is_sampled(monkeypatch):
    assert sampler_of(0.25).get_description() == ParentBased(TraceIdRatioBased(0.25)).get_description()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    assert sampler_of(None).get_description() == TraceIdRatioBased(0.5).get_description()
    assert sampler_of(1.0).get_description() == ParentBased(TraceIdRatioBased(1.0)).get_description()


@pytest.mark.parametrize(("sample", "variable", "asked"), [
    (None, "", [False, True]), (None, "parentbased_always_off", [False, True]),
    (None, "always_on", [True, True]), (None, "always_off", [False, False]),
    (0.0, "always_on", [False, True]),
])  # fmt: skip
def test_who_obeys_the_client(monkeypatch, sample, variable, asked):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", variable)
    if not variable:
        monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    made = Otlp(TracesConfig(sample=sample), None, Kept())
    made._processor.shutdown()
    assert [made.samples(1, Parent(1, 2, flags, "a=1")) for flags in (0, 1)] == asked


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
async def test_another_protocol_is_told_of(monkeypatch, caplog, name):
    monkeypatch.setenv(name, "grpc")
    with caplog.at_level(logging.INFO, "tokenhub"):
        made = Otlp(TracesConfig(endpoint="http://user:secret@127.0.0.1:1"), None)
    await made.close()
    assert "grpc, but spans go over http/protobuf" in caplog.text
    assert "spans go to http://127.0.0.1:1/v1/traces" in caplog.text
    assert "secret" not in caplog.text


def collecting(server, endpoint: str) -> Tracing:
    """The gateway traces, by the exporter that goes to real collectors."""
    server.gateway.tracing = Tracing(Otlp(TracesConfig(endpoint=endpoint), None), Random(1))
    return server.gateway.tracing


@pytest.fixture(autouse=True)
def _switching():
    """An exporter changes how often threads take turns."""
    interval_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval_s)


@pytest.fixture
async def collector():
    async with ScriptedProvider() as scripted:
        yield scripted


async def test_the_last_spans_are_sent_at_the_end(provider, other, start, collector):
    provider.script, collector.script = answers(b"{}"), answers(b"")
    server = await start(config(provider, other))
    tracing = collecting(server, collector.url.removesuffix("/v1"))
    assert sys.getswitchinterval() < 0.001  # its work must not keep the event loop waiting
    assert (await ask(server, "a/m")).status == 200
    await tracing.close()
    [(head, body)] = collector.seen
    assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n") and b"application/x-protobuf" in head
    assert b"chat a/m" in body and b"chat m" in body


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_collector_that_is_away_is_not_waited_for(
    provider, other, start, collector, monkeypatch, caplog, is_there
):
    monkeypatch.setattr(otlp, "FLUSH_S", 0.2)
    provider.script, collector.script = answers(b"{}"), hangs
    server = await start(config(provider, other))
    url = collector.url if is_there else dead_url()
    tracing = collecting(server, url.removesuffix("/v1"))
    assert (await ask(server, "a/m")).status == 200
    begun_at = time.monotonic()
    await tracing.close()
    assert time.monotonic() - begun_at < 5  # the exporter alone would try for ten seconds
    assert "did not take the last spans within 0.2 s" in caplog.text


class Stuck(Kept):
    """A collector that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def export(self, spans):
        self.goes_on.wait(10)
        return super().export(spans)


async def test_a_queue_that_is_full_drops_spans_and_not_requests(provider, other, start, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    provider.script = answers(b"{}")
    server = await start(config(provider, other))
    stuck = Stuck()
    tracing = server.gateway.tracing = Tracing(Otlp(TracesConfig(), None, stuck), Random(1))
    replies = await asyncio.gather(*(ask(server, "a/m") for _ in range(10)))
    assert [reply.status for reply in replies] == [200] * 10
    stuck.goes_on.set()
    await tracing.close()
    assert 4 <= len(stuck.spans) <= 4 + 2  # of twenty: the queue, and what was taken out of it before
