"""One try at one deployment: connect, send the request, take the answer and pass it on.

Its connection calls it (:mod:`proxy.relay.upstream.connection`). What becomes of the request when it fails,
and when its answer may go to the client, is decided by :mod:`proxy.relay.exchange.exchange`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.access.grants import would_go_along
from proxy.deployments.deployment import Deployment
from proxy.deployments.record import CONNECT, RESET, TIMEOUT, Record, is_failure
from proxy.relay.exchange import failures
from proxy.relay.exchange.body_edits import edits_of
from proxy.relay.exchange.charge import NOTHING, Charge, account, estimated
from proxy.relay.exchange.end_policy import NO_END, begin, learn
from proxy.relay.exchange.request_body import JOIN_BYTES
from proxy.relay.upstream.connection import TAKEN_IN_BYTES
from proxy.routing.failover import Doubt
from proxy.routing.pool import Pool
from proxy.wire.framing import Body, framed, wrap_chunk
from proxy.wire.header_lines import without
from proxy.wire.response import Answer
from proxy.wire.response_head import ResponseHead
from proxy.wire.retry_after import retry_after_s
from proxy.wire.sse import is_error

if TYPE_CHECKING:
    from proxy.relay.downstream.connection import ClientConnection
    from proxy.relay.exchange.detached_client import AbsentClient
    from proxy.relay.exchange.exchange import Exchange
    from proxy.relay.upstream.connection import ProviderConnection

log = logging.getLogger("tokenhub.provider")

_LOCATION: Final = frozenset((b"location",))
# A body so small is kept until there is an answer, though nothing may follow: a failure is judged by it.
_KEPT_BYTES: Final = 16 << 10


class Attempt(Record):
    """See the module's text. All times are monotonic seconds.

    :param pool: what the deployment was chosen from.
    """

    # Slots, because under load a dictionary costs a tenth more CPU: more memory is touched.
    __slots__ = (
        "answer", "answered_at", "asks_usage", "charge", "client", "connection", "deadline_at", "dial",
        "doubt", "exchange", "is_peeking", "is_refused", "pending", "pool", "progress_at", "provider",
        "redial_s", "redialled", "upstream_full_at",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, deployment: Deployment, pool: Pool, now: float) -> None:
        super().__init__(deployment, exchange.endpoint, exchange.streamed, now, exchange.body.done)
        self.exchange = exchange
        self.client: ClientConnection | AbsentClient = exchange.client
        self.pool = pool
        self.provider = exchange.routes.providers[deployment.provider.name]
        self.deadline_at = now + exchange.first_byte_s
        self.dial: asyncio.Task[None] | None = None
        self.connection: ProviderConnection | None = None
        self.answer: Answer | None = None
        self.answered_at = 0.0  # when the first byte of the answer's body came, whatever the answer
        self.progress_at = 0.0  # when the last one did
        self.upstream_full_at = 0.0  # since when the provider takes nothing; 0: it does
        self.pending = b""  # what the client will get first: the head, and what is held to be peeked at
        self.is_peeking = False
        self.redialled = False
        self.redial_s = -1.0  # after so many seconds a kept connection had closed
        self.is_refused = False  # by a 401, whose body is awaited
        self.doubt: Doubt | None = None  # so it was, and it may be the request's own fault
        self.asks_usage = False  # it was asked for in the client's place, and is taken out again
        self.charge: Charge = NOTHING

    def start(self) -> None:
        """Take an idle connection, or dial."""
        connection = self.provider.pool.take()
        if connection is not None:
            self.on_connected(connection)
        else:
            self.dial = self.provider.pool.dial(self)

    def on_connected(self, connection: ProviderConnection) -> None:
        """A connection is there for this attempt."""
        assert not self.is_over  # what ends an attempt ends its dialling
        self.dial = None
        self.connection = connection
        connection.start(self)
        exchange = self.exchange
        body = exchange.body
        held = body.held
        assert held is not None
        # On a fresh connection nothing can be lost to a stale keep-alive.
        is_needed = connection.served or exchange.may_follow or (body.done and body.size <= _KEPT_BYTES)
        if not is_needed or body.size > exchange.gateway.replay_limit_bytes:
            body.held = None
            self.exchange.unhold()
        self._send(connection, held)
        if not body.done:
            self.client.pause_reading(False)

    def _send(self, connection: ProviderConnection, pieces: list[bytes]) -> None:
        """The head, and as much of the body as is there, with the model put in."""
        exchange, provider = self.exchange, self.provider
        head, tracing = exchange.head, exchange.gateway.tracing
        line: bytes | None = None if tracing is None else tracing.line_for(self)
        prepared = head.prepared.get(provider)
        if prepared is None or head.dropped is not None:
            prepared = exchange.gateway.prepare(head, provider, exchange.path)
        if line is not None:
            prepared += line
        intake = exchange.body
        edits = edits_of(self, pieces) if exchange.answer_limit or provider.asks_usage else None
        body, growth = intake.with_model(pieces, self.deployment.upstream_literal, edits)
        length = None if exchange.length is None else exchange.length + growth
        parts = framed(prepared, body, length, intake.done)
        if intake.size > TAKEN_IN_BYTES:
            connection.be_patient()
        if intake.size <= JOIN_BYTES:
            data = b"".join(parts)
            if intake.done:
                exchange.gateway.outbox.write(connection.transport, data, self.begun_at)
            else:
                connection.transport.write(data)
        else:
            connection.send(parts)

    def send_on(self, piece: bytes) -> None:
        """A further piece of a body that is already on its way."""
        exchange, connection = self.exchange, self.connection
        assert connection is not None
        body = exchange.body
        body.keep(piece, exchange.gateway.replay_limit_bytes)
        connection.be_patient()
        connection.send_on(wrap_chunk(piece, body.done) if exchange.head.chunked else piece)
        if body.done:
            self.on_request_complete(monotonic())

    def on_request_complete(self, now: float) -> None:
        """The client has sent all of its request: from here the provider's time counts."""
        self.asked(now)
        self.deadline_at = now + self.exchange.first_byte_s
        self.client.wake_by(self.deadline_at)

    def on_upstream_full(self, full: bool) -> None:
        """The provider's connection takes no more, or takes again: pause or resume the client."""
        self.upstream_full_at = monotonic() if full else 0.0
        if not self.exchange.body.done:
            self.client.pause_reading(full)

    def on_connect_failed(self, why: str, is_ours: bool = False) -> None:
        """No connection could be opened. ``why`` is a short reason without secrets; ``is_ours``: it is this
        machine that has no room for one, and nothing is blamed on the provider."""
        self.dial = None
        if is_ours:
            now = monotonic()
            what = failures.none_can_be_opened(self, why, now)
            self.exchange.on_attempt_failed(self, CONNECT, what, 503, "provider_unreachable", now)
            return
        self.fail(CONNECT, f"could not be reached ({why})", 503, "provider_unreachable")

    def on_upstream_lost(self, why: str) -> None:
        """The provider's connection closed, or its bytes are not HTTP, before the answer was complete."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        connection.attempt = None
        now = monotonic()
        may_redial = failures.is_stale(self, connection, now, is_reset=why == "reset")
        connection.transport.abort()
        if self.is_refused:
            self._refused(now)
        elif may_redial:
            self._redial(connection, now)
        else:
            is_out = self.answer is not None and not self.is_peeking
            self._lost(f"{'broke its answer off' if is_out else 'gave no valid answer'} ({why})")

    def _lost(self, what: str) -> None:
        """There is no more to come, and the answer is not complete. ``what``: the provider did with it."""
        if self.answer is None or self.is_peeking:
            self.fail(RESET, what, 502, "provider_bad_answer")
        else:
            self.exchange.break_off(self, what)

    def _redial(self, connection: ProviderConnection, now: float) -> None:
        """Nobody's fault, and no attempt: the request goes out again on a connection of its own."""
        self.redialled = True
        self.redial_s = now - self.begun_at
        self.upstream_full_at = 0.0
        self.exchange.gateway.counters.redials += 1
        self.dial = connection.pool.dial(self)

    def on_deadline(self) -> None:
        """No answer in time."""
        if self.is_refused:  # and the rest of it is waited for in vain
            self._refused(monotonic())
            return
        limit_s = self.deadline_at - self.asked_at
        what = f"did not answer within {limit_s:.3g} s"
        if failures.is_providers_time(self):
            self.fail(TIMEOUT, what, 504, "provider_timeout")
            return
        now = monotonic()
        if self.is_at_work():  # what the provider did until here is the client's to pay
            self.charge_so_far(now)
        failures.run_out(self, what, now)
        self.exchange.on_attempt_failed(self, TIMEOUT, what, 504, "provider_timeout", now, is_clients=True)

    def on_response_head(self, head: ResponseHead, body: Body, more: bool) -> bool:
        """The head of the answer came; False if the attempt is over with it.

        :param more: bytes of the body, or its end, follow at once.
        """
        exchange = self.exchange
        now = self.progress_at = monotonic()
        if head.leads_on and would_go_along(exchange.head.credentials):
            head.lines = without(head.lines, _LOCATION)
        status, minor, endpoint = head.status, exchange.head.minor, exchange.endpoint
        self.answer = begin(head, body, minor, self.asks_usage, endpoint, self.provider, self.row)
        if status >= 400 and is_failure(status) and not (status == 401 and self.provider.passthrough):
            return self._on_failure(head, now, more)
        exchange.on_head(self, now)
        if not more and not self.is_peeking:
            self.flush()
        return True

    def _on_failure(self, head: ResponseHead, now: float, more: bool) -> bool:
        """A failure of the provider's: something else is asked, or the client gets it as it is."""
        status = head.status
        wait_s = retry_after_s(head.lines, time.time()) if status in (429, 503) else None
        if status == 401:
            failures.tell_refused(self)
            if not self.exchange.body.done:
                return self._refused(now)
            self.is_refused = True
            self.deadline_at = min(self.deadline_at, now + failures.REFUSAL_S)
            self.client.wake_by(self.deadline_at)
            return True
        what = f"answered {status}"
        if not self.fail(str(status), what, 502, "provider_failed", wait_s=wait_s, has_answer=True, now=now):
            return False
        if not more:
            self.flush()
        return True

    def _refused(self, now: float) -> bool:
        """A 401 is there, with its body or as much of it as was waited for."""
        self.is_refused = False
        failures.refuse(self, now)
        what = failures.REFUSED
        return self.exchange.on_attempt_failed(self, "401", what, 502, "provider_auth_failed", now)

    def fail(
        self, outcome: str, what: str, status: int, code: str, *,
        wait_s: float | None = None, has_answer: bool = False, now: float = 0.0,
    ) -> bool:  # fmt: skip
        """The attempt failed: tell the tables, and have the exchange go on. True: its answer is passed on.

        :param outcome: a status, or ``connect``, ``timeout``, ``reset``, ``error``.
        :param what: what the provider did, for people.
        :param status: of the answer to the client, if this is the last word; and ``code`` of its envelope.
        :param wait_s: seconds the provider wants to be left alone.
        :param has_answer: there is an answer that could be passed on.
        """
        now = now or monotonic()
        failures.blame(self, outcome, what, now, wait_s)
        return self.exchange.on_attempt_failed(self, outcome, what, status, code, now, has_answer=has_answer)

    def on_client_left(self, now: float) -> None:
        """Nobody waits any longer."""
        if self.exchange.gateway.tracing is not None:
            self.exchange.gateway.tracing.left(self, now)
        if self.is_at_work():
            self.charge_so_far(now)
        self.left(now)

    def is_at_work(self) -> bool:
        """The provider has the whole request, or answers it already, and not yet to the end."""
        is_asked = self.exchange.body.done or self.answer is not None
        return not self.is_over and self.connection is not None and is_asked

    def charge_so_far(self, now: float, is_whole: bool = False) -> None:
        """What it costs that the answer comes to no end: a stream whose last event has passed is whole."""
        answer, exchange = self.answer, self.exchange
        if exchange.client_full_at:
            self.held_s += now - exchange.client_full_at
            exchange.client_full_at = now
        if answer is not None and (is_whole or answer.tells_all(exchange.endpoint, exchange.answers)):
            self.account(answer, now)
        else:
            self._estimate(now, is_over=False)

    def is_said_to_end(self) -> bool:
        """The last event of a stream has passed, if not yet the end of the message."""
        return self.answer is not None and self.answer.is_said_to_end()

    def account(self, answer: Answer, now: float) -> None:
        """What an answer cost whose usage was told, if any was."""
        exchange, took_s = self.exchange, now - self.answered_at
        charge = account(self, answer, exchange.endpoint, exchange.learn_bytes, took_s, now, exchange)
        if charge[0] is None:
            self._estimate(now, is_over=True)
        else:
            self.charge = charge if not self.provider.simulated else (charge[0], 0)

    def _estimate(self, now: float, *, is_over: bool) -> None:
        exchange = self.exchange
        usage, cost_nusd = estimated(
            self, self.answer, exchange.endpoint, exchange.most_used(), now,
            is_over=is_over, is_async=exchange.wants().is_async,
        )  # fmt: skip
        self.charge = usage, 0 if usage is not None and self.provider.simulated else cost_nusd

    def flush(self) -> None:
        """What is pending goes to the client."""
        self.client.send(self.pending)
        self.pending = b""

    def on_response_data(self, data: bytes, body: Body) -> None:
        """A part of the answer's body came; ``body`` was fed with it and knows whether it was the last."""
        answer = self.answer
        assert answer is not None
        now = self.progress_at = monotonic()
        out = answer.pass_on(data)
        if self.is_refused:
            if body.done or answer.passed_bytes > failures.REFUSAL_BYTES:
                self._refused(now)
            return
        if not self.answered_at:
            self.answered_at = now
            if answer.head.status < 400 and not self.is_peeking:
                self.first_byte(now)
        if self.pending:
            out, self.pending = self.pending + out, b""
        if body.done and answer.ends_as:
            learn(answer, self.row)
        if self.is_peeking:
            self.pending = out
            if self._is_held(answer, now):
                return
            out, self.pending = self.pending, b""
        if not body.done:
            if out:
                self.client.send_soon(out, now)
            return
        self.pending = out
        if answer.is_unfinished:
            self._lost(NO_END)
            return
        connection, self.connection = self.connection, None
        assert connection is not None
        connection.release(answer.head.keep_alive and self.exchange.body.done, now)
        self.exchange.on_last(self)

    def _is_held(self, answer: Answer, now: float) -> bool:
        """Look at the first event of a stream: hold it further, fail over, or let it go."""
        verdict = is_error(answer.first or answer.tail())  # of a large read the tail begins anywhere
        if verdict:
            what = "sent an error as its first event"
            return not self.fail("error", what, 502, "provider_failed", has_answer=True, now=now)
        if verdict is None and not answer.body.done and not answer.first:
            return True
        if answer.is_unfinished:
            self._lost(NO_END)
            return True
        self._clear(now)
        return False

    def _clear(self, now: float) -> None:
        """What is held is an answer like any other: only from here its first byte was that of a good one."""
        answer = self.answer
        if self.answered_at and answer is not None and answer.head.status < 400:
            self.first_byte(self.answered_at)
        self.exchange.on_cleared(self, now)

    def release(self) -> None:
        """Time is up for the first event: what is held goes to the client."""
        self._clear(monotonic())
        self.flush()

    def drop(self) -> None:
        """Close what runs upstream, at once: nobody waits for it any longer."""
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.attempt = None
            connection.transport.abort()

    def __repr__(self) -> str:
        state = "dialling" if self.dial else "answering" if self.answer else "awaiting"
        return f"<Attempt {self.deployment.id} {'over' if self.is_over else state}>"
