"""One request, from its head to its last answer byte.

    HOLDING   ──choice──►  CONNECTING  ──connected──►  AWAITING  ──answer's head──►  ANSWERING  ──end──►  DONE
    (body gathers until    (no idle connection:        (request on its way;          (committed: finished,
     the model is known)    one is dialled)             nothing answered yet)         or cut)

Any state goes to DONE when the client leaves, a deadline passes or an error is answered. Calls come from
two sides, :class:`proxy.downstream.ClientConnection` and :class:`proxy.upstream.ProviderConnection`; both
hold the exchange only as long as it is theirs.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from proxy.accounting import account
from proxy.answer import Answer
from proxy.body import insertion, refuse_case_variants, wants_stream
from proxy.catalog import Deployment, Pool
from proxy.errors import BadRequest, ProviderError
from proxy.framing import Body, wrap_chunk
from proxy.headers import RequestHead, ResponseHead
from proxy.intake import JOIN_BYTES, RequestBody, facts_of, text_bytes
from proxy.meters import Row
from proxy.options import Options, read_options
from proxy.strategy import choose
from proxy.upstream import ProviderConnection

if TYPE_CHECKING:
    from proxy.downstream import ClientConnection
    from proxy.gateway import Gateway, Provider

log = logging.getLogger("tokenhub.exchange")

HOLDING, CONNECTING, AWAITING, ANSWERING, DONE = range(5)

# While a connection is being dialled, so much of a body whose model is known is taken from the client.
_DIAL_BUFFER_BYTES = 64 << 10


class Exchange:
    """See the module's text. All times are monotonic seconds."""

    # Slots, because under load a dictionary costs a tenth more CPU: more memory is touched.
    __slots__ = (
        "answer", "asked_at", "begun_at", "body", "chosen_at", "client", "client_full_at", "deadline_at",
        "deployment", "dial", "endpoint", "first_byte_at", "first_byte_s", "gateway", "head", "keepalive_s",
        "kept_alive_at", "learn_bytes", "length", "options", "path", "pending_head", "pool", "progress_at",
        "provider", "redialled", "request_id", "row", "served_by", "state", "upstream", "upstream_full_at",
    )  # fmt: skip

    # Set with the choice and not looked at before; the last is the header lines that name the other two.
    options: Options
    deployment: Deployment
    provider: Provider
    served_by: bytes

    def __init__(
        self, gateway: Gateway, client: ClientConnection, head: RequestHead, length: int | None,
        endpoint: str, path: bytes,
    ) -> None:  # fmt: skip
        self.gateway = gateway
        self.client = client
        self.head = head
        self.length = length  # of the body; None: it is chunked, or there is none
        self.endpoint = endpoint
        self.path = path  # below the provider's base path
        self.request_id = gateway.next_request_id()
        self.begun_at = monotonic()
        self.body = RequestBody()
        self.first_byte_s = gateway.timeouts.first_byte_s
        self.state = HOLDING
        self.learn_bytes = 0  # size of the prompt's text, where the whole body was seen; else 0
        self.pool: Pool | None = None
        self.row: Row | None = None
        self.dial: asyncio.Task[None] | None = None
        self.upstream: ProviderConnection | None = None
        self.answer: Answer | None = None
        self.redialled = False
        self.pending_head = b""
        self.chosen_at = self.first_byte_at = self.progress_at = self.kept_alive_at = 0.0
        self.asked_at = 0.0  # when the last of the request was sent: from here the provider's time counts
        self.upstream_full_at = 0.0  # since when the provider takes nothing; 0: it does
        self.client_full_at = 0.0  # since when the client takes nothing; 0: it does
        self.deadline_at = float("inf")
        self.keepalive_s = 0.0

    def begin(self) -> None:
        """Check the head of the request.

        :raises GatewayError: it can't be served.
        """
        head = self.head
        options = self.options = head.options or read_options(head)
        if options.timeout_s is not None and options.timeout_s < self.first_byte_s:
            self.first_byte_s = options.timeout_s
        length = self.length
        if length is None:
            if not head.chunked:
                text = "The request needs a Content-Length or a chunked body."
                raise BadRequest(text, status=411, close=True)
        else:
            self._check_size(length)

    def _check_size(self, size: int) -> None:
        if size > self.gateway.max_body_bytes:
            raise BadRequest(
                f"The body is larger than max_body ({self.gateway.max_body_bytes} bytes).",
                status=413,
                code="body_too_large",
                close=True,
            )

    def on_body(self, piece: bytes, done: bool) -> None:
        """A piece of the request body came (without chunk framing); ``done``: it was the last.

        :raises GatewayError: the body can't be served. Whatever was started upstream is the caller's to end
            with :meth:`abandon`.
        """
        if self.state == DONE or self.answer is not None:
            return  # a provider that answered early: what else the client sends goes nowhere
        body = self.body
        body.scan(piece, done)
        if self.length is None:
            self._check_size(body.size)
        if self.upstream is not None:
            self._send_on(piece)
            return
        assert body.held is not None
        if piece:
            body.held.append(piece)
        if self.state == HOLDING:
            if done or (body.found is not None and self._is_settled()):
                self._choose()
        elif not done and body.size > _DIAL_BUFFER_BYTES:
            self.client.pause_reading(True)

    def _is_settled(self) -> bool:
        """Nothing still to come of the body can change where it goes or what is sent."""
        members = (self.pool or self._resolve()).members
        return len(members) == 1 and not members[0].provider.case_insensitive_keys

    def _resolve(self) -> Pool:
        found = self.body.found
        name = None if found is None else found.name
        self.pool = self.gateway.catalog.resolve(name, self.endpoint, self.options.strategy)
        return self.pool

    def _choose(self) -> None:
        """Pick the deployment and start the attempt."""
        body = self.body.whole()
        if self.body.found is None:
            insertion(body, b"")  # what is not JSON is told so, not asked for a model
        pool = self.pool or self._resolve()
        now = self.chosen_at = self.asked_at = monotonic()
        streamed = wants_stream(body)
        members = pool.members
        if len(members) == 1:
            deployment = members[0]
        else:
            deployment = choose(pool, facts_of(body, pool, self.endpoint, streamed, now), self.gateway.rng)
        if self.body.done:
            if deployment.provider.case_insensitive_keys:
                refuse_case_variants(body)
            self.learn_bytes = text_bytes(body)
        self.deployment = deployment
        self.served_by = self.gateway.response_names(deployment, pool)
        self.keepalive_s = pool.keepalive_s
        provider = self.provider = self.gateway.providers[deployment.provider.name]
        if not provider.has_credentials:
            source = deployment.provider.api_key_env or deployment.provider.api_key_file or "api_key_env"
            raise ProviderError(
                f"There is no key for the provider '{deployment.provider.name}': set {source}.",
                status=502,
                code="provider_auth_failed",
            )
        row = self.row = deployment.row(self.endpoint, streamed)
        row.sent(now)
        self.state = CONNECTING
        self.deadline_at = now + self.first_byte_s
        self.client.wake_by(self.deadline_at)
        connection = provider.pool.take()
        if connection is not None:
            self.on_connected(connection)
        else:
            self.dial = provider.pool.dial(self)

    def on_connected(self, connection: ProviderConnection) -> None:
        """A connection is there for this exchange."""
        self.dial = None
        if self.state != CONNECTING:
            connection.pool.put(connection, monotonic())
            return
        self.upstream = connection
        connection.start(self)
        self.state = AWAITING
        body = self.body
        held = body.held
        assert held is not None
        if not connection.served or body.size > self.gateway.replay_limit_bytes:
            body.held = None  # on a fresh connection nothing can have been lost to a stale keep-alive
        self._send(connection, held)
        if not body.done:
            self.client.pause_reading(False)

    def _send(self, connection: ProviderConnection, pieces: list[bytes]) -> None:
        """The head, and as much of the body as is there, with the model put in."""
        head, provider = self.head, self.provider
        prepared = head.prepared.get(provider)
        if prepared is None:
            prepared = head.prepared[provider] = provider.prepare(head, self.path)
        body, growth = self.body.with_model(pieces, self.deployment.upstream_literal)
        if self.length is not None:
            framing = b"Content-Length: %d\r\n\r\n" % (self.length + growth)
            parts: list[bytes | memoryview] = [prepared, framing, *body]
        else:
            chunk = wrap_chunk(b"".join(body), self.body.done)
            parts = [prepared, b"Transfer-Encoding: chunked\r\n\r\n", chunk]
        if self.body.size <= JOIN_BYTES:
            connection.transport.write(b"".join(parts))
        else:
            connection.transport.writelines(parts)

    def _send_on(self, piece: bytes) -> None:
        """A further piece of a body that is already on its way."""
        connection = self.upstream
        assert connection is not None
        self.body.keep(piece, self.gateway.replay_limit_bytes)
        connection.transport.write(wrap_chunk(piece, self.body.done) if self.head.chunked else piece)
        if self.body.done:
            self.asked_at = monotonic()
            self.deadline_at = self.asked_at + self.first_byte_s
            self.client.wake_by(self.deadline_at)

    def on_upstream_full(self, full: bool) -> None:
        """The provider's connection takes no more, or takes again: pause or resume the client."""
        self.upstream_full_at = monotonic() if full else 0.0
        if not self.body.done:
            self.client.pause_reading(full)

    def on_connect_failed(self, why: str) -> None:
        """No connection could be opened. ``why`` is a short reason without secrets."""
        self.dial = None
        if self.state == CONNECTING:
            self.fail("connect", f"could not be reached ({why})", 503, "provider_unreachable")

    def on_upstream_lost(self, why: str) -> None:
        """The provider's connection closed, or its bytes are not HTTP, before the answer was complete."""
        connection, self.upstream = self.upstream, None
        if connection is None or self.state == DONE:
            return
        stale = connection.served > 0 and not connection.answered
        connection.exchange = None
        connection.transport.abort()
        if self.answer is not None:
            self.break_off(f"broke its answer off ({why})")
        elif stale and self.body.held is not None and not self.redialled:
            # The provider closed a kept connection just as we used it: nobody's fault, and no attempt.
            self.redialled = True
            self.upstream_full_at = 0.0
            self.state = CONNECTING
            self.dial = connection.pool.dial(self)
        else:
            self.fail("reset", f"gave no valid answer ({why})", 502, "provider_bad_answer")

    def on_response_head(self, head: ResponseHead, body: Body, more: bool) -> bool:
        """The head of the answer came; False if the exchange is over with it.

        :param more: bytes of the body, or its end, follow at once.
        """
        if head.status == 401 and not self.provider.passthrough:
            log.error("provider %s refused the operator's key (401)", self.provider.config.name)
            self.fail("401", "refused the gateway's key", 502, "provider_auth_failed")
            return False
        now = monotonic()
        self.body.forget()
        self.state = ANSWERING
        self.progress_at = now
        answer = self.answer = Answer(head, body, self.head.minor)
        # With the request not yet complete (an early answer) neither connection can be used again.
        keep_alive = self.client.keeps_alive() and answer.is_self_delimiting() and self.body.done
        ours = b"X-Inferoute-Request-Id: %b\r\n%b" % (self.request_id, self._names(b"%d" % head.status, now))
        self.pending_head = answer.head_bytes(ours, keep_alive, self.head.minor)
        if not more:
            self._flush_head()
        self.deadline_at = float("inf")
        self.client.wake_by(now + (self.keepalive_s or self.gateway.timeouts.idle_s))
        return True

    def _names(self, outcome: bytes, now: float) -> bytes:
        """Our header lines of a routed answer: who served it, and the story of the attempt."""
        names = b"%b%b:%dms" % (self.served_by, outcome, (now - self.chosen_at) * 1000)
        if self.gateway.server_timing:
            own, provider = (self.chosen_at - self.begun_at) * 1000, (now - self.chosen_at) * 1000
            names += b"\r\nServer-Timing: gateway;dur=%.3f, upstream;dur=%.3f" % (own, provider)
        return names

    def _flush_head(self) -> None:
        self.client.transport.write(self.pending_head)
        self.pending_head = b""

    def on_response_data(self, data: bytes, body: Body) -> None:
        """A part of the answer's body came; ``body`` was fed with it and knows whether it was the last."""
        answer = self.answer
        assert answer is not None
        now = self.progress_at = monotonic()
        out = answer.pass_on(data)
        if not self.first_byte_at:
            self._on_first_byte(answer, now)
        if self.pending_head:
            out = self.pending_head + out
            self.pending_head = b""
        if body.done:
            row = self.row
            assert row is not None
            output_s = now - self.first_byte_at
            account(row, self.deployment, answer, self.endpoint, self.learn_bytes, output_s, now)
        if out:
            self.client.transport.write(out)
        if body.done:
            self._end(answer, now)

    def _on_first_byte(self, answer: Answer, now: float) -> None:
        row = self.row
        assert row is not None
        self.first_byte_at = now
        if answer.head.status < 400:
            row.first_byte(now - self.asked_at, now)
        else:
            row.left_awaiting()

    def _end(self, answer: Answer, now: float) -> None:
        self.state = DONE
        connection, self.upstream = self.upstream, None
        assert connection is not None
        connection.release(answer.head.keep_alive and self.body.done, now)
        self.client.on_exchange_done(answer.is_self_delimiting() and self.body.done)

    def is_under_way(self) -> bool:
        """A provider was chosen, and has not answered yet."""
        return self.state in (CONNECTING, AWAITING)

    def abandon(self, error: str | None = None) -> None:
        """Stop whatever runs upstream: the client left, or is being answered an error of its own."""
        if self.state == DONE:
            return
        failed = None if error is None else False
        if self.row is not None:
            if not self.first_byte_at:
                self.row.left_awaiting()
            self.row.finished(monotonic(), failed, error)
        self.state = DONE
        self.body.forget()
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        connection, self.upstream = self.upstream, None
        if connection is not None:
            connection.exchange = None
            connection.transport.abort()

    def fail(self, outcome: str, what: str, status: int, code: str) -> None:
        """The attempt failed before its answer began."""
        name = self.provider.config.name
        log.warning("%s: provider %s %s", self.request_id.decode(), name, what)
        self.abandon(f"{outcome}: {what}")
        names = self._names(outcome.encode(), monotonic())
        error = ProviderError(f"The provider '{name}' {what}.", status=status, code=code)
        self.client.answer_error(error, self.request_id, names + b"\r\n")

    def break_off(self, what: str) -> None:
        """The answer can't be completed: tell the client in a way that no one can take for its end."""
        assert self.answer is not None
        answer = self.answer
        name = self.provider.config.name
        log.warning("%s: provider %s %s", self.request_id.decode(), name, what)
        self.abandon(what)
        if self.pending_head:
            self._flush_head()
        if answer.is_between_events():
            error = ProviderError(f"The provider '{name}' {what}.", status=502, code="provider_broke_off")
            self.client.transport.write(answer.error_event(error))
            self.client.on_exchange_done(answer.is_self_delimiting() and self.body.done)
        else:
            self.client.cut(answer.is_self_delimiting())

    def on_client_full(self, full: bool) -> None:
        """The client takes no more for now, or takes again: pause or resume the provider."""
        now = monotonic()
        self.client_full_at = now if full else 0.0
        if self.upstream is not None:
            if full:
                self.upstream.hold_back(True)
                self.client.wake_by(now + self.gateway.timeouts.client_write_s)
            else:
                self.progress_at = now
                self.upstream.hold_back(False)
