"""One try at one deployment: connect, send the request, take the response and pass it on.

Its connection calls it (:mod:`proxy.relay.upstream.connection`). What becomes of the request when it fails,
and when its response may go to the client, is decided by its owner (:mod:`proxy.relay.exchange.exchange`).
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from proxy.deployments.deployment import Deployment
from proxy.deployments.record import CONNECT, LOOK_S, RESET, Record
from proxy.errors import AttemptFailed
from proxy.relay.exchange import failures
from proxy.relay.exchange.charge import NO_CHARGE, Charge, charge_of
from proxy.relay.exchange.client import Client
from proxy.relay.exchange.completions import Ending
from proxy.relay.exchange.end_policy import NO_END, begin, learn
from proxy.relay.exchange.hold import NOTHING, REASON, decide, is_unstreamed, most_held, read_head
from proxy.relay.exchange.provider_request import encode
from proxy.relay.exchange.request import Request
from proxy.relay.exchange.request_body import JOIN_BYTES
from proxy.relay.exchange.time_is_up import time_is_up, timed_out
from proxy.relay.exchange.tracing import HEDGED, Trace
from proxy.relay.upstream.connection import LOST, TAKEN_IN_BYTES, ProviderConnection, Receiver
from proxy.routing.failover import Doubt
from proxy.routing.pool import Pool
from proxy.wire.framing import Body, wrap_chunk
from proxy.wire.response import Response
from proxy.wire.response_head import HEAD_TOO_LONG, ResponseHead

# A body so small is kept until there is a response, though nothing may follow: a failure is judged by it.
_KEPT_BYTES: Final = 16 << 10


class AttemptOwner(Ending):
    """The owner of an attempt, to which it reports: its exchange."""

    # Slots, because under load a dictionary costs a tenth more CPU: more memory is touched.
    __slots__ = ("client", "client_full_at", "request", "trace")

    def __init__(self, request: Request, client: Client) -> None:
        self.request = request
        self.client = client
        self.client_full_at = 0.0  # since when the client takes nothing; 0: it does
        self.trace: Trace | None = None  # while traces are on: from the first attempt on

    def commit(self, attempt: Attempt, now: float) -> None:
        """The attempt's response goes to the client: it shows output, or is held no longer."""
        raise NotImplementedError

    def on_held(self, attempt: Attempt, now: float) -> None:
        """The head is there of a response that is held: say until when."""
        raise NotImplementedError

    def on_attempt_failed(self, attempt: Attempt, failure: AttemptFailed, now: float) -> bool:
        """Go on to the next attempt, or tell the client. True: the attempt's own response goes to it."""
        raise NotImplementedError

    def on_last(self, attempt: Attempt) -> None:
        """The response is complete, but its last bytes are not out yet."""
        raise NotImplementedError

    def break_off(self, attempt: Attempt, what: str) -> None:
        """The response can't be completed. ``what``: the provider did with it."""
        raise NotImplementedError


