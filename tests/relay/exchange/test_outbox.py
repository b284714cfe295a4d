"""What waits for the end of a turn, and that nothing is lost or overtaken by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.relay.exchange.outbox import MOST, WriteBatch
from tests.support.fakes import Call, RawClient, ScriptedProvider, until


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


class Box:
    """An outbox whose turns end when the test wants it."""

    def __init__(self) -> None:
        self.ends: list[Callable[[], None]] = []
        self.outbox = WriteBatch(self.ends.append)
        self.one: Any = Transport()
        self.other: Any = Transport()
        self.outbox.write(self.one, b"alone ", 1.0)

    def together(self, transport: Any, data: bytes) -> None:
        self.outbox.write(transport, data, 1.0)


@pytest.fixture
def box() -> Box:
    return Box()


def test_what_is_alone_goes_at_once(box):
    box.outbox.write(box.other, b"later", 2.0)
    assert (box.one.written, box.other.written) == ([b"alone "], [b"later"])
    assert not box.ends


def test_what_comes_together_goes_at_the_end_of_the_turn_in_its_order(box):
    box.together(box.one, b"a")
    box.together(box.other, b"b")
    box.together(box.one, b"c")
    assert (box.one.written, box.other.written) == ([b"alone "], [])
    [end] = box.ends
    end()
    assert (box.one.written, box.other.written) == ([b"alone ", b"a", b"c"], [b"b"])


def test_what_is_large_goes_at_once_and_overtakes_nothing(box):
    box.together(box.one, b"a")
    large = b"x" * (16 << 10) + b"y"
    box.together(box.one, large)
    assert box.one.written == [b"alone ", b"a", large]
    box.together(box.one, b"b")
    [end] = box.ends
    end()
    assert box.one.written[3:] == [b"b"]


def test_no_more_wait_than_gain_by_it(box):
    for _ in range(MOST - 1):
        box.together(box.one, b"a")
    assert box.one.written == [b"alone "]
    box.together(box.other, b"b")
    assert box.one.written[1:] == [b"a"] * (MOST - 1)
    assert box.other.written == [b"b"]


def test_who_writes_at_once_lets_go_of_what_waits(box):
    box.together(box.one, b"a")
    box.outbox.flush()
    box.one.write(b"now")
    [end] = box.ends
    end()
    assert box.one.written == [b"alone ", b"a", b"now"]


def test_a_transport_that_is_closed_meanwhile_gets_nothing(box):
    box.together(box.one, b"a")
    box.together(box.other, b"b")
    box.one.closing = True
    box.ends[0]()
    assert (box.one.written, box.other.written) == ([b"alone "], [b"b"])


def test_a_fault_with_one_loses_nothing_of_the_others(box, caplog):
    box.together(box.one, b"a")
    box.together(box.other, b"b")
    box.one.write = None
    box.ends[0]()
    assert box.other.written == [b"b"]
    assert box.one.closing
    assert "a message is lost" in caplog.text


CONFIG = """
[providers.p]
base_url = "{url}"
auth = "none"
[models."p/m"]
"""


@pytest.mark.parametrize("end", ["cut", "error event", "done"])
async def test_nothing_of_a_stream_is_lost_though_its_chunks_wait(start, provider: ScriptedProvider, end):
    """Chunks wait in a turn that does not end before the provider's connection does."""
    event = b'data: {"n":%d}\n\n'

    async def script(call: Call) -> None:
        await call.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        for number in range(3):
            data = event % number
            await call.send(b"%b%x\r\n%b\r\n" % (head, len(data), data))
            await until(lambda seen=number: len(outbox._waiting) > seen)
            head = b""
        if end == "done":
            await call.send(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await call.gone()
        elif end == "cut":
            await call.send(b"20\r\ndata: {")

    provider.script = script
    server = await start(CONFIG.format(url=provider.url))
    outbox = server.gateway.outbox
    turns: list[Callable[[], None]] = []
    outbox.turn._soon, outbox.turn._last_at = turns.append, float("inf")
    client = await RawClient.connect(server)
    # Else the connection that ends well would be kept, and the end of what comes be waited for.
    await client.post(b'{"model":"p/m","stream":true}', extra=b"Connection: close\r\n")
    await until(lambda: outbox._waiting)
    outbox.flush()  # the request
    got = (await client.response())[2] if end == "done" else await client.rest()
    assert all(event % number in got for number in range(3))
    assert (b"provider_broke_off" in got) is (end == "error event")
    assert len(turns) == 1
