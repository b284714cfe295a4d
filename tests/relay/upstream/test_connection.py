"""Connections to a provider and the pool, with a stand-in for the attempt."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.relay.upstream.connection import LARGE_READ_BYTES, SLICE_BYTES, ProviderConnection
from proxy.relay.upstream.pool import ConnectionPool
from proxy.relay.upstream.tcp_keepalive import is_unconfirmed, round_trip_s
from proxy.wire.framing import CHUNKED_SLICE_BYTES
from proxy.wire.header_lines import MAX_HEAD_BYTES
from tests.support.fakes import Call, chunk, until
from tests.support.receiver import PLAIN, REQUEST, Attempt, answer_early, answering, ask, begin, dial
from tests.support.scripts import LAST, Plays, head, in_pieces


async def test_what_a_provider_says_unasked_ends_the_connection(pool, provider):
    speak = asyncio.Event()

    async def script(call: Call) -> None:
        await speak.wait()
        await call.send(PLAIN)
        await call.gone()

    provider.script = script
    pool.put(await dial(pool), 0.0)
    speak.set()
    await until(lambda: pool.snapshot()["open"] == 0)


async def test_a_request_that_is_not_out_yet_is_no_beginning_for_another(pool, provider):
    """It was answered before its end; what is left of it would come before the next one's head."""

    provider.script = answer_early
    connection = await dial(pool)
    attempt = begin(connection)
    body = bytes(16 << 20)  # more than the system takes
    connection.transport.write(b"POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: attempt.done)
    connection.release(True, 0.0)
    assert pool.take() is None
    await until(lambda: pool.snapshot()["open"] == 0)


async def test_a_large_request_goes_out_in_slices(pool, provider):
    """In no turn of the event loop more than a slice is handed on, and all of it arrives in its order."""
    may_read = asyncio.Event()
    got = []

    async def script(call: Call) -> None:
        await may_read.wait()
        got.append(await call.request())
        await call.send(PLAIN)
        await call.gone()

    provider.script = script
    connection = await dial(pool)
    attempt = begin(connection)
    pieces = [bytes([number % 251]) * (100_000 + number) for number in range(160)]
    body = b"".join(pieces) + b"and the end"
    head = b"POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.send([head, *map(memoryview, pieces)])
    connection.send_on(b"and ")
    connection.send_on(b"the end")
    assert sum(map(len, connection.unsent)) >= len(body) - SLICE_BYTES - 200_000
    await until(lambda: attempt.is_full)
    assert connection.unsent
    assert connection.transport.get_write_buffer_size() < 2 * SLICE_BYTES
    may_read.set()
    await until(lambda: attempt.done)
    assert got == [(head, body)]
    assert not connection.unsent
    assert not attempt.is_full
    connection.release(True, 0.0)
    assert pool.take() is connection


async def test_what_is_unsent_goes_with_the_connection(pool, provider):
    provider.script = answer_early
    connection = await dial(pool)
    attempt = begin(connection)
    connection.send(
        [b"POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 99999999\r\n\r\n", *[bytes(1 << 20)] * 40]
    )
    await until(lambda: attempt.done)
    connection.release(True, 0.0)
    assert pool.take() is None
    await until(lambda: pool.snapshot()["open"] == 0)
    assert not connection.unsent


@pytest.mark.parametrize(("size", "is_read"), [(MAX_HEAD_BYTES, True), (MAX_HEAD_BYTES + 1, False)])
@pytest.mark.parametrize("cuts", [1, 3])
async def test_a_head_has_its_limit_however_it_comes(pool, provider, size, is_read, cuts):
    begin, end = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: ", b"\r\n\r\n"
    answer = begin + b"y" * (size - len(begin) - len(end)) + end + b"ok"
    step = len(answer) // cuts + 1
    provider.script = Plays(*(answer[at : at + step] for at in range(0, len(answer), step)))
    attempt = await ask(await dial(pool))
    assert (attempt.data, attempt.lost) == (
        (b"ok", None) if is_read else (b"", "the answer's head is too long")
    )


async def test_bytes_behind_an_answer_spoil_the_connection(pool, provider):
    provider.script = answering(PLAIN + b"HTTP/1.1 200 OK\r\n")
    connection = await dial(pool)
    assert (await ask(connection)).data == b"ok"
    assert connection.spoiled
    connection.release(True, 0.0)
    assert pool.take() is None
    await until(lambda: pool.snapshot()["open"] == 0)


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (PLAIN, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + PLAIN, b"ok"),
        (head(b"Transfer-Encoding: chunked") + chunk(b"ok") + LAST, chunk(b"ok") + LAST),
    ],
)
@pytest.mark.parametrize("size", [1000, 1])
async def test_answers_whole_and_byte_by_byte(pool, provider, answer, data, size):
    pieces = (answer[at : at + size] for at in range(0, len(answer), size))
    provider.script = Plays(*in_pieces(*pieces, pause_s=0.0))
    attempt = await ask(await dial(pool))
    assert (attempt.data, attempt.done, attempt.lost) == (data, True, None)
    for connection in list(pool.open):
        connection.release(True, 0.0)


