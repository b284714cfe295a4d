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

from proxy.answer import KEEP_ALIVE_EVENT, Answer
from proxy.body import (
    data_url_bytes,
    has_images,
    insertion,
    refuse_case_variants,
    splice,
    value_of,
    wants_stream,
)
from proxy.catalog import Deployment, Pool
from proxy.config import STRATEGIES
from proxy.errors import BadRequest, ProviderError
from proxy.framing import Body
from proxy.headers import RequestHead, ResponseHead
from proxy.meters import Row
from proxy.scanner import ModelScanner, ModelSpan, find_plain
from proxy.strategy import Facts, choose
from proxy.upstream import ProviderConnection
from proxy.usage import price_nusd, read_events, read_plain

if TYPE_CHECKING:
    from proxy.downstream import ClientConnection
    from proxy.gateway import Gateway, Provider

log = logging.getLogger("tokenhub.exchange")

HOLDING, CONNECTING, AWAITING, ANSWERING, DONE = range(5)

# While a connection is being dialled, so much of a body whose model is known is taken from the client.
_DIAL_BUFFER_BYTES = 64 << 10
# Below this size one joined write beats several.
_JOIN_BYTES = 64 << 10
# Bodies below this are not searched for data URLs: an image that small changes no figure.
_URLS_FROM_BYTES = 8 << 10


