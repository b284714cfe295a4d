"""The context that exchanges share; and one configuration as requests see it."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from proxy.access.cors import cors_of
from proxy.access.grants import KeyTable
from proxy.access.model_list import ModelList
from proxy.access.tagging import Tagging, tagging_of
from proxy.config.settings import Config, UsageConfig
from proxy.deployments.deployment import Deployment
from proxy.deployments.worker_sync import WorkerSync
from proxy.relay.exchange.batching import Soon
from proxy.relay.exchange.client import Client
from proxy.relay.exchange.completions import Completions
from proxy.relay.exchange.head_cache import HeadCache
from proxy.relay.exchange.outbox import WriteBatch
from proxy.relay.upstream.dropped_names import DroppedNames
from proxy.relay.upstream.dropped_names import count as count_dropped
from proxy.relay.upstream.known_head import KnownHead
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog
from proxy.routing.name_hints import HINTS_A_SECOND, HINTS_IN_A_ROW, TokenBucket
from proxy.routing.pool import Pool
from proxy.routing.retry_budget import RetryBudget
from proxy.storage.ledger_files import Ledger
from proxy.usage.counters import Counters

if TYPE_CHECKING:
    from proxy.relay.exchange.tracing import Tracing

_HEX: Final = [b"%02x" % number for number in range(256)]


class Routes:
    """The routes of one configuration: where requests can go. A request keeps to the one it began with.

    :param providers: by name.
    """

    __slots__ = ("_names", "catalog", "config", "models", "providers")

    def __init__(self, config: Config, catalog: Catalog, providers: Mapping[str, Provider]) -> None:
        self.config = config
        self.catalog = catalog
        self.models = ModelList(catalog)
        self.providers = providers
        self._names: dict[tuple[str, str], bytes] = {}

    def response_names(self, deployment: Deployment, pool: Pool) -> bytes:
        """The header lines that say who served a response, up to where the story of its attempts begins."""
        names = self._names.get((deployment.id, pool.strategy))
        if names is None:
            provider = deployment.provider.name
            lines = [
                f"X-Inferoute-Provider: {provider}",
                f"X-Inferoute-Model: {deployment.id}",
                f"X-Inferoute-Strategy: {pool.strategy}",
                "X-Inferoute-Attempts: ",
            ]
            if self.providers[provider].simulated:
                lines.insert(0, "X-Inferoute-Simulated: 1")
            names = self._names[deployment.id, pool.strategy] = "\r\n".join(lines).encode()
        return names


class Context:
    """Shared by the exchanges of this process.

    Everything that can be known before a request comes is worked out when the configuration is loaded: the
    head of the request to each deployment, the headers that name it in responses, time limits.

    :param providers: by name.
    :param knowledge: what is shared with other workers; None: there are none.
    :param keys: the keys it serves for; None: it serves without any.
    :param ledger: where finished requests are written; None: nowhere.
    :param soon: as in :class:`proxy.relay.exchange.batching.LoopTurn`.
    :param usual_buffered_bytes: the limit of what is held, of all workers, where the configuration has none.
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
        self.usual_buffered_bytes = usual_buffered_bytes
        self.buffered_bytes = 0  # of bodies and responses that are held, here
        self.buffered_elsewhere = 0  # and at the other workers
        self.counters = Counters()
        self.tagging: Tagging | None = None  # None: requests have no tags
        self._usage = UsageConfig()
        self._use(Routes(config, catalog, providers))
        self.keys = KeyTable((), None, is_open=True) if keys is None else keys
        self.heads = HeadCache()
        self.ledger = Ledger(None) if ledger is None else ledger
        self.completions = Completions(self.ledger, soon)
        self.dropped_names = DroppedNames()
        self.outbox = WriteBatch(soon)
        self.tracing: Tracing | None = None  # None: traces are off
        # What makes Unix seconds of monotonic ones. The clock of the machine is read at each tick.
        self.unix_offset_s = time.time() - time.monotonic()
        self.rng = rng
        self.knowledge = knowledge
        if knowledge is not None:
            knowledge.adopt(catalog.deployments)
        self.budget = RetryBudget(config.routing.retry_budget)
        self.connections: set[Client] = set()
        self.detached = 0  # of them, clients that have left
        self.draining = False  # nothing new is taken
        self._hints = TokenBucket(HINTS_A_SECOND, HINTS_IN_A_ROW)
        self._id_prefix = b"req_" + secrets.token_hex(6).encode()
        self._ids_begin = self._id_prefix + b"000000"  # of the next ids, but for two digits
        self._ids = 1

    def _use(self, routes: Routes) -> None:
        config = routes.config
        self.routes = routes
        self.config = config
        self.timeouts = config.timeouts
        self.max_body_bytes = config.server.max_body_bytes
        self.max_buffered_bytes = config.server.max_buffered_bytes or self.usual_buffered_bytes
        self.replay_limit_bytes = config.routing.replay_limit_bytes
        self.max_attempts = config.routing.max_attempts
        self.retry_same = config.routing.retry_same if config.routing.failover else 0
        self.server_timing = config.server.server_timing
        self.cors = cors_of(config.server.cors_origins)
        if config.usage != self._usage:  # else the values that were seen go on to be bounded
            self._usage, self.tagging = config.usage, tagging_of(config.usage, self.counters)

    def prepare(self, head: KnownHead, provider: Provider, path: bytes) -> bytes:
        """Make the head for a provider, up to the framing, for a request that is on its way there.

        To be asked where ``head.prepared`` has none, and where the head loses something, which is counted.
        """
        prepared = head.prepared.get(provider)
        if prepared is None:
            prepared = self.dropped_names.prepare(head, provider, path)
            self.heads.count(head, prepared)
        if head.dropped is not None:
            count_dropped(head, provider, self.counters)
        return prepared

    def is_full(self) -> bool:
        """Return whether more is held, at all workers, than may be."""
        return self.buffered_bytes + self.buffered_elsewhere > self.max_buffered_bytes

    def lets_pages_call(self, origin: bytes) -> bool:
        """Return whether pages of an origin, as browsers write it, may send requests."""
        return self.cors is not None and bool(self.cors.lines(origin))

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

    def hint(self, name: str) -> str | None:
        """The known name that an unknown one was probably meant to be; None where too many are asked for."""
        return self.catalog.nearest(name) if self._hints.take(time.monotonic()) else None
