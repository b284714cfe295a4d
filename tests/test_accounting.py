"""What a finished answer teaches the live row."""

from __future__ import annotations

import json

import pytest

from proxy.accounting import account
from proxy.answer import Answer
from proxy.catalog import Deployment
from proxy.config import parse
from proxy.framing import LengthBody
from proxy.headers import read_response_head
from proxy.meters import Row

CONFIG = parse(
    '[providers.p]\nbase_url = "http://127.0.0.1:1/v1"\n[models."p/m"]\ninput_price = 2\noutput_price = 10\n'
)
COUNTS = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
USAGE = json.dumps({"usage": COUNTS}).encode()
EVENTS = b"data: {}\n\ndata: " + USAGE + b"\n\ndata: [DONE]\n\n"


def finished(status: bytes, body: bytes, *lines: bytes) -> Row:
    deployment = Deployment(CONFIG.models["p/m"], CONFIG.providers["p"], usable=True)
    row = Row(30.0)
    row.sent(1.0)
    row.left_awaiting()
    framing = LengthBody(len(body))
    answer = Answer(read_response_head(b"\r\n".join((b"HTTP/1.1 " + status, *lines))), framing, 1)
    framing.feed(body)
    answer.pass_on(body)
    account(row, deployment, answer, "chat", 4000, 2.0, 5.0)
    assert (row.in_flight, row.awaiting) == (0, 0)
    return row


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


@pytest.mark.parametrize("status", [b"500 Oops", b"503 Busy", b"408 Slow", b"429 Many", b"401 Key"])
def test_a_failure_of_the_provider(status):
    row = finished(status, USAGE)
    assert row.success.mean() == 0.0
    assert row.last_error == f"HTTP {int(status[:3])}"


def test_a_compressed_answer_teaches_nothing_but_its_success():
    row = finished(b"200 OK", USAGE, b"Content-Encoding: gzip")
    assert row.success.mean() == 1.0
    assert row.snapshot(5.0)["usd_per_request"] is None
