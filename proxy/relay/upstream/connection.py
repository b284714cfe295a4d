"""A connection to a provider.

A :class:`ProviderConnection` reads heads and follows framing. What a response means is for its
:class:`Receiver` to know, an attempt, to which it belongs until :meth:`ProviderConnection.release`; else it
belongs to its :class:`ConnectionOwner`, the pool.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from proxy.relay.upstream.tcp_keepalive import allow_stalls, is_unconfirmed, round_trip_s
from proxy.wire.framing import Body, CloseBody, FramingError
from proxy.wire.header_lines import HeadError
from proxy.wire.response_head import ResponseHead
from proxy.wire.response_reader import HeadTooLong, ResponseReader

# The event loop reads up to 32 times in a row from a connection whose data fill its buffer of 250 KiB
# (libuv's uv__read), which would be one turn. After a read above this size a connection rests until the next.
LARGE_READ_BYTES: Final = 64 << 10

# Write buffer above which the other side's reading pauses, per direction.
HIGH_WATER_BYTES: Final = 64 << 10
# What the kernel takes in for a server that does not read yet (Linux: 64 KiB at first). Of more it may have
# to say that it can't, which the watch over vanished peers must not take for a death.
TAKEN_IN_BYTES: Final = 32 << 10
# The most of a large body that is handed to the transport in one turn of the event loop. TLS encrypts all
# of it at once, and a kernel with room for megabytes copies them, while nothing else runs.
SLICE_BYTES: Final = 1 << 20
# How a connection was lost, where nothing was wrong with what came before.
LOST: Final = frozenset(("reset", "closed"))
# What a provider that closes an idle connection can be late by, whatever the round trip ...
_STALE_S: Final = 0.1
# ... and what no round trip makes longer: by then the provider may be at work.
_STALE_MOST_S: Final = 1.0


class Receiver:
    """The user of a connection, which reports to it: an attempt."""

    __slots__ = ()

    def on_connected(self, connection: ProviderConnection) -> None:
        """The connection that was asked for is open."""
        raise NotImplementedError

    def on_connect_failed(self, why: str, is_ours: bool = False) -> None:
        """No connection could be opened. ``why`` is a short reason without secrets; ``is_ours``: this machine
        has no room for one, which is no fault of the provider's."""
        raise NotImplementedError

    def on_response_head(self, head: ResponseHead, body: Body, more: bool) -> bool:
        """The head of the response came; False if the attempt is over with it.

        :param more: bytes of the body, or its end, follow at once.
        """
        raise NotImplementedError

    def on_response_data(self, data: bytes, body: Body) -> None:
        """A part of the body came; ``body`` was fed with it and knows whether it was the last."""
        raise NotImplementedError

    def on_head_too_long(self, is_success: bool) -> None:
        """The head of the response is longer than we take. ``is_success``: its status says 2xx."""
        raise NotImplementedError

    def on_upstream_lost(self, why: str) -> None:
        """The connection closed, or its bytes are not HTTP, before the response was complete."""
        raise NotImplementedError

    def on_upstream_full(self, full: bool) -> None:
        """The connection takes no more, or takes again."""
        raise NotImplementedError


