"""The state of one exchange, which timers, hedging and the end of a request look at and change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from proxy.deployments.deployment import Deployment
from proxy.errors import AttemptFailed
from proxy.relay.exchange.attempt import Attempt, AttemptOwner
from proxy.relay.exchange.charge import Extra
from proxy.relay.exchange.client import Client
from proxy.relay.exchange.request import Request
from proxy.relay.exchange.states import HOLDING
from proxy.routing.failover import Failover
from proxy.routing.pool import Pool
from proxy.wire.response import Response

NEVER: Final = float("inf")


class ExchangeState(AttemptOwner):
    """The state of one exchange. All times are monotonic seconds.

    What it does about it is in :mod:`proxy.relay.exchange.exchange`, which has its only subclass: the modules
    between need the state, and stand below.
    """

    __slots__ = (
        "attempt", "chain", "hedge_at", "hedge_charges", "hedge_timer", "hedged_attempt", "kept_alive_at",
        "response", "state",
    )  # fmt: skip

    def __init__(self, request: Request, client: Client) -> None:
        super().__init__(request, client)
        self.state = HOLDING
        self.attempt: Attempt | None = None  # under way, or the last one
        self.hedged_attempt: Attempt | None = None  # the first of a hedge, while both run
        self.chain: Failover | None = None
        self.hedge_charges: Sequence[Extra] = ()  # charges beside the response's
        self.response: Response | None = None  # what the client gets, from the commit point on
        self.hedge_at = NEVER  # when a second member is to be asked of its own accord
        self.hedge_timer: asyncio.TimerHandle | None = None
        self.kept_alive_at = 0.0

    def try_at(
        self, deployment: Deployment, pool: Pool, now: float, hedged_attempt: Attempt | None = None
    ) -> None:
        """Start an attempt, beside its ``hedged_attempt`` if there is one.

        :raises GatewayError: this request can't go to this provider.
        """
        raise NotImplementedError

    def resume(self, now: float) -> None:
        """The pause is over: ask the member that failed once more."""
        raise NotImplementedError

    def leave(self, attempt: Attempt, failure: AttemptFailed, now: float) -> bool:
        """Go on to another member, which counts as a failure of this one; False: nobody is left to ask."""
        raise NotImplementedError

    def begin_chain(self, pool: Pool, first: Deployment | None) -> Failover:
        """From here the attempts are counted: there may be more than one."""
        raise NotImplementedError

    def on_client_gone(self) -> None:
        """The client left: end what runs, or have it read on where the key or the alias wants that."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Stop whatever runs upstream: nobody waits for it."""
        raise NotImplementedError

    def was_sent(self) -> bool:
        """Return whether a provider was asked, so that there is something to account for."""
        return self.attempt is not None or (self.chain is not None and bool(self.chain.failures))

    def may_cost_more(self, attempt: Attempt, now: float) -> bool:
        """Reserve room within the key's limits for another attempt beside one that is charged, or is about to
        be. Returns whether there is any."""
        is_free = attempt.record.is_over and attempt.charge[0] is None
        return is_free or self.request.may_cost_more(attempt.pool, now)