class Exchange:
    """See the module's text. All times are monotonic seconds."""

    # What most exchanges never change is here, once: setting it in each would cost half a microsecond.
    state = HOLDING
    scanner: ModelScanner | None = None
    found: ModelSpan | None = None
    held: list[bytes] | None  # body pieces not sent yet, or kept for a redial
    body_bytes = 0
    body_done = False
    learn_bytes = 0  # size of the prompt's text, where the whole body was seen; else 0
    asked_strategy: str | None = None
    pool: Pool | None = None
    row: Row | None = None
    # Set with the choice, and not looked at before.
    deployment: Deployment
    provider: Provider
    served_by: bytes  # the header lines of the answer that name them
    dial: asyncio.Task[None] | None = None
    upstream: ProviderConnection | None = None
    redialled = False
    answer: Answer | None = None
    pending_head = b""
    chosen_at = 0.0
    asked_at = 0.0  # when the last of the request was sent: from here the provider's time counts
    upstream_full_at = 0.0  # since when the provider takes nothing; 0: it does
    first_byte_at = 0.0
    progress_at = 0.0
    kept_alive_at = 0.0
    deadline_at = float("inf")
    client_full_at = 0.0  # since when the client takes nothing; 0: it does
    keepalive_s = 0.0

    def __init__(
        self,
        gateway: Gateway,
        client: ClientConnection,
        head: RequestHead,
        length: int | None,
        endpoint: str,
        path: bytes,
    ) -> None:
        self.gateway = gateway
        self.client = client
        self.head = head
        self.length = length  # of the body; None: it is chunked, or there is none
        self.endpoint = endpoint
        self.path = path  # below the provider's base path
        self.request_id = gateway.next_request_id()
        self.begun_at = monotonic()
        self.held = []
        self.first_byte_s = gateway.timeouts.first_byte_s

    # ------------------------------------------------------------------ the request

    def begin(self) -> None:
        """Check the head of the request.

        :raises GatewayError: it can't be served.
        """
        head = self.head
        for name, value in head.inferoute:
            if name == b"x-inferoute-strategy":
                self.asked_strategy = value.decode("latin-1")
                if self.asked_strategy not in STRATEGIES:
                    raise BadRequest(
                        f"X-Inferoute-Strategy must be one of {', '.join(STRATEGIES)}; "
                        f"'{self.asked_strategy[:40]}' is none.",
                        code="invalid_strategy",
                        param="X-Inferoute-Strategy",
                    )
            elif name == b"x-inferoute-timeout":
                self.first_byte_s = min(self.first_byte_s, _seconds(value))
        if head.content_encoding not in (b"", b"identity"):
            raise BadRequest(
                "A compressed request body can't be routed. Send it without Content-Encoding.",
                code="unsupported_content_encoding",
                close=True,
            )
        if head.expect not in (b"", b"100-continue"):
            raise BadRequest("The only Expect is 100-continue.", status=417, close=True)
        if self.length is None and not head.chunked:
            raise BadRequest("The request needs a Content-Length or a chunked body.", status=411, close=True)
        if self.length is not None:
            self._check_size(self.length)

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
        self.body_bytes += len(piece)
        self.body_done = done
        if self.head.chunked:
            self._check_size(self.body_bytes)
        if done and self.scanner is None:
            self.found = find_plain(piece)
        if self.found is None or self.scanner is not None:
            self._scan(piece, done)
        if self.upstream is not None:
            self._send_on(piece)
            return
        assert self.held is not None
        if piece:
            self.held.append(piece)
        if self.state == HOLDING:
            if done or (self.found is not None and self._is_settled()):
                self._choose()
        elif not done and self.body_bytes > _DIAL_BUFFER_BYTES:
            self.client.pause_reading(True)

    def _scan(self, piece: bytes, done: bool) -> None:
        """Look for the model in a body that comes in pieces, or is not of the common form."""
        scanner = self.scanner
        if scanner is None:
            scanner = self.scanner = ModelScanner()
        scanner.feed(piece, done)
        self.found = scanner.found

    def _is_settled(self) -> bool:
        """Nothing still to come of the body can change where it goes or what is sent."""
        members = (self.pool or self._resolve()).members
        return len(members) == 1 and not members[0].provider.case_insensitive_keys

    def _resolve(self) -> Pool:
        name = None if self.found is None else self.found.name
        self.pool = self.gateway.catalog.resolve(name, self.endpoint, self.asked_strategy)
        return self.pool

    def _choose(self) -> None:
        """Pick the deployment and start the attempt."""
        held = self.held
        assert held is not None
        body = held[0] if len(held) == 1 else b"".join(held)
        if self.found is None:
            insertion(body, b"")  # what is not JSON is told so, not asked for a model
        pool = self.pool or self._resolve()
        now = self.chosen_at = self.asked_at = monotonic()
        streamed = wants_stream(body)
        members = pool.members
        if len(members) == 1:
            deployment = members[0]
        else:
            deployment = choose(pool, self._facts(body, pool, streamed, now), self.gateway.rng)
        if self.body_done:
            if deployment.provider.case_insensitive_keys:
                refuse_case_variants(body)
            self.learn_bytes = self.body_bytes
            if self.body_bytes > _URLS_FROM_BYTES:
                self.learn_bytes -= data_url_bytes(body)
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

    def _facts(self, body: bytes, pool: Pool, streamed: bool, now: float) -> Facts:
        # A token is at least a byte: below the smallest window nothing needs a closer look.
        is_large = pool.min_context is not None and len(body) > pool.min_context
        return Facts(
            self.endpoint,
            streamed,
            len(body),
            pool.needs_vision_check and has_images(body),
            pool.needs_tools_check and value_of(body, b'"tools"') >= 0,
            data_url_bytes(body) if is_large else 0,
            now,
        )

    # ------------------------------------------------------------------ the attempt

    def on_connected(self, connection: ProviderConnection) -> None:
        """A connection is there for this exchange."""
        self.dial = None
        if self.state != CONNECTING:
            connection.pool.put(connection, monotonic())
            return
        self.upstream = connection
        connection.start(self)
        self.state = AWAITING
        held = self.held
        assert held is not None
        if not connection.served or self.body_bytes > self.gateway.replay_limit_bytes:
            self.held = None  # on a fresh connection nothing can have been lost to a stale keep-alive
        self._send(connection, held)
        if not self.body_done:
            self.client.pause_reading(False)

    def _send(self, connection: ProviderConnection, pieces: list[bytes]) -> None:
        """The head, and as much of the body as is there, with the model put in."""
        head, provider = self.head, self.provider
        prepared = head.prepared.get(provider)
        if prepared is None:
            prepared = head.prepared[provider] = provider.prepare(head, self.path)
        found = self.found
        literal = self.deployment.upstream_literal
        if found is not None:
            start, end = found.start, found.end
        else:
            start, literal = insertion(b"".join(pieces), literal)
            end = start
        if len(pieces) == 1 and self.body_bytes <= _JOIN_BYTES:
            body: list[bytes | memoryview] = [pieces[0][:start], literal, pieces[0][end:]]
        else:
            body = splice(pieces, start, end, literal)
        if self.length is not None:
            framing = b"Content-Length: %d\r\n\r\n" % (self.length + len(literal) - (end - start))
            parts: list[bytes | memoryview] = [prepared, framing, *body]
        else:
            parts = [prepared, b"Transfer-Encoding: chunked\r\n\r\n", _chunk(b"".join(body), self.body_done)]
        if self.body_bytes <= _JOIN_BYTES:
            connection.transport.write(b"".join(parts))
        else:
            connection.transport.writelines(parts)

    def _send_on(self, piece: bytes) -> None:
        """A further piece of a body that is already on its way."""
        connection = self.upstream
        assert connection is not None
        if self.held is not None:
            if self.body_bytes > self.gateway.replay_limit_bytes:
                self.held = None
            elif piece:
                self.held.append(piece)
        connection.transport.write(_chunk(piece, self.body_done) if self.head.chunked else piece)
        if self.body_done:
            self.asked_at = monotonic()
            self.deadline_at = self.asked_at + self.first_byte_s
            self.client.wake_by(self.deadline_at)

    def on_upstream_full(self, full: bool) -> None:
        """The provider's connection takes no more, or takes again: pause or resume the client."""
        self.upstream_full_at = monotonic() if full else 0.0
        if not self.body_done:
            self.client.pause_reading(full)

    def on_connect_failed(self, why: str) -> None:
        """No connection could be opened. ``why`` is a short reason without secrets."""
        self.dial = None
        if self.state == CONNECTING:
            self._fail("connect", f"could not be reached ({why})", 503, "provider_unreachable")

    def on_upstream_lost(self, why: str) -> None:
        """The provider's connection closed, or its bytes are not HTTP, before the answer was complete."""
        connection, self.upstream = self.upstream, None
        if connection is None or self.state == DONE:
            return
        stale = connection.served > 0 and not connection.answered
        connection.exchange = None
        connection.transport.abort()
        if self.answer is not None:
            self._break_off(f"broke its answer off ({why})")
        elif stale and self.held is not None and not self.redialled:
            # The provider closed a kept connection just as we used it: nobody's fault, and no attempt.
            self.redialled = True
            self.upstream_full_at = 0.0
            self.state = CONNECTING
            self.dial = connection.pool.dial(self)
        else:
            self._fail("reset", f"gave no valid answer ({why})", 502, "provider_bad_answer")

    # ------------------------------------------------------------------ the answer

    def on_response_head(self, head: ResponseHead, body: Body, more: bool) -> bool:
        """The head of the answer came; False if the exchange is over with it.

        :param more: bytes of the body, or its end, follow at once.
        """
        if head.status == 401 and not self.provider.passthrough:
            log.error("provider %s refused the operator's key (401)", self.provider.config.name)
            self._fail("401", "refused the gateway's key", 502, "provider_auth_failed")
            return False
        now = monotonic()
        self.held = None
        self.state = ANSWERING
        self.progress_at = now
        answer = self.answer = Answer(head, body, self.head.minor)
        # With the request not yet complete (an early answer) neither connection can be used again.
        keep_alive = self.client.keeps_alive() and answer.is_self_delimiting() and self.body_done
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
            self._account(answer, now)
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

    def _account(self, answer: Answer, now: float) -> None:
        """Feed the live tables from a finished answer. It comes before its last byte goes out."""
        row, deployment = self.row, self.deployment
        assert row is not None
        status = answer.head.status
        # A request's own mistake (4xx) is a success of the provider; 408 and 429 are not the request's.
        success = status < 500 and status not in (401, 408, 429)
        row.finished(now, success, None if success else f"HTTP {status}")
        if status >= 400 or answer.head.encoded:
            return
        if answer.head.event_stream:
            usage = read_events(answer.tail(), self.endpoint, answer.first)
            output_s = now - self.first_byte_at
        else:
            usage = read_plain(answer.tail(), self.endpoint)
            output_s = 0.0
        if usage is not None:
            cost_nusd = price_nusd(usage, deployment.prices)
            usd = None if cost_nusd is None else cost_nusd * 1e-9
            row.charged(now, self.learn_bytes, usage, usd, output_s)

    def _end(self, answer: Answer, now: float) -> None:
        self.state = DONE
        connection, self.upstream = self.upstream, None
        assert connection is not None
        connection.release(answer.head.keep_alive and self.body_done, now)
        self.client.on_exchange_done(answer.is_self_delimiting() and self.body_done)

    # ------------------------------------------------------------------ ends of another kind

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
        self.held = None
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        connection, self.upstream = self.upstream, None
        if connection is not None:
            connection.exchange = None
            connection.transport.abort()

    def _fail(self, outcome: str, what: str, status: int, code: str) -> None:
        """The attempt failed before its answer began."""
        name = self.provider.config.name
        log.warning("%s: provider %s %s", self.request_id.decode(), name, what)
        self.abandon(f"{outcome}: {what}")
        names = self._names(outcome.encode(), monotonic())
        error = ProviderError(f"The provider '{name}' {what}.", status=status, code=code)
        self.client.answer_error(error, self.request_id, names + b"\r\n")

    def _break_off(self, what: str) -> None:
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
            self.client.on_exchange_done(answer.is_self_delimiting() and self.body_done)
        else:
            self.client.cut(answer.is_self_delimiting())

    # ------------------------------------------------------------------ time and the client's pace

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

    def on_wake(self, now: float) -> float:
        """Look at the deadlines; returns when to look again."""
        timeouts = self.gateway.timeouts
        if self.state in (CONNECTING, AWAITING):
            if not self.body_done:
                # The provider can't be late before it has the whole request; but it has to take it.
                full_at = self.upstream_full_at or now
                self.deadline_at = full_at + self.first_byte_s
            if now < self.deadline_at:
                return self.deadline_at
            self._fail("timeout", f"did not answer within {self.first_byte_s:g} s", 504, "provider_timeout")
        elif self.state == ANSWERING:
            if self.client_full_at:
                due = self.client_full_at + timeouts.client_write_s
                if now < due:
                    return due
                self.abandon()
                self.client.cut(False)
                return float("inf")
            due = self.progress_at + timeouts.idle_s
            if now >= due:
                self._break_off(f"sent nothing for {timeouts.idle_s:g} s")
                return float("inf")
            return min(due, self._keep_alive(now)) if self.keepalive_s else due
        return float("inf")

    def _keep_alive(self, now: float) -> float:
        """Put a comment into an event stream that has been silent; returns when to look again."""
        answer = self.answer
        assert answer is not None
        due = max(self.progress_at, self.kept_alive_at) + self.keepalive_s
        if now < due:
            return due
        if answer.is_between_events():
            self.client.transport.write(answer.wrap_event(KEEP_ALIVE_EVENT, last=False))
            self.kept_alive_at = now
        return now + self.keepalive_s


def _chunk(data: bytes, last: bool) -> bytes:
    """``data`` as a chunk, and the end of the body behind it if it is the last."""
    wrapped = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return wrapped + b"0\r\n\r\n" if last else wrapped


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise BadRequest(
            "X-Inferoute-Timeout must be a number of seconds above 0, such as 2.5.",
            code="invalid_timeout",
            param="X-Inferoute-Timeout",
        )
    return seconds
