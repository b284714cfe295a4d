"""What a finished answer teaches the live row."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from proxy.accounting import account, estimated
from proxy.admission import Most
from proxy.answer import Answer
from proxy.config import ModelConfig, parse
from proxy.deployment import Deployment
from proxy.framing import LengthBody
from proxy.headers import read_response_head
from proxy.meters import Row
from proxy.record import Record
from proxy.tokens import Usage
from tests.attemptcases import rows
from tests.conftest import until
from tests.fakes import EVENT_STREAM, Call, RawClient, chunk

CONFIG = parse(
    '[providers.p]\nbase_url = "http://127.0.0.1:1/v1"\n[models."p/m"]\ninput_price = 2\noutput_price = 10\n'
)
COUNTS = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
USAGE = json.dumps({"usage": COUNTS}).encode()
GZIPPED = gzip.compress(USAGE, mtime=0)  # parameters are the same in every process that collects
EVENTS = b"data: {}\n\ndata: " + USAGE + b"\n\ndata: [DONE]\n\n"


def told(
    status: bytes, body: bytes, *lines: bytes, prices: bool = True
) -> tuple[Row, tuple[Usage | None, int | None]]:
    model = CONFIG.models["p/m"]
    if not prices:
        model = ModelConfig("p/m", "p", "m")
    record = Record(Deployment(model, CONFIG.providers["p"], usable=True), "chat", True, 1.0)
    record.first_byte(3.0)
    framing = LengthBody(len(body))
    answer = Answer(read_response_head(b"\r\n".join((b"HTTP/1.1 " + status, *lines))), framing, 1)
    framing.feed(body)
    answer.pass_on(body)
    result = account(record, answer, "chat", 4000, 2.0, 5.0)
    assert record.is_over
    assert (record.row.in_flight, record.row.awaiting) == (0, 0)
    return record.row, result


def finished(status: bytes, body: bytes, *lines: bytes) -> Row:
    return told(status, body, *lines)[0]


def test_a_plain_answer():
    row = finished(b"200 OK", USAGE).snapshot(5.0)
    assert row["usd_per_request"] == pytest.approx(0.003)
    assert (row["output_tokens"], row["tokens_per_byte"]) == (100, 0.25)
    assert row["output_tokens_per_s"] is None


def test_a_stream_teaches_its_pace_too():
    row = finished(b"200 OK", EVENTS, b"Content-Type: text/event-stream").snapshot(5.0)
    assert row["usd_per_request"] == pytest.approx(0.003)
    assert row["output_tokens_per_s"] == pytest.approx(50)


@pytest.mark.parametrize("status", [b"400 Bad", b"403 No", b"404 None", b"422 Unprocessable"])
def test_a_requests_own_mistake_is_a_success_of_the_provider(status):
    row = finished(status, USAGE)
    assert row.success.mean() == 1.0
    assert row.last_error is None
    assert row.snapshot(5.0)["usd_per_request"] is None


@pytest.mark.parametrize(
    ("status", "body", "lines", "prices", "result"),
    [
        (b"200 OK", USAGE, (), True, (Usage(1000, 0, 0, 100), 3_000_000)),
        (b"200 OK", USAGE, (), False, (Usage(1000, 0, 0, 100), None)),
        (b"200 OK", EVENTS, (b"Content-Type: text/event-stream",), True, (Usage(1000, 0, 0, 100), 3_000_000)),
        (b"200 OK", b"{}", (), True, (None, None)),
        (b"200 OK", b"data: [DONE]\n\n", (b"Content-Type: text/event-stream",), True, (None, None)),
        (b"200 OK", USAGE, (b"Content-Encoding: gzip",), True, (None, None)),
        (b"400 Bad", USAGE, (), True, (None, None)),
    ],
)
def test_what_is_handed_back(status, body, lines, prices, result):
    row, found = told(status, body, *lines, prices=prices)
    assert found == result
    assert (row.snapshot(5.0)["usd_per_request"] is None) == (found[0] is None)


def test_what_is_over_already_is_not_ended_twice():
    """A client that left after the last event: its attempt was ended by that."""
    record = Record(Deployment(CONFIG.models["p/m"], CONFIG.providers["p"], usable=True), "chat", True, 1.0)
    record.left(2.0)
    framing = LengthBody(len(USAGE))
    answer = Answer(read_response_head(b"HTTP/1.1 200 OK"), framing, 1)
    framing.feed(USAGE)
    answer.pass_on(USAGE)
    assert account(record, answer, "chat", 4000, 2.0, 5.0)[1] == 3_000_000
    assert (record.row.in_flight, record.row.finished_count) == (0, 1)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [(b"gzip", GZIPPED), (b"X-GZip", GZIPPED), (b"deflate", zlib.compress(USAGE))],
)
def test_a_compressed_answer_that_can_be_decoded(encoding, body):
    _, found = told(b"200 OK", body, b"Content-Encoding: " + encoding)
    assert found == (Usage(1000, 0, 0, 100), 3_000_000)
    stream = b"Content-Type: text/event-stream"
    _, found = told(b"200 OK", gzip.compress(EVENTS), b"Content-Encoding: gzip", stream)
    assert found == (Usage(1000, 0, 0, 100), 3_000_000)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_usage_of_a_compressed_answer_that_passes(provider, start, streamed):
    body = gzip.compress(EVENTS if streamed else USAGE)
    extra = b"Content-Encoding: gzip\r\n"

    async def script(call: Call) -> None:
        head, _ = await call.request()
        assert b"\r\nAccept-Encoding: gzip\r\n" in head
        if streamed:
            await call.send(EVENT_STREAM[:-2] + extra + b"\r\n")
            for i in range(0, len(body), 7):
                await call.send(chunk(body[i : i + 7]))
            await call.send(b"0\r\n\r\n")
        else:
            await call.answer(body, extra=extra)

    provider.script = script
    server = await start(
        f'[providers.p]\nbase_url = "{provider.url}"\nauth = "none"\ncompression = "pass"\n'
        '[models."p/m"]\ninput_price = 2\noutput_price = 10\n'
    )
    client = await RawClient.connect(server)
    await client.post(b'{"model":"m","messages":[]}', extra=b"Accept-Encoding: gzip\r\n")
    status, fields, got = await client.response()
    assert (status, fields[b"content-encoding"], got) == (200, b"gzip", body)
    await until(lambda: server.gateway.endings.latest)
    (row,) = rows(server)
    assert (row["input_tokens"], row["output_tokens"], row["usd"]) == (1000, 100, pytest.approx(0.003))
    assert row["usage_source"] == "provider"


def test_a_compressed_answer_teaches_nothing_but_its_success():
    row = finished(b"200 OK", USAGE, b"Content-Encoding: gzip")
    assert row.success.mean() == 1.0
    assert row.snapshot(5.0)["usd_per_request"] is None


REAL = {"input_tokens": 1000, "output_tokens": 100}
FALSE = {"input_tokens": 1, "output_tokens": 1}
FILL = [{"type": "text", "text": "x" * 200}] * 200  # 40 KB


@pytest.mark.parametrize("size", [1, 10, 200])
@pytest.mark.parametrize("place", ["before", "behind", "both"])
@pytest.mark.parametrize("cuts", [1 << 20, 4000])
async def test_what_a_tool_is_called_with_is_no_usage(provider, start, size, place, cuts):
    call = {"type": "tool_use", "input": {"usage": FALSE, "a": [{"usage": FALSE}]}}
    fill = FILL[:size]
    content = (
        [call, *fill] if place == "before" else [*fill, call] if place == "behind" else [call, *fill, call]
    )
    for members in ({"usage": REAL, "content": content}, {"content": content, "usage": REAL}):
        body = json.dumps({"id": "x", **members}).encode()

        async def script(call: Call, body: bytes = body) -> None:
            await call.request()
            await call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            await call.send(b"Content-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), cuts):
                await call.send(body[at : at + cuts])
            raise ConnectionError

        provider.script = script
        server = await start(
            f'[providers.p]\nbase_url = "{provider.url}"\nauth = "none"\nendpoints = ["messages"]\n'
            '[models."p/m"]\ninput_price = 2\noutput_price = 10\ncapabilities = ["messages"]\n'
        )
        client = await RawClient.connect(server)
        await client.post(b'{"model":"m","max_tokens":4000,"messages":[]}', b"/v1/messages")
        assert (await client.response())[2] == body
        await until(lambda server=server: server.gateway.endings.latest)
        (row,) = rows(server)
        assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (1000, 100, "provider")


@pytest.mark.parametrize("lines", [(), (b"Content-Type: text/plain",), (b"Content-Type: application/json",)])
@pytest.mark.parametrize("begin", [b"", b": hello\n\n", b"event: x\n", b"\n\n"])
def test_a_stream_that_does_not_say_so(lines, begin):
    usage = Usage(1000, 0, 0, 100)
    assert told(b"200 OK", begin + EVENTS, *lines)[1] == (usage, 3_000_000)
    padded = begin + b"data: {}\n\n" * 5000 + EVENTS
    assert told(b"200 OK", padded, *lines)[1] == (usage, 3_000_000)


def test_what_a_member_was_kept_from_is_not_its_time():
    """A client that reads slowly is not charged for the time in which nothing could be sent."""
    record = Record(Deployment(CONFIG.models["p/m"], CONFIG.providers["p"], usable=True), "chat", True, 1.0)
    record.row.charged(1.0, 4000, Usage(1000, 0, 0, 100), 0.01, 1.0, 1.0)  # 100 tokens a second
    assert estimated(record, None, "chat", Most(10, 9000), 11.0, is_over=False, is_async=False)[0] == Usage(
        10, 0, 0, 1000, 0, True
    )
    record.held_s = 9.0
    assert estimated(record, None, "chat", Most(10, 9000), 11.0, is_over=False, is_async=False)[0] == Usage(
        10, 0, 0, 100, 0, True
    )
    assert record.worked_s(11.0) == 1.0
