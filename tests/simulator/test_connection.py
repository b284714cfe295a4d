"""One simulated connection with a hand-stepped loop and transport: nothing sleeps, nothing is random."""

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.connection import BURST_EVENTS, MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_PIPELINE, Connection
from proxy.simulator.server import Simulator


class Handle:
    def __init__(self, due, callback, args):
        self.due, self.callback, self.args, self.cancelled = due, callback, args, False

    def cancel(self):
        self.cancelled = True


class Loop:
    def __init__(self):
        self.now = 100.0
        self.handles = []

    def time(self):
        return self.now

    def call_at(self, due, callback, *args):
        handle = Handle(due, callback, args)
        self.handles.append(handle)
        return handle

    def call_later(self, delay, callback, *args):
        return self.call_at(self.now + delay, callback, *args)

    def call_soon(self, callback, *args):
        return self.call_at(self.now, callback, *args)

    @property
    def pending(self):
        return [handle for handle in self.handles if not handle.cancelled]

    def step(self):
        """Run the timer that is due next."""
        handle = min(self.pending, key=lambda h: h.due)
        self.handles.remove(handle)
        self.now = max(self.now, handle.due)
        handle.callback(*handle.args)


class Transport:
    def __init__(self):
        self.written, self.closing, self.reading, self.on_write = [], False, True, None

    def write(self, data):
        self.written.append(data)
        if self.on_write:
            self.on_write()

    def close(self):
        self.closing = True

    abort = close

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    @property
    def data(self):
        return b"".join(self.written)


class Wire:
    def __init__(self, speed=0.0, seed=0):
        self.sim = Simulator(speed=speed, seed=seed, clock=lambda: 1_700_000_000)
        self.loop, self.transport = Loop(), Transport()
        self.connection = Connection(self.sim, self.loop)
        self.connection.connection_made(self.transport)

    def feed(self, data):
        self.connection.data_received(data)
        return self.transport.data

    @property
    def active(self):
        return self.sim.snapshot()["active"]