class Attempt(Receiver):
    """One attempt of ``owner``. All times are monotonic seconds.

    :param pool: what the deployment was chosen from.
    """

    __slots__ = (
        "answered_at", "asks_usage", "charge", "connection", "deadline_at", "deployment", "dial",
        "doubt", "has_output", "held_bytes", "limits", "owner", "pending", "pool", "progress_at", "provider",
        "record", "redial_s", "redialled", "request", "response", "upstream_full_at", "waits_for",
    )  # fmt: skip

    def __init__(self, owner: AttemptOwner, deployment: Deployment, pool: Pool, now: float) -> None:
        request = owner.request
        body, streamed = request.body, request.streamed
        self.record = Record(deployment, request.endpoint, streamed, now, body.done, body.text_bytes())
        self.owner = owner
        self.request = request
        self.deployment = deployment
        self.pool = pool
        self.provider = request.routes.providers[deployment.provider.name]
        self.limits = pool.limits(deployment, request.streamed)
        self.deadline_at = time_is_up(request, self.limits, now)
        self.dial: asyncio.Task[None] | None = None
        self.connection: ProviderConnection | None = None
        self.response: Response | None = None
        self.answered_at = 0.0  # when the first byte of the response's body came, whatever the response
        self.progress_at = 0.0  # when the last one did
        self.upstream_full_at = 0.0  # since when the provider takes nothing; 0: it does
        self.pending = b""  # what the client will get first: the head, and what is held
        self.waits_for = NOTHING  # what it is held for
        self.held_bytes = 0  # of it, as far as they count for max_buffered
        # The response has shown some, or is none that is looked at for it.
        self.has_output = self.redialled = False
        self.redial_s = -1.0  # seconds after which a kept connection closed; below 0: none did
        self.doubt: Doubt | None = None  # it was refused, and that may be the request's own fault
        self.asks_usage = False  # it was asked for in the client's place, and is taken out again
        self.charge: Charge = NO_CHARGE

    def start(self) -> None:
        """Take an idle connection, or dial."""
        if (connection := self.provider.pool.take()) is not None:
            self.on_connected(connection)
        else:
            self.dial = self.provider.pool.dial(self, self.limits.connect_s)

    def on_connected(self, connection: ProviderConnection) -> None:
        self.dial = None
        self.connection = connection
        connection.start(self)
        request = self.request
        body = request.body
        held = body.held
        assert held is not None
        # On a fresh connection nothing can be lost to a stale keep-alive.
        may_follow = request.can_retry or request.repeats > 0
        is_needed = connection.served or may_follow or (body.done and body.size <= _KEPT_BYTES)
        if not is_needed or not request.may_keep():
            body.held = None
            request.unhold()
        self._send(connection, held)
        if not body.done:
            self.owner.client.pause_reading(False)

    def _send(self, connection: ProviderConnection, pieces: list[bytes]) -> None:
        """The head, and as much of the body as is there, with the model put in."""
        request, context = self.request, self.request.context
        tracing = context.tracing
        line = b"" if tracing is None else tracing.line_for(self.owner, self)
        parts, self.asks_usage = encode(request, self.provider, self.deployment, pieces, line)
        body = request.body
        if body.size > TAKEN_IN_BYTES:
            connection.allow_slow_reads()
        if body.size > JOIN_BYTES:
            connection.send(parts)
        elif body.done:
            context.outbox.write(connection.transport, b"".join(parts), self.record.begun_at)
        else:
            connection.transport.write(b"".join(parts))

    def send_on(self, piece: bytes) -> None:
        """A further piece of a body that is already on its way."""
        request, connection, body = self.request, self.connection, self.request.body
        assert connection is not None
        request.keep(piece)
        connection.allow_slow_reads()
        connection.send_on(wrap_chunk(piece, body.done) if request.head.chunked else piece)
        if body.done:
            self.on_request_complete(monotonic())

    def on_request_complete(self, now: float) -> None:
        """The client has sent all of its request: from here the provider's time counts."""
        self.record.asked(now, self.request.body.text_bytes())
        if self.response is None:  # what is held has its own time
            self.deadline_at = time_is_up(self.request, self.limits, now)
            self.owner.client.wake_by(self.deadline_at)

    def on_upstream_full(self, full: bool) -> None:
        self.upstream_full_at = monotonic() if full else 0.0
        if not self.request.body.done:
            self.owner.client.pause_reading(full)

    def on_connect_failed(self, why: str, is_ours: bool = False) -> None:
        self.dial = None
        if is_ours:
            now = monotonic()
            self.owner.on_attempt_failed(self, failures.none_can_be_opened(self.record, why, now), now)
        else:
            self.fail(AttemptFailed(CONNECT, f"could not be reached ({why})", 503, "provider_unreachable"))

    def on_head_too_long(self, is_success: bool) -> None:
        # A success is charged: the client may have caused it, by a header that the provider repeats.
        if is_success and self.is_at_work():
            self.charge_so_far(monotonic())
        self.on_upstream_lost(HEAD_TOO_LONG)

    def on_upstream_lost(self, why: str) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        connection.receiver = None
        now = monotonic()
        may_redial = not self.redialled and failures.is_stale(
            self.request, self.record, connection, now, is_reset=why == "reset"
        )
        connection.transport.abort()
        if self.waits_for == REASON and self.response is not None:
            if self.settle(failures.judge(self.response, self.pool.fail_on), now):
                self.owner.break_off(self, f"broke its answer off ({why})")
        elif may_redial:
            # Nobody's fault, and no attempt: the request goes out again on a connection of its own.
            self.redialled = True
            self.redial_s = now - self.record.begun_at
            self.upstream_full_at = 0.0
            self.request.context.counters.redials += 1
            self.dial = self.provider.pool.dial(self, self.limits.connect_s)
        else:
            is_out = self.response is not None and not self.waits_for
            is_closed = self.response is None and why in LOST
            self._lost(f"{'broke its answer off' if is_out else 'gave no valid answer'} ({why})", is_closed)

    def _lost(self, what: str, is_closed: bool = False) -> None:
        """There is no more to come, and the response is not complete. ``what``: the provider did with it."""
        if self.response is None or self.waits_for:
            failure = AttemptFailed(RESET, what, 502, "provider_bad_answer")
            failure.is_closed = is_closed
            self.fail(failure)
        else:
            self.owner.break_off(self, what)

    def on_deadline(self) -> None:
        """No response in time."""
        record, now = self.record, monotonic()
        failure = timed_out(self.request, record, self.limits, self.deadline_at, self.upstream_full_at)
        if not failure.is_clients:
            self.fail(failure)
            return
        if self.is_at_work():  # what the provider did until here is the client's to pay
            self.charge_so_far(now)
        self.trace(failure, now)
        failures.run_out(self.request, record, failure.what, now)
        self.owner.on_attempt_failed(self, failure, now)

    def on_response_head(self, head: ResponseHead, body: Body, more: bool) -> bool:
        now = self.progress_at = monotonic()
        response = begin(head, body, self.request, self.provider, self.record.row, self.asks_usage)
        self.response = response
        self.waits_for, failure = read_head(self.request, self.pool, self.provider, response)
        passes = True
        if failure is not None:
            passes = self.fail(failure, now)
        elif self.waits_for:
            self.owner.on_held(self, now)
        else:
            self.owner.commit(self, now)
        if passes and not more and not self.waits_for:
            self.flush()
        return passes

    def fail(self, failure: AttemptFailed, now: float = 0.0) -> bool:
        """Record a failure, and have the exchange go on. True: the attempt's response is passed on."""
        if failure.is_refusal and not failure.is_confirmed:
            its_mark = failures.mark(self.request, failure.outcome)
            self.doubt = Doubt(self.deployment, self.record.row, its_mark, failure.outcome)
        self.record_failure(failure, now := now or monotonic())
        return self.owner.on_attempt_failed(self, failure, now)

    def record_failure(self, failure: AttemptFailed, now: float) -> None:
        """Record a failure of the provider's in tables, log, counters and traces."""
        self.trace(failure, now)
        failures.record_failure(self.request, self.record, failure, now)

    def trace(self, failure: AttemptFailed, now: float) -> None:
        tracing = self.request.context.tracing
        if tracing is not None:
            tracing.failed(self.owner, self, failure.outcome, failure.what, now)

    def on_client_left(self, now: float, outcome: str) -> None:
        """Nobody waits any longer. ``outcome``: as of :meth:`proxy.relay.exchange.tracing.Tracing.left`."""
        tracing = self.request.context.tracing
        if tracing is not None and not self.record.is_over and not self.is_said_to_end():
            tracing.left(self.owner, self, outcome, now)
        if self.is_at_work():
            self.charge_so_far(now)
        failures.left(self.request, self.record, self.pool, now, is_beaten=outcome == HEDGED)

    def is_at_work(self) -> bool:
        """The provider has the whole request, or answers it already, and not yet to the end."""
        is_asked = self.request.body.done or self.response is not None
        return self.is_charged() and self.connection is not None and is_asked

    def is_charged(self) -> bool:
        """Return whether it is to be paid for. What was blamed on the provider is not, unless it is an answer
        all the same."""
        if not self.record.is_over:
            return True
        return self.response is not None and is_unstreamed(self.request, self.response.head)

    def charge_so_far(self, now: float, is_whole: bool = False) -> None:
        """Charge a response that comes to no end. ``is_whole``: it is a stream whose last event has
        passed."""
        response, owner, request = self.response, self.owner, self.request
        if owner.client_full_at:
            self.record.held_s += now - owner.client_full_at
            owner.client_full_at = now
        is_told = response is not None and (is_whole or response.tells_all(request.endpoint, request.answers))
        self.charge_at(now, is_told)

    def is_said_to_end(self) -> bool:
        """The last event of a stream has passed, if not yet the end of the message."""
        return self.response is not None and self.response.is_said_to_end()

    def charge_at(self, now: float, is_told: bool) -> None:
        """Charge it. ``is_told``: the response has come so far that it tells its usage, if it does at all."""
        self.charge = charge_of(
            self.record, self.request, self.response, self.answered_at, now,
            is_told=is_told, is_simulated=self.provider.simulated,
        )  # fmt: skip

    def flush(self) -> None:
        """Send what is pending to the client."""
        self.owner.client.send(self.pending)
        self.pending = b""

    def on_response_data(self, data: bytes, body: Body) -> None:
        response, now = self.response, monotonic()
        assert response is not None
        self.progress_at = now
        out = response.pass_on(data)
        if not self.answered_at:
            self.answered_at = now
        elif now - self.record.looked_at > LOOK_S:
            self.record.progressed(now, response.passed_bytes)
        if self.pending:
            out, self.pending = self.pending + out, b""
        if body.done and response.ends_as:
            learn(response, self.record.row)
        if not self.has_output:
            self.pending = out
            if not self._look(response, now):
                return
            out, self.pending = self.pending, b""
        if not body.done:
            if out:
                self.owner.client.send_soon(out, now)
            return
        self.pending = out
        if response.is_unfinished:
            self._lost(NO_END)
            return
        connection, self.connection = self.connection, None
        assert connection is not None
        connection.release(response.head.keep_alive and self.request.body.done, now)
        self.owner.on_last(self)

    def _look(self, response: Response, now: float) -> bool:
        """See whether the response shows by now what it is. False: what is pending does not go out, as it is
        held further, or the attempt has failed."""
        is_decided, failure = decide(self.request, self.pool.fail_on, response, self.waits_for)
        if is_decided:
            return self.settle(failure, now)
        if not self.waits_for:
            return True
        context, size = self.request.context, len(self.pending)
        context.buffered_bytes += size - self.held_bytes
        self.held_bytes = size
        if not context.is_full() and size <= most_held(self.waits_for):
            return False
        self.owner.commit(self, now)
        return True

    def settle(self, failure: AttemptFailed | None, now: float) -> bool:
        """The response has shown what it is. False: a failure, and it is dropped."""
        self.has_output = True
        response = self.response
        assert response is not None
        if self.record.is_over:
            pass  # it was blamed by its head: that it passes proves nothing
        elif failure is not None:
            if self.waits_for:
                return self.fail(failure, now)
            self.record_failure(failure, now)
        elif response.head.status < 300 and not response.is_unfinished:
            self.record.first_byte(now)
        if self.waits_for:
            self.owner.commit(self, now)
        return True

    def let_go(self) -> None:
        """Nothing of the response is held any longer."""
        self.waits_for = NOTHING
        self.request.context.buffered_bytes -= self.held_bytes
        self.held_bytes = 0

    def drop(self) -> None:
        """Close what runs upstream, at once: nobody waits for it any longer."""
        self.let_go()
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.receiver = None
            connection.transport.abort()

    def __repr__(self) -> str:
        state = "dialling" if self.dial else "answering" if self.response else "awaiting"
        return f"<Attempt {self.deployment.id} {'over' if self.record.is_over else state}>"