async def test_an_answer_that_ends_with_its_connection(pool, provider):
    provider.script = answering(b"HTTP/1.1 200 OK\r\n\r\nall of it", then_close=True)
    connection = await dial(pool)
    attempt = await ask(connection)
    assert (attempt.data, attempt.done) == (b"all of it", True)
    assert not attempt.head.keep_alive


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nok", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "broken framing"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "protocol switch"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "interim"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000, "too long"),
        (b"hello\r\n\r\n", "not HTTP"),
    ],
)
async def test_answers_that_are_none(pool, provider, answer, why):
    provider.script = answering(answer, then_close=True)
    attempt = await ask(await dial(pool))
    assert why in attempt.lost
    assert not attempt.done
    # It worked, and this gateway doesn't take what it made, for which its client may be to blame.
    assert (attempt.is_charged) == (answer.startswith(b"HTTP/1.1 200") and why == "too long")


async def test_repr_tells_the_state(pool, provider):
    step = asyncio.Event()

    provider.script = Plays(PLAIN[:10], step, PLAIN[10:])
    assert repr(pool) == "<ConnectionPool p {'open': 0, 'idle': 0, 'dialling': 0}>"
    connection = await dial(pool)
    assert repr(connection) == "<ProviderConnection p idle served=0>"
    attempt = Attempt()
    connection.start(attempt)
    assert repr(connection) == "<ProviderConnection p awaiting served=0>"
    connection.transport.write(REQUEST)
    await until(lambda: connection.answered)
    assert repr(connection) == "<ProviderConnection p answering served=0>"
    step.set()
    await until(lambda: attempt.done)
    connection.release(True, 0.0)
    assert repr(connection) == "<ProviderConnection p idle served=1>"
    assert repr(pool) == "<ConnectionPool p {'open': 1, 'idle': 1, 'dialling': 0}>"


async def test_the_round_trip_is_the_kernels(pool):
    connection = await dial(pool)
    assert 0.0 < round_trip_s(connection.transport) < 1.0
    assert 0.1 <= connection.stale_s(False) <= 1.0


@pytest.mark.parametrize(("measured_s", "stale_s"), [(0.0, 0.1), (0.05, 0.1), (0.2, 0.4), (9.0, 1.0)])
def test_a_close_is_no_answer_within_two_round_trips(monkeypatch, measured_s, stale_s):
    monkeypatch.setattr("proxy.relay.upstream.connection.round_trip_s", lambda transport: measured_s)
    monkeypatch.setattr("proxy.relay.upstream.connection.is_unconfirmed", lambda transport: False)
    assert ProviderConnection(None).stale_s(False) == pytest.approx(stale_s)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_sent_before", [False, True])
