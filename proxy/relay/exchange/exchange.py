"""One request, from its head to its last answer byte: whom to ask, what the client gets, when it is over.

    HOLDING ──choice──► TRYING ──answer's head──► ANSWERING ──end──► DONE
    (body gathers        │  ▲ └──► PEEKING ──►┘  (committed: finished, or cut)
     until the model     └──┘ the next attempt
     is known)

The table of states and events is :data:`proxy.relay.exchange.states.TABLE`; here is what its actions do.
Calls come from two sides: :class:`proxy.relay.downstream.connection.ClientConnection`, and the attempts
(:mod:`proxy.relay.exchange.attempt`), of which one runs at a time, or two where a request is hedged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.deployments.deployment import Deployment
from proxy.deployments.record import RESET
from proxy.errors import CoolingDown, GatewayError, ProviderError
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.closing import Extra, close
from proxy.relay.exchange.detached_client import AbsentClient, is_wanted
from proxy.relay.exchange.end_policy import last_bytes
from proxy.relay.exchange.failures import blame, settle_doubts
from proxy.relay.exchange.hedge import plan_hedge
from proxy.relay.exchange.request import Request
from proxy.relay.exchange.response_headers import limits_left, lines_of_answer, lines_of_failure
from proxy.relay.exchange.states import (
    BROKEN,
    CHOSEN,
    CLEARED,
    COMMIT,
    DONE,
    DOUBT,
    END,
    HEAD,
    HOLDING,
    LEFT,
    NOBODY,
    TRY,
    WAIT,
    after_failure,
    step,
)
from proxy.routing.candidates import are_cooling, patience_s
from proxy.routing.failover import Chain
from proxy.routing.pool import Pool
from proxy.routing.strategy import choose
from proxy.wire.json_body import stream_of
from proxy.wire.model_scanner import duplicate_model
from proxy.wire.request_head import RequestHead
from proxy.wire.response import Answer
from proxy.wire.sse import PEEK_S
from proxy.wire.stream_end import WHOLE

if TYPE_CHECKING:
    from proxy.relay.downstream.connection import ClientConnection
    from proxy.relay.downstream.gateway import Gateway
    from proxy.relay.exchange.tracing import Trace

log = logging.getLogger("tokenhub.request")

# While a connection is being dialled, so much of a body whose model is known is taken from the client.
_DIAL_BUFFER_BYTES: Final = 64 << 10
# The client left before it had an answer: nginx's number for it, for tables and logs.
CLIENT_LEFT: Final = 499


class Exchange(Request):
    """See the module's text. All times are monotonic seconds."""

    __slots__ = (
        "answer", "attempt", "chain", "client", "client_full_at", "extras", "hedge_timer", "kept_alive_at",
        "peek_until", "rival", "sent_at", "settled_at", "state", "trace",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, client: ClientConnection, head: RequestHead, length: int | None,
        endpoint: str, path: bytes,
    ) -> None:  # fmt: skip
        super().__init__(gateway, head, length, endpoint, path)
        self.client: ClientConnection | AbsentClient = client
        self.state = HOLDING
        self.attempt: Attempt | None = None  # under way, or the last one
        self.rival: Attempt | None = None  # the first of a hedge, while both run
        self.chain: Chain | None = None
        self.extras: Sequence[Extra] = ()  # charges beside the answer's
        self.answer: Answer | None = None  # what the client gets, from the commit point on
        self.hedge_timer: asyncio.TimerHandle | None = None
        self.settled_at = 0.0  # when what the choice needed had come; more of the body may follow
        self.sent_at = self.kept_alive_at = self.peek_until = 0.0
        self.client_full_at = 0.0  # since when the client takes nothing; 0: it does
        self.trace: Trace | None = None  # while traces are on: from the first attempt on

    def on_body(self, piece: bytes, done: bool) -> None:
        """A piece of the request body came (without chunk framing); ``done``: it was the last.

        :raises GatewayError: the body can't be served. Whatever was started upstream is the caller's to end
            with :meth:`abandon`.
        """
        if self.state == DONE or self.answer is not None:
            return  # a provider that answered early: what else the client sends goes nowhere
        self.scan(piece, done)
        body, attempt = self.body, self.attempt
        if attempt is not None and attempt.connection is not None:
            attempt.send_on(piece)
            return
        if piece:
            self.hold(piece)
        if self.state == HOLDING:
            if done or (body.found is not None and self.is_settled()):
                self._choose()
        elif done and attempt is not None:
            attempt.on_request_complete(self.ready_at)
        elif body.size > _DIAL_BUFFER_BYTES:
            self.client.pause_reading(True)

    def _choose(self) -> None:
        """Pick the deployment and start the first attempt."""
        pool = self.pool or self.resolve()
        text, keys = self.body.excerpt()
        gateway = self.gateway
        self.settled_at = self.ready_at
        now = monotonic()
        self.streamed, is_clear = stream_of(text, keys)
        self.let_in(pool, text, keys, now, is_clear=is_clear)
        gateway.budget.count_request(now, self.share)
        deployment: Deployment | None
        if pool.kind == "pinned":  # always sent
            deployment = pool.members[0]
        else:
            deployment = choose(pool, self.facts(pool, text, keys, now), gateway.rng)
            if deployment is None and self.fallbacks:
                chain = self.begin_chain(pool, None)
                deployment = chain.next(self.facts_again, gateway.budget, gateway.rng, now)
                if deployment is not None:
                    pool = chain.pool
                    gateway.counters.fallbacks += 1
        _, self.state = step(self.state, NOBODY if deployment is None else CHOSEN)
        if deployment is None:
            self._tell(self._be_patient(pool, now), b"", now)
            return
        self.try_at(deployment, pool, now)
        if pool.alias is not None and pool.alias.hedge is not None:
            plan_hedge(self, pool.alias.hedge)

    def _be_patient(self, pool: Pool, now: float) -> GatewayError:
        return CoolingDown(pool.name, patience_s(pool, now))

    def try_at(self, deployment: Deployment, pool: Pool, now: float, rival: Attempt | None = None) -> None:
        """Start an attempt, beside its ``rival`` if there is one.

        :raises GatewayError: this request can't go to this provider.
        """
        if self.body.has_case_variant and deployment.provider.case_insensitive_keys:
            raise duplicate_model()
        attempt = Attempt(self, deployment, pool, now)
        self.attempt, self.rival = attempt, rival
        if not deployment.usable:
            attempt.left(now)
            what = deployment.provider.no_key
            if self.gateway.tracing is not None:
                self.gateway.tracing.failed(attempt, "no-key", what, now)
            self.on_attempt_failed(attempt, "no-key", what, 502, "provider_auth_failed", now)
            return
        if self.chain is not None:
            attempt.deadline_at = min(attempt.deadline_at, self.chain.deadline_s)
        self.client.wake_by(attempt.deadline_at)
        attempt.start()
        self.sent_at = self.sent_at or monotonic()

    def begin_chain(self, pool: Pool, first: Deployment | None) -> Chain:
        """From here the attempts are counted: there may be more than one."""
        limit = self.gateway.max_attempts
        tries = max(limit, 1 + len(self.fallbacks))  # a fallback is asked though a time-out came before it
        deadline_s = self.ready_at + tries * self.first_byte_s  # a slow upload is not the providers' time
        chain = self.chain = Chain(pool, self.fallbacks, first, limit, deadline_s, self.share)
        return chain

    def on_attempt_failed(
        self, attempt: Attempt, outcome: str, what: str, status: int, code: str, now: float, *,
        has_answer: bool = False, is_clients: bool = False,
    ) -> bool:  # fmt: skip
        """Go on to the next attempt, or tell the client. True: the attempt's own answer goes to it.

        :param is_clients: it was the client's own time limit that ended the attempt.
        """
        chain = self.chain or self.begin_chain(attempt.pool, attempt.deployment)
        rival, following = self.rival, None
        if (
            rival is None
            and self.may_follow
            and self.body.held is not None
            and self.may_cost_more(attempt, now)
        ):
            gateway = self.gateway
            following = chain.next(self.facts_again, gateway.budget, gateway.rng, now, is_clients=is_clients)
        event = after_failure(
            rival_runs=rival is not None,
            can_follow=following is not None,
            has_answer=has_answer,
            attempts=len(chain.failures) + 1,
        )
        action, self.state = step(self.state, event)
        if action == COMMIT:
            self._commit(attempt, now)
            return True
        attempt.drop()
        chain.note(attempt.provider.config.name, outcome, what, now - attempt.begun_at, attempt.redial_s)
        if attempt.doubt is not None:
            chain.doubts.append(attempt.doubt)
        if action in (WAIT, TRY):
            self._charge_beside(attempt)
        if action == WAIT:
            self.attempt, self.rival = rival if attempt is self.attempt else self.attempt, None
        elif following is None:
            self._give_up(attempt, chain, status, code, now)
        else:
            self.gateway.counters.followed(chain.pool is attempt.pool)
            try:
                self.try_at(following, chain.pool, now)
            except GatewayError as error:  # a body that this provider would misread
                self.client.refuse(error)
        return False

    def _give_up(self, attempt: Attempt, chain: Chain, status: int, code: str, now: float) -> None:
        """Nothing is left to try."""
        names = lines_of_failure(self, attempt)
        if len(chain.failures) == 1:
            failure = chain.failures[0]
            text = f"The provider '{failure.provider}' {failure.what}."
            self._tell(ProviderError(text, status=status, code=code), names, now)
        elif are_cooling(chain.pool, now):
            self._tell(self._be_patient(chain.pool, now), names, now)
        else:
            error = ProviderError(chain.message(), status=503, code="all_attempts_failed")
            self._tell(error, names, now)

    def _tell(self, error: GatewayError, names: bytes, now: float) -> None:
        self.gateway.endings.note(self, error.status, now, 0)
        self._forget()
        self.client.answer_error(error, self.request_id, limits_left(self, None, now) + names)

    def on_head(self, attempt: Attempt, now: float) -> None:
        """The head of an answer that is no failure: it is the client's, or looked at first."""
        if self.rival is not None:
            self._close_loser(self.rival if attempt is self.attempt else self.attempt, now)
            self.attempt, self.rival = attempt, None
        alias = attempt.pool.alias
        answer = attempt.answer
        assert answer is not None
        if alias is None or not alias.peek or not self.may_follow or not answer.is_readable_stream:
            _, self.state = step(self.state, HEAD)
            self._commit(attempt, now)
            return
        _, self.state = step(self.state, DOUBT)
        attempt.is_peeking = True
        self.peek_until = now + PEEK_S
        self.client.wake_by(self.peek_until)

    def _close_loser(self, loser: Attempt | None, now: float) -> None:
        """The slower one of a hedge is closed at once, so that no tokens are generated for nobody."""
        chain = self.chain
        assert loser is not None and chain is not None
        self._leave(loser, now)
        name, took_s = loser.provider.config.name, now - loser.begun_at
        chain.note(name, "hedged", "was slower than another", took_s, loser.redial_s)

    def on_cleared(self, attempt: Attempt, now: float) -> None:
        """The first event of a stream is no error, or was not there in time."""
        _, self.state = step(self.state, CLEARED)
        self._commit(attempt, now)

    def _commit(self, attempt: Attempt, now: float) -> None:
        """From here the answer is this attempt's, whatever happens."""
        self._forget()
        attempt.is_peeking = False
        answer = self.answer = attempt.answer
        assert answer is not None
        # With the request not yet complete (an early answer) neither connection can be used again.
        keep_alive = self.client.keeps_alive() and answer.is_self_delimiting() and self.body.done
        ours = lines_of_answer(self, attempt, answer, now)
        if self.chain is not None and self.chain.doubts and answer.head.status < 400:
            settle_doubts(attempt, self.chain.doubts, now)
        attempt.pending = answer.head_bytes(ours, keep_alive, self.head.minor) + attempt.pending
        self.client.wake_by(now + (attempt.pool.keepalive_s or self.gateway.timeouts.idle_s))

    def on_last(self, attempt: Attempt) -> None:
        """The answer is complete, but its last bytes are not out yet."""
        _, self.state = step(self.state, END)
        self.gateway.endings.hold(attempt)

    def settle(self, attempt: Attempt) -> bytes:
        """Account for a complete answer; returns its line for the ledger."""
        answer, now = attempt.answer, attempt.progress_at
        assert answer is not None
        try:
            if not attempt.is_over:  # what was blamed on the provider costs nothing
                attempt.account(answer, now)
        finally:  # whatever fails, the request is over
            line = close(self, answer.head.status, now, 1)
        return line

    def on_end(self, attempt: Attempt) -> None:
        """The answer is accounted for: its last bytes go out, if the client is still there."""
        client, answer = self.client, attempt.answer
        assert answer is not None
        if client.transport.is_closing():
            return
        if attempt.pending:
            attempt.flush()
        client.on_exchange_done(answer.is_self_delimiting() and self.body.done)

    def on_client_gone(self) -> None:
        """The client left: end what runs, or have it read on where the key or the alias wants that."""
        attempt = self.attempt
        if attempt is None or not is_wanted(self, attempt):
            self.abandon()
            return
        self.client = attempt.client = AbsentClient(self.gateway, self, monotonic())
        self.may_follow = False
        self._forget()
        if self.client_full_at:
            self.on_client_full(False)

    def abandon(self, status: int = CLIENT_LEFT) -> None:
        """Stop whatever runs upstream: the client left, or is being answered ``status`` for its request."""
        action, self.state = step(self.state, LEFT)
        if action == WAIT:
            return
        now = monotonic()
        attempt, rival = self.attempt, self.rival
        if rival is not None:
            self._leave(rival, now)
        if attempt is not None:
            attempt.on_client_left(now)
            attempt.drop()
        if self.answer is not None:
            status = self.answer.head.status
        self.gateway.endings.note(self, status, now, (attempt is not None) + (rival is not None))
        self._forget()

    def _leave(self, attempt: Attempt, now: float) -> None:
        """Close one of two attempts; what it cost until now is charged beside the other's answer."""
        attempt.on_client_left(now)
        attempt.drop()
        self._charge_beside(attempt)

    def _charge_beside(self, attempt: Attempt) -> None:
        usage, cost_nusd = attempt.charge
        if usage is not None:
            self.extras = (*self.extras, Extra(attempt.deployment, usage, cost_nusd))

    def _forget(self) -> None:
        self.body.forget()
        self.unhold()
        if self.hedge_timer is not None:
            self.hedge_timer.cancel()
            self.hedge_timer = None

    def break_off(self, attempt: Attempt, what: str) -> None:
        """The answer can't be completed: tell the client in a way that no one can take for its end."""
        answer = attempt.answer
        assert answer is not None
        name = attempt.provider.config.name
        now = monotonic()
        ending = answer.ending_at(self.endpoint)
        if ending != WHOLE:
            blame(attempt, RESET, what, now)
        attempt.charge_so_far(now, ending == WHOLE)
        _, self.state = step(self.state, BROKEN)
        self.gateway.endings.note(self, answer.head.status, now, 1)
        attempt.drop()
        attempt.flush()
        if answer.is_between_events():
            error = ProviderError(f"The provider '{name}' {what}.", status=502, code="provider_broke_off")
            self.client.send(last_bytes(answer, ending, error, self.endpoint, self.request_id))
            self.client.on_exchange_done(answer.is_self_delimiting() and self.body.done)
        else:
            self.client.cut(answer.is_self_delimiting())

    def on_client_full(self, full: bool) -> None:
        """The client takes no more for now, or takes again: pause or resume the provider."""
        now = monotonic()
        attempt = self.attempt
        if attempt is not None and self.client_full_at:
            attempt.held_s += now - self.client_full_at
        self.client_full_at = now if full else 0.0
        if attempt is not None and attempt.connection is not None:
            attempt.connection.hold_back(full)
            if full:
                self.client.wake_by(now + self.gateway.timeouts.client_write_s)
            else:
                attempt.progress_at = now
