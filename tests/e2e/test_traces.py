"""Traces of the installed program: what a collector gets over OTLP, with one worker and with several."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy import __version__
from proxy.config.settings import Listen
from tests.e2e import Gateway, run
from tests.e2e.background import application
from tests.support.fakes import RawClient, answers, until
from tests.support.traces import PARENT_ID, STATE, TRACE_ID, told, traceparent

SERVER, CLIENT, ERROR = 2, 3, 2
TEXT = """
{tables}
[state]
path = ":memory:"
[providers]
a = {{ base_url = "{a}", auth = "none" }}
b = {{ base_url = "{b}", auth = "none" }}
[models]
"a/m" = {{ input_price = 1, output_price = 2 }}
"b/m" = {{ input_price = 100, output_price = 200 }}
[aliases]
two = {{ models = ["a/m", "b/m"], strategy = "cost" }}
"""
ON = "[traces]\nenabled = true"
USED = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


class Span(NamedTuple):
    """A span as it came; ``error`` are the status's words, None if it is no error."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    error: str | None
    says: dict[str, Any]
    process: dict[str, Any]


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


class Collector:
    """An OTLP collector: every batch is taken, and taken apart."""

    url = ""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        self.headers.append(dict(request.headers))
        batch = ExportTraceServiceRequest.FromString(await request.read())
        for resource in batch.resource_spans:
            process = values(resource.resource.attributes)
            for scope in resource.scope_spans:
                assert (scope.scope.name, scope.scope.version) == ("tokenhub", __version__)
                self.spans += [self._read(span, process) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    @staticmethod
    def _read(span: Any, process: dict[str, Any]) -> Span:
        error = span.status.message if span.status.code == ERROR else None
        ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        times = span.start_time_unix_nano, span.end_time_unix_nano
        return Span(span.name, span.kind, *ids, *times, error, values(span.attributes), process)

    async def tree(self) -> tuple[Span, list[Span]]:
        """The next request whose span has come, and its attempts in their order."""
        await until(lambda: any(span.kind == SERVER for span in self.spans), 15)
        request = next(span for span in self.spans if span.kind == SERVER)
        attempts = [span for span in self.spans if span.parent == request.id]
        assert {span.trace for span in attempts} <= {request.trace}
        assert all(span.kind == CLIENT for span in attempts)
        assert all(request.began <= s.began <= s.ended <= request.ended for s in attempts)
        self.spans = [span for span in self.spans if span is not request and span not in attempts]
        return request, sorted(attempts, key=lambda span: span.says["tokenhub.attempt"])


@pytest.fixture
async def collector():
    made, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", made.take)
    async with application(app) as made.url:
        yield made


@asynccontextmanager
async def serving(
    folder: Path, a: str, b: str, *args: str, tables: str = ON, **environ: str
) -> AsyncIterator[Gateway]:
    """A gateway; its start and its end leave the loop to the others."""
    environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "20")
    gateway = Gateway(folder, TEXT.format(tables=tables, a=a, b=b), *args, **environ)
    await asyncio.to_thread(gateway.__enter__)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.__exit__)