async def test_what_the_provider_has_not_confirmed_it_can_not_have_read(is_sent_before):
    """Where it closed before the bytes came, its kernel refuses them: they may be sent again for a second."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.getsockname())
        theirs, _ = server.accept()
        if is_sent_before:
            transport.write(REQUEST)
            await until(lambda: len(theirs.recv(1 << 16, socket.MSG_PEEK)) == len(REQUEST))
            assert theirs.recv(1 << 16) == REQUEST
        assert not is_unconfirmed(transport)
        transport.pause_reading()  # as long as a turn of the event loop takes, a close is not read
        theirs.close()
        transport.write(REQUEST)
        await until(lambda: is_unconfirmed(transport))
        connection = ProviderConnection(None)  # type: ignore[arg-type]
        connection.transport = transport
        assert (connection.stale_s(False), connection.stale_s(True) < 0.5) == (1.0, True)
        transport.abort()


@pytest.mark.parametrize("fault", ["no socket", "closed", "short", "another system"])
def test_without_a_round_trip_it_is_0(monkeypatch, fault):
    class Sock:
        def getsockopt(self, *_: int) -> bytes:
            if fault == "closed":
                raise OSError
            return b"short"

    class Transport:
        def get_extra_info(self, name: str) -> Sock | None:
            return None if fault == "no socket" else Sock()

    if fault == "another system":
        monkeypatch.setattr("sys.platform", "other")
    assert round_trip_s(Transport()) == 0.0  # type: ignore[arg-type]


class Transport:
    """Notes whether it is read from."""

    def __init__(self, connection: ProviderConnection) -> None:
        self.is_read = True
        self.connection = connection

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True

    def set_write_buffer_limits(self, **_: int) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.connection.connection_lost(None)


class Slices(Attempt):
    """Notes the pieces in which an answer is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def on_response_data(self, data, body) -> None:
        super().on_response_data(data, body)
        self.sizes.append(len(data))


def answered(pool: ConnectionPool, answer: bytes) -> tuple[ProviderConnection, Slices, Transport]:
    """A connection that has just read ``answer`` at once."""
    connection, attempt = ProviderConnection(pool), Slices()
    transport = Transport(connection)
    connection.connection_made(transport)  # type: ignore[arg-type]
    attempt.connection = connection
    connection.start(attempt)  # type: ignore[arg-type]
    connection.data_received(answer)
    return connection, attempt, transport


CHUNKS = b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS


async def test_a_chunked_answer_is_taken_a_slice_a_turn(pool):
    connection, attempt, transport = answered(pool, CHUNKED)
    turns = 0
    while not attempt.done:
        assert not transport.is_read
        assert len(attempt.sizes) == turns + 1
        turns += 1
        await asyncio.sleep(0)
    assert attempt.data == CHUNKS
    assert max(attempt.sizes) == CHUNKED_SLICE_BYTES
    assert len(attempt.sizes) == 4
    await asyncio.sleep(0)
    assert transport.is_read
    assert not connection.spoiled


async def test_slices_wait_while_the_client_takes_nothing(pool):
    connection, attempt, transport = answered(pool, CHUNKED)
    connection.hold_back(True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (len(attempt.sizes), transport.is_read) == (1, False)
    connection.hold_back(False)
    await until(lambda: attempt.done)
    await asyncio.sleep(0)
    assert (attempt.data, transport.is_read) == (CHUNKS, True)


async def test_what_is_behind_an_answer_in_a_later_slice_spoils_the_connection(pool):
    connection, attempt, _ = answered(pool, CHUNKED + b"more" * CHUNKED_SLICE_BYTES)
    await until(lambda: attempt.done)
    assert attempt.data == CHUNKS
    assert connection.spoiled


async def test_after_a_large_read_a_connection_rests_until_the_next_turn(pool):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    connection, attempt, transport = answered(pool, head + bytes(LARGE_READ_BYTES))
    assert (attempt.sizes, transport.is_read) == ([LARGE_READ_BYTES], False)
    await asyncio.sleep(0)
    assert transport.is_read
    connection.data_received(bytes(LARGE_READ_BYTES))
    assert transport.is_read
