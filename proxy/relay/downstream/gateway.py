"""What the connections of the data plane share: the loaded configuration and what was prepared from it.

Everything that can be known before a request comes is worked out here, when the configuration is loaded: the
head of the request to each deployment, the headers that name it in answers, TLS contexts, time limits.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Final

from proxy.access.cors import cors_of
from proxy.access.grants import Grant, KeyTable
from proxy.access.refusals import Refusals, count_for_key, is_counted
from proxy.config.settings import Config
from proxy.deployments.worker_sync import Knowledge
from proxy.errors import GatewayError, Unauthorized, Unavailable
from proxy.relay.downstream.connection_limits import Door, client_of
from proxy.relay.downstream.head_cache import HeadCache
from proxy.relay.downstream.load_shed import Overload
from proxy.relay.downstream.resume_queue import Rest
from proxy.relay.downstream.sliced_jobs import Stepwise
from proxy.relay.downstream.wrong_protocol import WrongProtocol
from proxy.relay.exchange.batching import Soon
from proxy.relay.exchange.completions import Endings
from proxy.relay.exchange.context import Routes
from proxy.relay.exchange.outbox import Outbox
from proxy.relay.upstream.dropped_names import DroppedNames
from proxy.relay.upstream.dropped_names import count as count_dropped
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog
from proxy.routing.name_hints import HINTS_A_SECOND, HINTS_IN_A_ROW, TokenBucket
from proxy.routing.retry_budget import RetryBudget
from proxy.storage.ledger_files import Ledger
from proxy.usage.counters import Counted, Counters, Sums
from proxy.wire.request_head import RequestHead

if TYPE_CHECKING:
    import asyncio

    from proxy.relay.downstream.connection import ClientConnection
    from proxy.relay.exchange.detached_client import AbsentClient
    from proxy.relay.exchange.request import Request
    from proxy.relay.exchange.tracing import Tracing

log = logging.getLogger("tokenhub.server")

_HEX: Final = [b"%02x" % number for number in range(256)]


class Gateway:
    """The state all client connections of this process share.

    :param providers: by name.
    :param knowledge: what is known together with other workers; None: there are none.
    :param keys: the keys it serves for; None: it serves without any.
    :param ledger: where finished requests are written; None: nowhere.
    :param soon: as of :class:`proxy.relay.exchange.batching.Turn`.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        providers: Mapping[str, Provider],
        rng: random.Random,
        knowledge: Knowledge | None = None,
        keys: KeyTable | None = None,
        ledger: Ledger | None = None,
        soon: Soon | None = None,
    ) -> None:
        self.buffered_bytes = 0  # of large request bodies
        self.longest_turn_s = 0.0  # of the event loop, between the last two ticks
        self._shed_before = 0  # requests that were turned away before this overload
        self.overload = Overload(float("inf"))  # until the configuration says
        self._use(Routes(config, catalog, providers))
        self.keys = KeyTable((), None, is_open=True) if keys is None else keys
        self.heads = HeadCache()
        self.ledger = Ledger(None) if ledger is None else ledger
        self.endings = Endings(self.ledger, soon)
        self.counters = Counters()
        self.dropped_names = DroppedNames()
        self.outbox = Outbox(soon)
        self.rest = Rest(self.outbox.turn, soon)
        self.tracing: Tracing | None = None  # None: traces are off
        # What makes Unix seconds of monotonic ones. The clock of the machine is read at each tick.
        self.unix_offset_s = time.time() - time.monotonic()
        self.rng = rng
        self.knowledge = knowledge
        self.connections_elsewhere = 0  # of clients, at other workers
        if knowledge is not None:
            knowledge.adopt(catalog.deployments)
        self.budget = RetryBudget(config.routing.retry_budget)
        self.connections: set[ClientConnection | AbsentClient] = set()
        self.door = Door(self.connections)
        self.refusals = Refusals()
        self._hints = TokenBucket(HINTS_A_SECOND, HINTS_IN_A_ROW)
        self.stepwise = Stepwise()
        self.wrong_protocol = WrongProtocol()
        self.absent = 0  # of them, clients that have left
        self.unready = False  # /readyz answers 503
        self.draining = False  # nothing new is taken
        self._retired: list[Provider] = []  # their last answers may still run
        self._id_prefix = b"req_" + secrets.token_hex(6).encode()
        self._ids_begin = self._id_prefix + b"000000"  # of the next ids, but for two digits
        self._ids = 1

    def _use(self, routes: Routes) -> None:
        config = routes.config
        self.routes = routes
        self.config = config
        self.timeouts = config.timeouts
        self.max_body_bytes = config.server.max_body_bytes
        self.max_buffered_bytes = config.server.max_buffered_bytes
        self.replay_limit_bytes = config.routing.replay_limit_bytes
        self.max_attempts = config.routing.max_attempts
        self.server_timing = config.server.server_timing
        self.cors = cors_of(config.server.cors_origins)
        self.overload.limit_s = config.server.shed_after_s or float("inf")

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
        self.keys = self.keys.again()  # what keys grant is worked out by pools, which are others now
        if self.knowledge is not None:
            self.knowledge.adopt(catalog.deployments)

    def take_keys(self, keys: KeyTable) -> None:
        """From the next request on, go by these keys."""
        self.keys = keys
        self.heads.forget()  # they hold what the table before granted

    def prepare(self, head: RequestHead, provider: Provider, path: bytes) -> bytes:
        """What a provider gets of a head, up to the framing, for a request that is on its way there.

        To be asked where ``head.prepared`` has none, and where the head loses something, which is counted.
        """
        prepared = head.prepared.get(provider)
        if prepared is None:
            prepared = self.dropped_names.prepare(head, provider, path)
            self.heads.count(head, prepared)
        if head.dropped is not None:
            count_dropped(head, provider, self.counters)
        return prepared

    def lets_pages_call(self, origin: bytes) -> bool:
        """Whether pages of an origin may, as browsers write it."""
        return self.cors is not None and bool(self.cors.lines(origin))

    def make_ready(self, grant: Grant, catalog: Catalog, client: ClientConnection) -> bool:
        """Hold a key's list of models against a catalog. False: ``client`` is told when that is done."""
        return self.stepwise.run(grant, lambda: grant.is_ready(catalog), grant.make_ready(catalog), client)

    @property
    def catalog(self) -> Catalog:
        """The names of the configuration in effect."""
        return self.routes.catalog

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The providers of the configuration in effect, by name."""
        return self.routes.providers

    def next_request_id(self) -> bytes:
        """An id unique over processes and restarts."""
        low = self._ids & 255
        if not low:
            self._ids_begin = b"%b%06x" % (self._id_prefix, self._ids >> 8)
        self._ids += 1
        return self._ids_begin + _HEX[low]

    def is_ready(self) -> bool:
        """Whether a request can be served: not draining, and some provider has credentials."""
        return not self.unready and any(p.has_credentials for p in self.providers.values())

    def hint(self, name: str) -> str | None:
        """The known name that an unknown one was probably meant to be; None where too many are asked for."""
        return self.catalog.nearest(name) if self._hints.take(time.monotonic()) else None

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
        """What the key in a head grants; None: there is none of use."""
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
            knowledge.part.connections = self.door.count()
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
            text = "more requests come than can be served: they wait for %d ms, and some are answered 503"
            log.warning(text, longest_s * 1e3)
        else:
            shed = self.counters.shed - self._shed_before
            log.warning("the overload is over; %d requests were answered 503", shed)

    def count(self, brief: bool) -> Generator[None, None, Counted]:
        """What this process has counted, and what is so now; in steps.

        :param brief: over all labels.
        """
        totals: Sums = yield from self.counters.brief() if brief else self.counters.read()
        levels: Sums = {}
        for name, provider in self.providers.items():
            pool = provider.pool.snapshot()
            levels["connections", name] = pool["open"], pool["idle"]
        levels["clients",] = (self.door.count() - self.absent,)
        levels["unwritten",] = (self.ledger.waiting,)
        return Counted(totals, levels)

    async def close(self) -> None:
        """Close every connection."""
        self.endings.let_go()
        for connection in list(self.connections):
            connection.transport.abort()
        for provider in (*self.providers.values(), *self._retired):
            await provider.pool.close()