async def ask(gateway: Gateway, body: bytes, *headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    client = await RawClient.to(Listen(*gateway.host_and_port))
    await client.post(body, extra="".join(f"{line}\r\n" for line in headers).encode())
    reply = await client.response()
    client.close()
    return reply


@WORKERS
async def test_a_failover_within_the_clients_trace(tmp_path, provider, other, collector, workers):
    provider.script, other.script = answers(status=b"503 Busy"), answers(USED)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-team=search"}
    async with serving(tmp_path, provider.url, other.url, "--workers", workers, **environ) as gateway:
        status, fields, _ = await ask(gateway, b'{"model":"two"}', traceparent(), STATE)
        assert status == 200
        request, [first, second] = await collector.tree()
    assert (request.name, first.name, second.name) == ("chat two", "chat m", "chat m")
    assert (request.trace, request.parent) == (f"{TRACE_ID:032x}", f"{PARENT_ID:016x}")
    for asked, attempt in ((provider, first), (other, second)):
        assert told(asked.seen[0][0]) == [traceparent(span_id=int(attempt.id, 16)), STATE]
    assert (first.error, second.error, request.error) == ("answered 503", None, None)
    assert first.says["error.type"] == "503"
    assert first.says["http.response.status_code"] == 503
    assert (first.says["server.port"], second.says["server.port"]) == (provider.port, other.port)
    told_of = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "two",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
        "http.response.status_code": 200,
        "tokenhub.attempts": 2,
        "tokenhub.model": "b/m",
        "tokenhub.request_id": fields[b"x-inferoute-request-id"].decode(),
        "tokenhub.strategy": "cost",
        "tokenhub.usd": (3 * 100 + 4 * 200) / 1e6,
    }
    assert {name: request.says[name] for name in told_of} == told_of
    assert request.process["service.name"] == "tokenhub"
    assert request.process["service.version"] == __version__
    assert ("tokenhub.worker" in request.process) == (workers == "2")
    assert collector.headers[0]["x-team"] == "search"
    assert abs(request.ended / 1e9 - time.time()) < 60


async def test_each_worker_sends_its_own(tmp_path, provider, other, collector):
    provider.script = answers(USED)
    tables = f'{ON}\nendpoint = "{collector.url}"'
    more = {"tables": tables, "OTEL_SERVICE_NAME": "edge"}
    async with serving(tmp_path, provider.url, other.url, "--workers", "2", **more) as gateway:
        seen: dict[int, dict[str, Any]] = {}
        async with asyncio.timeout(20):
            while len(seen) < 2:  # which worker gets a connection is the system's choice
                assert (await ask(gateway, b'{"model":"a/m"}'))[0] == 200
                request, _ = await collector.tree()
                seen[request.process["tokenhub.worker"]] = request.process
    one, two = seen[0], seen[1]
    assert one["service.name"] == two["service.name"] == "edge"
    assert one["process.pid"] != two["process.pid"]
    assert one["service.instance.id"] != two["service.instance.id"]


async def test_a_flag_that_says_no_is_obeyed(tmp_path, provider, other, collector):
    provider.script = answers(USED)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    async with serving(tmp_path, provider.url, other.url, **environ) as gateway:
        for flags in (0, 1):
            assert (await ask(gateway, b'{"model":"a/m"}', traceparent(flags=flags)))[0] == 200
        request, _ = await collector.tree()
    assert request.parent == f"{PARENT_ID:016x}"
    assert not collector.spans
    assert [told(head)[0][-2:] for head, _ in provider.seen] == ["00", "01"]


@WORKERS
async def test_off_the_clients_context_passes_as_it_is(tmp_path, provider, other, collector, workers):
    provider.script = answers(USED)
    tables = f'[traces]\nendpoint = "{collector.url}"'
    async with serving(tmp_path, provider.url, other.url, "--workers", workers, tables=tables) as gateway:
        assert (await ask(gateway, b'{"model":"a/m"}', "TraceParent: any thing", STATE))[0] == 200
    assert told(provider.seen[0][0]) == ["TraceParent: any thing", STATE]
    assert not collector.spans


@WORKERS
def test_without_the_extra_it_says_what_is_missing(tmp_path, workers):
    missing = tmp_path / "opentelemetry" / "__init__.py"
    missing.parent.mkdir()
    missing.write_text("raise ImportError(\"No module named 'opentelemetry'\")\n")
    config = tmp_path / "routes.toml"
    config.write_text(TEXT.format(tables=ON, a="http://127.0.0.1:1", b="http://127.0.0.1:1"))
    command = ("serve", "--config", str(config), "--listen", "127.0.0.1:0", "--workers", workers)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run(*command, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert "pip install '/path/to/repository[otel]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
