"""The connections of the data plane: the clients of this process, what they wait for, and the tick."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Final

from proxy.access.grants import Grant, KeyTable
from proxy.access.refusals import Refusals, count_for_key, is_counted
from proxy.config.settings import Config
from proxy.deployments.worker_sync import WorkerSync
from proxy.errors import GatewayError, Unauthorized, Unavailable
from proxy.relay.downstream.connection_limits import ConnectionLimits, client_of
from proxy.relay.downstream.load_shed import Overload
from proxy.relay.downstream.own_figures import OwnFigures
from proxy.relay.downstream.resume_queue import ResumeQueue
from proxy.relay.downstream.sliced_jobs import Again, SlicedJobs
from proxy.relay.downstream.wrong_protocol import WrongProtocol
from proxy.relay.exchange.batching import Soon
from proxy.relay.exchange.client import Client
from proxy.relay.exchange.context import Context, Routes
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog
from proxy.storage.ledger_files import Ledger
from proxy.usage.counters import Counted, Sums
from proxy.wire.request_head import RequestHead

if TYPE_CHECKING:
    import asyncio

    from proxy.relay.exchange.request import Request

log = logging.getLogger("tokenhub.server")

_HEX: Final = [b"%02x" % number for number in range(256)]


class Gateway(Context):
    """The state that all client connections of this process share, beside what their exchanges do.

    The parameters are those of :class:`proxy.relay.exchange.context.Context`.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        providers: Mapping[str, Provider],
        rng: random.Random,
        knowledge: WorkerSync | None = None,
        keys: KeyTable | None = None,
        ledger: Ledger | None = None,
        soon: Soon | None = None,
        usual_buffered_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(config, catalog, providers, rng, knowledge, keys, ledger, soon, usual_buffered_bytes)
        self.overload = Overload(config.server.shed_after_s or float("inf"))
        self._shed_before = 0  # requests that were turned away before this overload
        self.longest_turn_s = 0.0  # of the event loop, between the last two ticks
        self.resume_queue = ResumeQueue(self.outbox.turn, soon)
        self.connections_elsewhere = 0  # of clients, at other workers
        self.connection_limits = ConnectionLimits(self.connections)
        self.refusals = Refusals()
        self.sliced_jobs = SlicedJobs()
        self.wrong_protocol = WrongProtocol()
        self.figures: OwnFigures | None = None  # what keys ask about themselves; None: nobody answers
        self.unready = False  # /readyz answers 503
        self._retired: list[Provider] = []  # their last answers may still run

    def adopt(self, config: Config, catalog: Catalog, providers: Mapping[str, Provider]) -> None:
        """From the next request on, go by another configuration. What runs goes on by the one before.

        Providers that are the same objects keep their connections; the others' idle ones are closed.
        """
        kept = set(map(id, providers.values()))
        for provider in self.providers.values():
            if id(provider) not in kept:
                provider.pool.retire()
                self._retired.append(provider)
        self._retired = [provider for provider in self._retired if provider.pool.is_busy()]
        self.heads.forget()  # they hold what was prepared for the providers before
        self.budget.share = config.routing.retry_budget
        self._use(Routes(config, catalog, providers))
        self.overload.limit_s = config.server.shed_after_s or float("inf")
        self.keys = self.keys.again()  # what keys grant is worked out by pools, which are others now
        if self.knowledge is not None:
            self.knowledge.adopt(catalog.deployments)

    def take_keys(self, keys: KeyTable) -> None:
        """From the next request on, go by these keys."""
        self.keys = keys
        self.heads.forget()  # they hold what the table before granted

    def make_ready(self, grant: Grant, catalog: Catalog, again: Again) -> bool:
        """Hold a key's list of models against a catalog. False: ``again`` is called when that is done."""
        return self.sliced_jobs.run(grant, lambda: grant.is_ready(catalog), grant.make_ready(catalog), again)

    def is_ready(self) -> bool:
        """Return whether a request can be served: not draining, and some provider has credentials."""
        return not self.unready and any(p.has_credentials for p in self.providers.values())

    def enter(self, client: Client, transport: asyncio.Transport) -> GatewayError | None:
        """Take a client that has connected, or return why it can't stay."""
        return self.connection_limits.enter(
            client, transport, self.config.server, self.connections_elsewhere, self.draining
        )

    def count_refusal(
        self, error: GatewayError, request: Request | None, head: RequestHead | None,
        transport: asyncio.BaseTransport,
    ) -> GatewayError:  # fmt: skip
        """Count a request that is refused: see :mod:`proxy.access.refusals`.

        :param request: None where it did not come so far; then its ``head`` tells whose it is, if it is read.
        :param transport: of its client.
        :returns: what to answer: ``error``, or a 429 as too many were refused.
        """
        if not is_counted(error) or (request is not None and request.permit is not None):
            return error
        now = time.monotonic()
        grant: Grant | None = None
        if request is not None:
            grant = request.grant
        elif head is not None:
            grant = self._grant_of(head)
        if grant is None or error.status == 401:
            return self.refusals.count(error, client_of(transport.get_extra_info("peername")), now)
        return count_for_key(error, grant.account, now, now + self.unix_offset_s)

    def _grant_of(self, head: RequestHead) -> Grant | None:
        """Look up the grant of the key in a head; None: it has no valid key."""
        try:
            grant = self.keys.grant_of(head.credentials)
            if grant is not None:
                grant.check(time.time())
        except Unauthorized:
            return None
        return grant

    def shed(self) -> None:
        """To be called during an overload, for a request that comes.

        :raises Unavailable: it is turned away.
        """
        if self.overload.turns_away(self.outbox.turn.lasted_s(time.monotonic())):
            self.counters.shed += 1
            text = "More requests come than the gateway can serve; try again in a moment."
            raise Unavailable(text, code="overloaded", retry_after_s=1, close=False)

    def tick(self, now: float) -> None:
        """Called every 100 ms: whatever waits for a point in time is looked at here.

        :param now: monotonic seconds.

        One pass over all connections costs less than a timer per request: 2,000 of them take about 0.1 ms.
        """
        self.unix_offset_s = time.time() - time.monotonic()
        self.ledger.tick(now)
        self._look_at_load(now)
        knowledge = self.knowledge
        if knowledge is not None and knowledge.part is not None:
            knowledge.part.connections = self.connection_limits.count()
            self.connections_elsewhere = knowledge.connections_elsewhere()
        for connection in [c for c in self.connections if c.wake_at <= now]:
            connection.on_wake(now)
        for provider in self.providers.values():
            provider.pool.expire(now)

    def _look_at_load(self, now: float) -> None:
        turn = self.outbox.turn
        longest_s, turn.longest_s = turn.longest_s, 0.0
        self.longest_turn_s = longest_s
        if not self.overload.look(longest_s, now):
            return
        if self.overload.is_on:
            self._shed_before = self.counters.shed
            text = "overloaded: requests wait %d ms; shedding load with 503"
            log.warning(text, longest_s * 1e3)
        else:
            shed = self.counters.shed - self._shed_before
            log.warning("overload is over; %d requests were answered 503", shed)

    def count(self, brief: bool) -> Generator[None, None, Counted]:
        """Collect the counters and gauges of this process, in steps.

        :param brief: over all labels.
        """
        totals: Sums = yield from self.counters.brief() if brief else self.counters.read()
        levels: Sums = {}
        for name, provider in self.providers.items():
            pool = provider.pool.snapshot()
            levels["connections", name] = pool["open"], pool["idle"]
        levels["clients",] = (self.connection_limits.count() - self.detached,)
        levels["unwritten",] = (self.ledger.waiting,)
        return Counted(totals, levels)

    async def close(self) -> None:
        """Close every connection."""
        self.completions.flush()
        if self.figures is not None:
            await self.figures.close()
        for connection in list(self.connections):
            connection.abort()
        for provider in (*self.providers.values(), *self._retired):
            await provider.pool.close()