class ConnectionOwner:
    """The keeper of a connection between attempts: a pool."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name  # of the provider

    def opened(self, connection: ProviderConnection) -> None:
        """The connection is open."""
        raise NotImplementedError

    def put(self, connection: ProviderConnection, now: float) -> None:
        """Keep a connection whose exchange ended cleanly."""
        raise NotImplementedError

    def forget(self, connection: ProviderConnection) -> None:
        """The connection is closed."""
        raise NotImplementedError


class ProviderConnection:
    """One connection to a provider; an asyncio.Protocol as :class:`proxy.relay.exchange.client.Client`
    is one."""

    __slots__ = (
        "_is_due", "answered", "idle_since", "is_full", "is_held_back", "is_open", "is_patient", "is_read",
        "is_resting", "kept_until", "pool", "reader", "receiver", "served", "spoiled", "transport", "unsent",
        "waiting",
    )  # fmt: skip

    def __init__(self, pool: ConnectionOwner) -> None:
        self.pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self.receiver: Receiver | None = None
        self.reader = ResponseReader()
        self.answered = False  # a byte of the response has come
        self.served = 0  # finished exchanges: above 0 the connection is a reused one
        self.spoiled = False  # it sent more than it should have: never to be used again
        self.is_open = False
        self.is_held_back = False
        self.is_read = True
        self.is_resting = False  # nothing more is taken in this turn of the event loop
        self.waiting = b""  # what was read, and is to be taken in the next turn
        self.is_patient = False
        self.unsent: list[bytes | memoryview] = []  # of a large request
        self.is_full = False  # the transport takes no more for now
        self._is_due = False  # the next slice goes out in the next turn
        self.idle_since = 0.0
        self.kept_until = float("inf")  # monotonic seconds: after that it takes no further request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are that without being a subclass
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.is_open = True
        self.pool.opened(self)

    def start(self, receiver: Receiver) -> None:
        """Begin an attempt on this connection."""
        assert self.receiver is None
        self.receiver = receiver
        self.reader.begin()
        self.answered = False

    def allow_slow_reads(self) -> None:
        """A large body follows. A provider that is busy with another request may read it late, and is not
        dead for that: `first_byte` is its limit."""
        if not self.is_patient:
            self.is_patient = True
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                allow_stalls(sock)

    def send(self, parts: list[bytes | memoryview]) -> None:
        """Send a large request: a slice of it now, and each further one when the transport has room."""
        self.unsent += parts
        self._send_slice()

    def send_on(self, data: bytes) -> None:
        """Send more of a request, behind what is unsent of it."""
        if self.unsent:
            self.unsent.append(data)
        else:
            self.transport.write(data)

    def _send_slice(self) -> None:
        self._is_due = False
        unsent = self.unsent
        count = size = 0
        while count < len(unsent) and size < SLICE_BYTES:
            size += len(unsent[count])
            count += 1
        parts = unsent[:count]
        del unsent[:count]
        if parts and not self.transport.is_closing():
            self.transport.writelines(parts)
        if unsent and not self.is_full:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._is_due and not self.is_full:
            self._send_slice()

    def stale_s(self, is_reset: bool) -> float:
        """For how many seconds after a write a close is no answer to it, but was on its way already: two
        round trips, at least 0.1 s, at most 1 s; and a second where the provider closed without having
        confirmed all of it, however late this process comes to read of that. A reset proves nothing: it
        comes before the confirmation, which the provider's kernel may hold back for 0.2 s."""
        if not is_reset and is_unconfirmed(self.transport):
            return _STALE_MOST_S
        return min(max(2.0 * round_trip_s(self.transport), _STALE_S), _STALE_MOST_S)

    def release(self, reusable: bool, now: float) -> None:
        """The exchange is over; ``reusable`` says that both messages ended exactly where they should."""
        self.receiver = None
        self.served += 1
        if self.is_held_back:  # the last bytes of a response can fill the client's buffer
            self.hold_back(False)
        transport = self.transport
        # What is still to be sent is of a request that was answered before its end: it would come first.
        is_sent = not self.unsent and not transport.get_write_buffer_size()
        if reusable and is_sent and not self.spoiled and not transport.is_closing():
            self.pool.put(self, now)
        else:
            transport.abort()

    def undo(self) -> None:
        """The dialling ended too early: the loop may have made the connection already. If it then closes it
        by itself, it says nothing of that."""
        if self.is_open:
            self.transport.abort()
            self._forget()

    def _forget(self) -> None:
        self.is_open = False
        self.pool.forget(self)

    def hold_back(self, hold: bool) -> None:
        """Stop or go on reading from the provider."""
        self.is_held_back = hold
        if self.is_resting:
            return
        if self.waiting and not hold:
            self._rest()
        else:
            self._read(not hold)

    def _read(self, is_read: bool) -> None:
        """Read from the provider, or not."""
        if is_read != self.is_read and not self.transport.is_closing():
            self.is_read = is_read
            if is_read:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _rest(self) -> None:
        """Take nothing more in this turn of the event loop."""
        if self.is_resting or self.transport.is_closing():
            return
        self._read(False)
        self.is_resting = True
        asyncio.get_running_loop().call_soon(self._end_rest)

    def _end_rest(self) -> None:
        self.is_resting = False
        if self.transport.is_closing() or self.is_held_back:
            return
        data, self.waiting = self.waiting, b""
        body = self.reader.body
        if data and self.receiver is not None and body is not None:
            self._take(self.receiver, body, data)
        if not self.is_resting and not self.is_held_back:
            self._read(True)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            self.transport.abort()  # a provider has nothing to say unasked
            return
        self.answered = True
        size = len(data)
        if self.reader.body is None:
            data = self._read_head(receiver, data)
            if not data or self.receiver is not receiver:
                return
        body = self.reader.body
        assert body is not None
        if size > LARGE_READ_BYTES:
            self._rest()
        self._take(receiver, body, data)

    def _take(self, receiver: Receiver, body: Body, data: bytes) -> None:
        """The next bytes of a response's body, or of them what is taken in one turn."""
        most = body.slice_bytes
        if len(data) > most:
            self.waiting = data[most:]
            data = data[:most]
            self._rest()
        try:
            taken = body.feed(data)
        except FramingError as error:
            receiver.on_upstream_lost(f"broken framing: {error}")
            return
        if taken < len(data) or (self.waiting and body.done):
            # More bytes than the message has: they are dropped, and later the connection with them.
            self.spoiled = True
            self.waiting = b""
        receiver.on_response_data(data if body.passed == len(data) else data[: body.passed], body)

    def _read_head(self, receiver: Receiver, data: bytes) -> bytes:
        """Returns what follows the head (b"" if nothing does, or the exchange is over)."""
        reader = self.reader
        try:
            rest = reader.read_head(data)
        except HeadTooLong as too_long:  # compiled, a name has one type
            receiver.on_head_too_long(too_long.is_success)
            return b""
        except HeadError as error:
            receiver.on_upstream_lost(str(error))
            return b""
        if rest is None:
            return b""
        head, body = reader.head, reader.body
        assert head is not None and body is not None
        if not receiver.on_response_head(head, body, bool(rest) or body.done):
            return b""
        if body.done:
            if rest:
                self.spoiled = True
            receiver.on_response_data(b"", body)
            return b""
        return rest

    def pause_writing(self) -> None:
        self.is_full = True
        if self.receiver is not None:
            self.receiver.on_upstream_full(True)

    def resume_writing(self) -> None:
        self.is_full = False
        if self.unsent:
            self._send_slice()
        if self.receiver is not None and not self.is_full:
            self.receiver.on_upstream_full(False)

    def eof_received(self) -> bool:
        body = self.reader.body
        if isinstance(body, CloseBody) and self.receiver is not None:
            body.done = True
            self.receiver.on_response_data(b"", body)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:  # it looks at what is unsent
            receiver.on_upstream_lost("reset" if isinstance(exc, ConnectionResetError) else "closed")
        self.unsent.clear()

    def __repr__(self) -> str:
        state = "idle" if self.receiver is None else "answering" if self.answered else "awaiting"
        return f"<ProviderConnection {self.pool.name} {state} served={self.served}>"