def post(path="/v1/chat/completions", body=None, version=b"1.1", **headers):
    if body is None:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = b"".join(b"%b: %b\r\n" % (k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())
    head = b"POST %b HTTP/%b\r\nhost: x\r\n%b" % (path.encode(), version, lines)
    if "transfer_encoding" in headers:
        return head + b"\r\n" + content
    return head + b"content-length: %d\r\n\r\n" % len(content) + content


def chunked(data, size=7):
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


STREAM = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def test_two_pipelined_requests_are_answered_in_order_even_when_the_first_waits():
    wire = Wire()
    wire.feed(post(x_sim_latency_ms="250") + post("/v1/nothing"))
    assert wire.transport.data == b""
    assert repr(wire.connection) == "<Connection waiting queued=1 paused=False>"
    (timer,) = wire.loop.pending
    assert timer.due == 100.25
    wire.loop.step()
    assert wire.transport.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.transport.data.index(b"200 OK") < wire.transport.data.index(b"404 Not Found")
    assert wire.active == 0
    assert repr(wire.connection) == "<Connection idle queued=0 paused=False>"


def test_any_split_gives_the_same_answer():
    body = orjson.dumps({"model": "gpt-4o", "messages": [{"content": "é"}], "stream": True, "max_tokens": 2})
    data = (
        post()
        + post(body=chunked(body), transfer_encoding="chunked", x_sim_chunks="5")
        + b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
        + post("/v1/embeddings", {"model": "m", "input": "x"}, connection="close")
    )
    whole = Wire().feed(data)
    assert whole.count(b"HTTP/1.1 200") == 4
    for at in range(1, len(data)):
        wire = Wire()
        wire.feed(data[:at])
        assert wire.feed(data[at:]) == whole, at
    wire = Wire()
    for at in range(len(data)):
        wire.feed(data[at : at + 1])
    assert wire.transport.data == whole
    assert wire.transport.closing


@given(st.lists(st.integers(1, 400), max_size=8))
def test_random_splits_give_the_same_answer(cuts):
    data = post() + post(body=STREAM) + post("/x")
    wire = Wire()
    for cut in cuts:
        wire.feed(data[:cut])
        data = data[cut:]
    wire.feed(data)
    assert wire.transport.data == Wire().feed(post() + post(body=STREAM) + post("/x"))


def test_stream_is_one_write_per_event_and_paced_by_due_times():
    wire = Wire()
    wire.feed(post(body=STREAM, x_sim_latency_ms="100", x_sim_delay_ms="20", x_sim_chunks="3"))
    wire.loop.step()
    head, role, first = wire.transport.written
    assert b"transfer-encoding: chunked" in head
    assert b"openai-processing-ms: 100\r\n" in head
    assert b'"role":"assistant"' in role
    assert b'"content":"This"' in first
    assert repr(wire.connection) == "<Connection streaming queued=0 paused=False>"
    wire.loop.now += 0.015  # a late loop does not move the events behind
    (timer,) = wire.loop.pending
    assert timer.due == pytest.approx(100.12)
    wire.loop.step()
    wire.loop.step()
    assert wire.loop.now == pytest.approx(100.14)
    assert not wire.loop.pending
    finish, done, end = wire.transport.written[-3:]
    assert b'"finish_reason":"stop"' in finish
    assert b"data: [DONE]" in done
    assert end == b"0\r\n\r\n"
    assert wire.sim.snapshot() | {"connections": 0} == {
        "requests": 1, "streams": 1, "active": 0, "aborted": 0, "connections": 0,
    }  # fmt: skip


def test_a_paused_writer_produces_nothing_until_it_is_resumed():
    wire = Wire()
    wire.transport.on_write = lambda: len(wire.transport.written) == 4 and wire.connection.pause_writing()
    wire.feed(post(body=STREAM, x_sim_chunks="10") + post())
    assert len(wire.transport.written) == 4
    assert not wire.loop.pending
    assert "paused=True" in repr(wire.connection)
    wire.connection.resume_writing()
    assert wire.transport.data.count(b'"content":') == 11 + 1  # the role's, ten deltas, and the second answer
    assert wire.active == 0


def test_a_paced_stream_goes_on_after_a_pause_at_its_timer():
    wire = Wire()
    wire.feed(post(body=STREAM, x_sim_chunks="2", x_sim_delay_ms="10"))
    wire.connection.pause_writing()
    wire.loop.step()
    count = len(wire.transport.written)
    assert not wire.loop.pending
    wire.connection.resume_writing()
    assert len(wire.transport.written) == count + 4  # delta, finish, [DONE], last chunk
    assert wire.active == 0
    # While the head is not due, resuming changes nothing.
    wire = Wire()
    wire.feed(post(x_sim_latency_ms="10"))
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    assert wire.transport.data == b""
    wire.loop.step()
    assert wire.active == 0


def test_a_long_stream_without_delays_lets_others_in():
    wire = Wire()
    wire.feed(post(body=STREAM, x_sim_chunks=str(BURST_EVENTS + 5)))
    assert len(wire.loop.pending) == 1
    wire.loop.step()
    assert wire.transport.data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("leave", ["eof_received", "connection_lost"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_client_that_leaves_stops_the_timer(leave, steps):
    wire = Wire()
    wire.feed(post(body=STREAM, x_sim_latency_ms="5", x_sim_delay_ms="5") + post())
    for _ in range(steps):
        wire.loop.step()
    if leave == "eof_received":
        assert not wire.connection.eof_received()
    wire.connection.connection_lost(None)
    assert not wire.loop.pending
    wire.feed(post())
    assert wire.sim.snapshot() == {
        "requests": 1, "streams": int(steps > 0), "active": 0, "aborted": 1, "connections": 0,
    }  # fmt: skip


def test_expect_100_continue():
    wire = Wire()
    head, _, body = post(expect="100-continue").partition(b"\r\n\r\n")
    assert wire.feed(head + b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"200 OK" in wire.feed(body)
    wire = Wire()  # behind a pending request it waits its turn
    assert wire.feed(post(x_sim_latency_ms="5") + head + b"\r\n\r\n") == b""
    wire.loop.step()
    assert wire.transport.data.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert wire.feed(body).count(b"200 OK") == 2
    wire = Wire()  # with the body at once it needs no interim answer
    assert b"100 Continue" not in wire.feed(post(x_sim_latency_ms="5") + post(expect="100-continue"))
    wire.loop.step()
    assert b"100 Continue" not in wire.transport.data


def test_http_1_0_gets_a_stream_without_chunks_and_a_close():
    wire = Wire()
    data = wire.feed(post(body=STREAM, version=b"1.0", connection="keep-alive"))
    assert b"transfer-encoding" not in data
    assert b"\r\nconnection: close\r\n" in data
    assert data.endswith(b"data: [DONE]\n\n")
    assert wire.transport.closing
    wire = Wire()  # elsewhere keep-alive is confirmed
    assert b"\r\nconnection: keep-alive\r\n" in wire.feed(post(version=b"1.0", connection="keep-alive"))
    assert not wire.transport.closing


def test_head_has_the_length_and_no_body():
    data = Wire().feed(b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"content-length: " in data
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01 not http\r\n\r\n", b"400"),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * MAX_HEAD_BYTES, b"431"),
        (post(transfer_encoding="chunked", body=b"zz\r\n"), b"400"),
    ],
)
def test_what_is_no_request_is_refused_behind_the_answers_due_before(data, status):
    wire = Wire()
    wire.feed(post("/v1/nothing", x_sim_latency_ms="9", body=b"{}"))
    assert wire.feed(data) == b""
    wire.loop.step()
    answers = wire.transport.data
    assert answers.index(b"HTTP/1.1 404") < answers.index(b"HTTP/1.1 " + status)
    assert wire.transport.closing
    assert wire.feed(post()) == answers


def test_an_oversized_body_is_refused():
    wire = Wire()
    wire.feed(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (1 << 24, bytes(1 << 24))
    for _ in range(MAX_BODY_BYTES >> 24):
        assert wire.feed(piece) == b""
    assert wire.feed(b"1\r\nx\r\n").startswith(b"HTTP/1.1 413 ")
    assert wire.transport.closing


def test_an_upgrade_is_not_taken():
    wire = Wire()
    request = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert b"200 OK" in wire.feed(request + b"\x81\x05hello")
    assert wire.transport.closing


def test_reading_pauses_behind_a_deep_pipeline():
    wire = Wire()
    wire.feed(post(x_sim_latency_ms="5") + post() * (MAX_PIPELINE + 1))
    assert not wire.transport.reading
    wire.loop.step()
    assert wire.transport.reading
    assert wire.transport.data.count(b"200 OK") == MAX_PIPELINE + 2


async def test_nothing_of_it_needs_a_task():
    wire = Wire()
    wire.feed(post(body=STREAM))
    assert asyncio.all_tasks() == {asyncio.current_task()}
