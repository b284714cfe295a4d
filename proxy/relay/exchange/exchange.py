"""One request, from its head to its last response byte: whom to ask, what the client gets, when it is over.

    HOLDING ──choice──► TRYING ──output──► ANSWERING ──end──► DONE
    (body gathers        │  ▲              (committed: finished, or cut)
     until the model     └──┘ the next attempt, at the same
     is known)                member after a pause (PAUSING)

The table of states and events is :data:`proxy.relay.exchange.states.TABLE`; here is what its actions do.
Calls come from two sides: :class:`proxy.relay.downstream.connection.ClientConnection`, and the attempts
(:mod:`proxy.relay.exchange.attempt`), of which one runs at a time, or two where a request is hedged.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

from proxy.deployments.deployment import Deployment
from proxy.deployments.record import RESET
from proxy.errors import AttemptFailed, CoolingDown, GatewayError, ProviderError
from proxy.relay.exchange import failures, states
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.charge import Extra
from proxy.relay.exchange.client import Client
from proxy.relay.exchange.closing import close
from proxy.relay.exchange.context import Context
from proxy.relay.exchange.detached_client import DetachedClient, should_drain
from proxy.relay.exchange.end_policy import last_bytes
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.relay.exchange.follow import what_follows
from proxy.relay.exchange.hedge import drop_hedge, plan_hedge
from proxy.relay.exchange.held import due_at
from proxy.relay.exchange.request import Request
from proxy.relay.exchange.response_headers import failure_lines, limits_left, response_lines
from proxy.relay.exchange.states import after_failure, step
from proxy.relay.exchange.timers import look_at
from proxy.relay.exchange.tracing import HEDGED, LEFT
from proxy.relay.upstream.known_head import KnownHead
from proxy.routing.candidates import cooling_left_s, is_out
from proxy.routing.failover import Failover
from proxy.routing.pool import Pool
from proxy.routing.strategy import choose
from proxy.wire.json_body import stream_of
from proxy.wire.model_scanner import duplicate_model
from proxy.wire.stream_end import WHOLE

log = logging.getLogger("tokenhub.request")

# Bytes of a body, whose model is known, that are taken from the client while a connection is dialled.
_DIAL_BUFFER_BYTES: Final = 64 << 10
# The client left before it had a response: nginx's number for it, for tables and logs.
CLIENT_LEFT: Final = 499


class Exchange(ExchangeState):
    """One request of a client, and what becomes of it. All times are monotonic seconds."""

    __slots__ = ("last_bytes",)

    def __init__(
        self, context: Context, client: Client, head: KnownHead, length: int | None, endpoint: str,
        path: bytes,
    ) -> None:  # fmt: skip
        super().__init__(Request(context, head, length, endpoint, path), client)
        self.last_bytes = b""  # of a complete response, until it is accounted for

    def on_body(self, piece: bytes, done: bool) -> None:
        """A piece of the request body came (without chunk framing); ``done``: it was the last.

        :raises GatewayError: the body can't be served. Whatever was started upstream is the caller's to end
            with :meth:`abandon`.
        """
        if self.state == states.DONE or self.response is not None:
            return  # a provider that answered early: what else the client sends goes nowhere
        request = self.request
        request.scan(piece, done)
        body, attempt = request.body, self.attempt
        if attempt is not None and attempt.connection is not None:
            attempt.send_on(piece)
            return
        if piece:
            request.hold(piece)
        if self.state == states.HOLDING:
            if done or (body.found is not None and request.is_settled()):
                self._choose()
        elif done and attempt is not None:
            attempt.on_request_complete(request.ready_at)
        elif body.size > _DIAL_BUFFER_BYTES:
            self.client.pause_reading(True)

    def _choose(self) -> None:
        """Pick the deployment and start the first attempt."""
        request = self.request
        pool = request.pool or request.resolve()
        text, keys = request.body.excerpt()
        context = request.context
        request.settled_at = request.ready_at
        now = monotonic()
        request.streamed, is_clear = stream_of(text, keys)
        request.let_in(pool, text, keys, now, is_clear=is_clear)
        context.budget.count_request(now, request.share)
        deployment: Deployment | None
        if pool.kind == "pinned":  # always sent, if to no other
            deployment = None if request.fallbacks and is_out(pool, now) else pool.members[0]
        else:
            deployment = choose(pool, request.facts(pool, text, keys, now), context.rng)
        if deployment is None and request.fallbacks:
            chain = self.begin_chain(pool, None)
            deployment = chain.next(request.facts_again, context.budget, context.rng, now)
            if deployment is not None and chain.pool is not pool:
                pool = chain.pool
                context.counters.fallbacks += 1
        self.state = step(self.state, states.NOBODY if deployment is None else states.CHOSEN)
        if deployment is None:
            self._tell(CoolingDown(pool.name, cooling_left_s(pool, now)), b"", now)
            return
        self.try_at(deployment, pool, now)

    def try_at(
        self, deployment: Deployment, pool: Pool, now: float, hedged_attempt: Attempt | None = None
    ) -> None:
        """Start an attempt, beside its ``hedged_attempt`` if there is one.

        :raises GatewayError: this request can't go to this provider.
        """
        request = self.request
        if request.body.has_case_variant and deployment.provider.case_insensitive_keys:
            raise duplicate_model()
        attempt = Attempt(self, deployment, pool, now)
        self.attempt, self.hedged_attempt = attempt, hedged_attempt
        if not deployment.usable:
            attempt.record.left(now)
            failure = AttemptFailed("no-key", deployment.provider.no_key, 502, "provider_auth_failed")
            attempt.trace(failure, now)
            self.on_attempt_failed(attempt, failure, now)
            return
        self.client.wake_by(attempt.deadline_at)
        attempt.start()
        request.sent_at = request.sent_at or monotonic()
        if hedged_attempt is None and pool.can_fail_over and pool.hedge:
            plan_hedge(self, attempt)

    def begin_chain(self, pool: Pool, first: Deployment | None) -> Failover:
        request = self.request
        limit, fallbacks = request.context.max_attempts, request.fallbacks
        # From the end of the upload on: a slow one is not the providers' time.
        deadline_s = request.ready_at + request.deadline_s
        chain = self.chain = Failover(pool, fallbacks, first, limit, deadline_s, request.share)
        return chain

    def on_held(self, attempt: Attempt, now: float) -> None:
        attempt.deadline_at = due_at(self, attempt, now)
        self.client.wake_by(attempt.deadline_at)

    def leave(self, attempt: Attempt, failure: AttemptFailed, now: float) -> bool:
        following = what_follows(self, attempt, failure, now)
        if following is None and self.hedged_attempt is None:
            return False
        attempt.record_failure(failure, now)
        self._go_on(attempt, failure, following, now)
        return True

    def on_attempt_failed(self, attempt: Attempt, failure: AttemptFailed, now: float) -> bool:
        return self._go_on(attempt, failure, what_follows(self, attempt, failure, now), now)

    def _go_on(
        self, attempt: Attempt, failure: AttemptFailed, following: Deployment | None, now: float
    ) -> bool:
        """An attempt has failed. True: its own response goes to the client."""
        chain, request, hedged_attempt = self.chain, self.request, self.hedged_attempt
        assert chain is not None
        event = after_failure(
            hedge_runs=hedged_attempt is not None,
            can_follow=following is not None,
            can_repeat=chain.again is not None,
            has_response=failure.has_response,
            is_only=chain.is_only(len(chain.failures) + 1),
        )
        self.state = step(self.state, event)
        if event == states.PASS_ON:
            self._commit(attempt, now)
            return True
        attempt.drop()
        drop_hedge(self)  # its moment was this attempt's
        self._note(chain, attempt, failure.outcome, failure.what, now)
        if attempt.doubt is not None:
            chain.doubts.append(attempt.doubt)
        if event != states.LAST_FAILED:
            self._charge_beside(attempt)
        if event == states.HEDGE_RUNS:
            self.attempt, self.hedged_attempt = (
                hedged_attempt if attempt is self.attempt else self.attempt,
                None,
            )
        elif event == states.REPEAT:
            self.attempt = None  # it is in the chain, with its charge
            request.context.counters.followed(True)
            self.client.wake_by(chain.again_at)
        elif following is None:
            self._give_up(attempt, chain, failure, now)
        else:
            request.context.counters.followed(chain.pool is attempt.pool)
            try:
                self.try_at(following, chain.pool, now)
            except GatewayError as error:  # a body that this provider would misread
                self.attempt = None  # it is in the chain, with its charge
                self.client.refuse(error)
        return False

    def resume(self, now: float) -> None:
        chain = self.chain
        assert chain is not None and chain.again is not None
        (deployment, pool), chain.again = chain.again, None
        self.state = step(self.state, states.RESUME)
        self.try_at(deployment, pool, now)

    def _note(self, chain: Failover, attempt: Attempt, outcome: str, what: str, now: float) -> None:
        took_s = now - attempt.record.begun_at
        chain.note(attempt.provider.config.name, outcome, what, took_s, attempt.redial_s)

    def _give_up(self, attempt: Attempt, chain: Failover, last: AttemptFailed, now: float) -> None:
        """Nothing is left to try."""
        names = failure_lines(self, attempt)
        if chain.is_only(len(chain.failures)):
            text = f"The provider '{attempt.provider.config.name}' {last.what}."
            self._tell(ProviderError(text, status=last.status, code=last.code), names, now)
        else:
            self._tell(failures.all_failed(chain, now), names, now)

    def _tell(self, error: GatewayError, names: bytes, now: float) -> None:
        """Respond with an error; ``names``: further header lines, each with its CRLF."""
        self._close(error.status, now, 0)
        self._forget()
        self.client.answer_error(error, self.request.request_id, limits_left(self, None, now) + names)

    def _close(self, status: int, now: float, others: int) -> None:
        """The request is over, but not by the end of a response."""
        was_sent = self.was_sent()
        self.request.context.completions.note(close(self, status, now, others), was_sent)

    def commit(self, attempt: Attempt, now: float) -> None:
        if self.hedged_attempt is not None:
            self._close_loser(self.hedged_attempt if attempt is self.attempt else self.attempt, now)
            self.attempt, self.hedged_attempt = attempt, None
        self.state = step(self.state, states.COMMIT)
        self._commit(attempt, now)

    def _close_loser(self, loser: Attempt | None, now: float) -> None:
        """The slower one of a hedge is closed at once, so that no tokens are generated for nobody."""
        assert loser is not None and self.chain is not None
        self._leave(loser, now)
        self._note(self.chain, loser, "hedged", "was slower than another", now)

    def _commit(self, attempt: Attempt, now: float) -> None:
        """From here the response is this attempt's, whatever happens."""
        self._forget()
        attempt.let_go()
        response = self.response = attempt.response
        assert response is not None
        # With the request not yet complete (an early answer) neither connection can be used again.
        keep_alive = self.client.keeps_alive() and response.is_self_delimiting() and self.request.body.done
        ours = response_lines(self, attempt, response, now)
        if self.chain is not None and self.chain.doubts and response.head.status < 400:
            failures.settle_doubts(self.request.context, self.chain.doubts, now)
        attempt.pending = response.head_bytes(ours, keep_alive, self.request.head.minor) + attempt.pending
        idle_s = attempt.limits.idle_s
        self.client.wake_by(now + min(attempt.pool.keepalive_s or idle_s, idle_s))

    def on_last(self, attempt: Attempt) -> None:
        self.state = step(self.state, states.END)
        self.last_bytes = attempt.pending
        self.request.context.completions.hold(self, attempt.progress_at)

    def settle(self) -> bytes:
        attempt, response = self.attempt, self.response
        assert attempt is not None and response is not None
        now = attempt.progress_at
        try:
            if attempt.is_charged():
                attempt.charge_at(now, True)
        finally:  # whatever fails, the request is over
            line = close(self, response.head.status, now, 1)
        return line

    def send_end(self) -> None:
        client, response = self.client, self.response
        assert response is not None
        if client.is_closing():
            return
        if self.last_bytes:
            client.send(self.last_bytes)
        client.on_exchange_done(response.is_self_delimiting() and self.request.body.done)

    def cut_off(self) -> None:
        self.client.cut(False)

    def on_wake(self, now: float) -> float:
        """Do what is due; returns when to look again."""
        return look_at(self, now)

    def on_client_gone(self) -> None:
        attempt = self.attempt
        if attempt is None or not should_drain(self, attempt):
            self.abandon()
            return
        self.client = DetachedClient(self, monotonic())
        self.request.can_retry, self.request.repeats = False, 0
        self._forget()
        if self.client_full_at:
            self.on_client_full(False)

    def abandon(self, status: int = CLIENT_LEFT) -> None:
        """Stop whatever runs upstream: the client left, or is being answered ``status`` for its request."""
        before, self.state = self.state, step(self.state, states.LEFT)
        if before == states.DONE:
            return
        now = monotonic()
        attempt, hedged_attempt = self.attempt, self.hedged_attempt
        if hedged_attempt is not None:
            self._leave(hedged_attempt, now)
        if attempt is not None:
            attempt.on_client_left(now, self._outcome())
            attempt.drop()
        if self.response is not None:
            status = self.response.head.status
        self._close(status, now, (attempt is not None) + (hedged_attempt is not None))
        self._forget()

    def _leave(self, attempt: Attempt, now: float) -> None:
        """Close one of two attempts; what it cost until now is charged beside the other's answer."""
        attempt.on_client_left(now, self._outcome())
        attempt.drop()
        self._charge_beside(attempt)

    def _outcome(self) -> str:
        """The outcome, for traces, of an attempt that is left."""
        return LEFT if self.state == states.DONE else HEDGED

    def _charge_beside(self, attempt: Attempt) -> None:
        usage, cost_nusd = attempt.charge
        if usage is not None:
            self.hedge_charges = (*self.hedge_charges, Extra(attempt.deployment, usage, cost_nusd))

    def _forget(self) -> None:
        self.request.body.forget()
        self.request.unhold()
        drop_hedge(self)

    def break_off(self, attempt: Attempt, what: str) -> None:
        """Tell the client that the response can't be completed, in a way that can't be taken for its end."""
        response, request = attempt.response, self.request
        assert response is not None
        now = monotonic()
        ending = response.ending_at(request.endpoint)
        is_charged = attempt.is_charged()
        if ending != WHOLE and not attempt.record.is_over:  # what was blamed before is no second failure
            attempt.record_failure(AttemptFailed(RESET, what, 502, "provider_broke_off"), now)
        if is_charged:
            attempt.charge_so_far(now, ending == WHOLE)
        self.state = step(self.state, states.BROKEN)
        self._close(response.head.status, now, 1)
        attempt.drop()
        attempt.flush()
        if response.is_between_events():
            text = f"The provider '{attempt.provider.config.name}' {what}."
            error = ProviderError(text, status=502, code="provider_broke_off")
            self.client.send(last_bytes(response, ending, error, request.endpoint, request.request_id))
            self.client.on_exchange_done(response.is_self_delimiting() and request.body.done)
        else:
            self.client.cut(response.is_self_delimiting())

    def on_client_full(self, full: bool) -> None:
        """The client takes no more for now, or takes again: pause or resume the provider."""
        now = monotonic()
        attempt = self.attempt
        if attempt is not None and self.client_full_at:
            attempt.record.held_s += now - self.client_full_at
        self.client_full_at = now if full else 0.0
        if attempt is not None and attempt.connection is not None:
            attempt.connection.hold_back(full)
            if full:
                self.client.wake_by(now + self.request.context.timeouts.client_write_s)
            else:
                attempt.progress_at = now
