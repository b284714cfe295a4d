"""Names to deployments: what a request's ``model`` may mean, worked out once and looked up ever after.

Lookup order: exact id, alias, ``auto``, short name; case-sensitive. An answer is kept per (name, endpoint,
strategy); only names that exist are kept, so the table is as finite as the configuration. A reload builds a
new catalog and hands the old one's rows on, so that nothing learned is lost and requests that run on the old
one still count in the same rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from proxy.config import ENDPOINTS, STRATEGIES, AliasConfig, Config, ModelConfig, ProviderConfig
from proxy.errors import BadRequest, UnknownModel
from proxy.listing import group_row, model_row
from proxy.meters import Row
from proxy.usage import prices_of

AUTO = "auto"
# Their output only makes sense for one model: vectors, scores, voices of two don't mix (SPEC section 1).
ONE_MODEL_ENDPOINTS = frozenset({"embeddings", "rerank", "moderations", "speech", "images"})
# Only here is the body one prompt, to be held against a context window; a batch of embeddings is many.
_PROMPT_ENDPOINTS = frozenset({"chat", "completions", "responses", "messages", "count_tokens"})
# count_tokens is served where messages is, but has rows of its own: it is quick and writes nothing.
_SERVED_WITH = {"count_tokens": "messages"}
# Which capability serves an endpoint besides the one of its own name.
_ALSO_SERVED_BY = {"completions": "chat", "responses": "chat", "messages": "chat"}
# difflib is quadratic, and the name comes from outside: a longer one is no typing slip.
_MAX_HINT_CHARS = 100


class Deployment:
    """A model at a provider. What a request is finally sent to.

    :param usable: its provider has credentials. Change it through :meth:`Catalog.set_usable`.
    :param half_life_s: pace of its rows, in seconds.
    """

    __slots__ = (
        "_half_life_s",
        "_rows",
        "capabilities",
        "context_window",
        "endpoints",
        "id",
        "model",
        "prices",
        "provider",
        "short",
        "upstream_literal",
        "usable",
        "weight",
    )

    def __init__(
        self, model: ModelConfig, provider: ProviderConfig, *, usable: bool, half_life_s: float = 30.0
    ) -> None:
        self.id = model.id
        self.short = _short_name(model)
        self.model = model
        self.provider = provider
        self.upstream_literal: bytes = orjson.dumps(model.upstream)
        self.prices = prices_of(model)
        self.context_window = model.context_window
        self.capabilities = model.capabilities
        self.endpoints = frozenset(
            endpoint
            for endpoint in provider.endpoints
            if endpoint in model.capabilities or _ALSO_SERVED_BY.get(endpoint) in model.capabilities
        )
        self.weight = model.weight
        self.usable = usable
        self._half_life_s = half_life_s
        self._rows: dict[tuple[str, bool], Row] = {}

    def row(self, endpoint: str, streamed: bool) -> Row:
        """The live row of an endpoint, made at its first use and kept."""
        row = self._rows.get((endpoint, streamed))
        if row is None:
            row = self._rows[endpoint, streamed] = Row(self._half_life_s)
        return row

    def rows(self) -> dict[tuple[str, bool], Row]:
        """The rows that exist, by (endpoint, streamed): for tables of people."""
        return dict(self._rows)

    def can_serve(self, endpoint: str) -> bool:
        """Whether requests of this endpoint may go here (credentials aside)."""
        return _SERVED_WITH.get(endpoint, endpoint) in self.endpoints

    def adopt_rows(self, old: Deployment) -> None:
        """Take over the rows of the same deployment in the catalog before, if it still is the same."""
        if _address(old) != _address(self):
            return
        # The same dict: a request that still runs on the old object may make a row yet.
        self._rows = old._rows
        for row in self._rows.values():
            row.retune(self._half_life_s)

    def __repr__(self) -> str:
        return f"<Deployment {self.id}{'' if self.usable else ' without credentials'}>"


class Pool:
    """The deployments one request may go to, and what the choice among them needs to know.

    ``members`` serve the endpoint and have credentials (all that serve it, if none has); ``left_out`` holds
    the others with the reason. ``one_model``: all members are the same model. ``needs_*_check``: members
    differ in it; where none has it, skipping would leave nobody, so the provider may answer. ``min_context``:
    the smallest window in tokens, None where none is to be checked. ``turns``: round-robin state, changed by
    the strategy only.
    """

    __slots__ = (
        "alias",
        "endpoint",
        "indices",
        "keepalive_s",
        "kind",
        "left_out",
        "members",
        "min_context",
        "name",
        "needs_tools_check",
        "needs_vision_check",
        "one_model",
        "plain_rows",
        "strategy",
        "streamed_rows",
        "turns",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        endpoint: str,
        members: Sequence[Deployment],
        strategy: str,
        *,
        keepalive_s: float = 0.0,
        alias: AliasConfig | None = None,
        left_out: Iterable[tuple[Deployment, str]] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.endpoint = endpoint
        self.members = tuple(members)
        self.strategy = strategy
        self.keepalive_s = keepalive_s
        self.alias = alias
        self.left_out = tuple(left_out)
        self.one_model = len({member.short for member in self.members}) == 1
        self.needs_vision_check = self._differ_in("vision")
        self.needs_tools_check = self._differ_in("tools")
        windows = [member.context_window for member in self.members if member.context_window is not None]
        self.min_context = min(windows) if windows and endpoint in _PROMPT_ENDPOINTS else None
        self.indices = tuple(range(len(self.members)))
        self.streamed_rows = tuple(member.row(endpoint, True) for member in self.members)
        self.plain_rows = tuple(member.row(endpoint, False) for member in self.members)
        self.turns = [0] * len(self.members)

    def _differ_in(self, capability: str) -> bool:
        return len({capability in member.capabilities for member in self.members}) > 1

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.kind} {self.strategy} {[member.id for member in self.members]}>"


class Catalog:
    """All names of a configuration.

    :param usable: provider name -> has credentials; one that is missing has none.
    :param created: Unix seconds for ``created`` in ``/v1/models``.
    :param previous: the catalog this one replaces; rows of deployments that still exist live on.
    :raises ValueError: a model or alias names something unknown (``config.parse`` refuses such a file
        before).
    """

    def __init__(
        self, config: Config, usable: Mapping[str, bool], created: int, previous: Catalog | None = None
    ) -> None:
        self._routing = config.routing
        self._created = created
        self.deployments: dict[str, Deployment] = {}
        self._by_short: dict[str, tuple[Deployment, ...]] = {}
        for model in config.models.values():
            provider = config.providers.get(model.provider)
            if provider is None:
                raise ValueError(f"model '{model.id}' names the unknown provider '{model.provider}'")
            deployment = Deployment(
                model,
                provider,
                usable=usable.get(provider.name, False),
                half_life_s=config.routing.half_life_s,
            )
            old = previous.deployments.get(model.id) if previous is not None else None
            if old is not None:
                deployment.adopt_rows(old)
            self.deployments[model.id] = deployment
            self._by_short[deployment.short] = (*self._by_short.get(deployment.short, ()), deployment)
        self._alias_configs = dict(config.aliases)
        self._aliases = {name: self._expand(name, ()) for name in config.aliases}
        self._found: dict[tuple[str | None, str, str | None], Pool] = {}
        self._pools: dict[tuple[str, str, str], Pool] = {}

    def resolve(self, name: str | None, endpoint: str, strategy: str | None) -> Pool:
        """The pool a request may go to.

        :param name: the request's ``model``; None if it has none.
        :param endpoint: as in :data:`proxy.config.ENDPOINTS`, or ``count_tokens``.
        :param strategy: of ``X-Inferoute-Strategy``; None without that header.
        :raises BadRequest: no name and no strategy, an unknown strategy, an endpoint the name doesn't serve,
            or different models at an endpoint of one.
        :raises UnknownModel: no such name.
        """
        pool = self._found.get((name, endpoint, strategy))
        if pool is None:
            pool = self._resolve_new(name, endpoint, strategy)
            self._found[name, endpoint, strategy] = pool
        return pool

    def set_usable(self, provider: str, has_credentials: bool) -> None:
        """A provider's credentials came or went. The pools are worked out anew."""
        for deployment in self.deployments.values():
            if deployment.provider.name == provider:
                deployment.usable = has_credentials
        self._found.clear()
        self._pools.clear()

    def models(self) -> list[dict[str, Any]]:
        """The rows of ``/v1/models``: every id, then every alias.

        Short names are not listed: each would repeat a model that is listed already, and a picker built from
        the list would show it twice. They can be retrieved one by one, since they can be sent.
        """
        rows = [model_row(deployment, self._created) for deployment in self.deployments.values()]
        rows += [group_row(name, members, self._created) for name, members in self._aliases.items()]
        return rows

    def model(self, id: str) -> dict[str, Any] | None:
        """The row of one id, alias or short name; None if there is no such name."""
        if id in self.deployments:
            return model_row(self.deployments[id], self._created)
        members = self._aliases.get(id) or self._by_short.get(id)
        return group_row(id, members, self._created) if members else None

    def nearest(self, name: str) -> str | None:
        """The known name that an unknown one was probably meant to be; None if none is close."""
        if len(name) > _MAX_HINT_CHARS:
            return None
        names = [*self.deployments, *self._aliases, *self._by_short]
        lower = name.lower()
        for known in names:
            if known.lower() == lower:
                return known
        close = difflib.get_close_matches(name, names, 1)
        return close[0] if close else None

    def _resolve_new(self, name: str | None, endpoint: str, strategy: str | None) -> Pool:
        if strategy is not None and strategy not in STRATEGIES:
            raise BadRequest(
                f"X-Inferoute-Strategy must be one of {', '.join(STRATEGIES)}, not '{strategy[:40]}'.",
                code="invalid_strategy",
                param="X-Inferoute-Strategy",
            )
        if name is None and strategy is None:
            raise BadRequest(
                "The request names no model. Put a `model` in the body, or send the header "
                "X-Inferoute-Strategy to let the gateway pick one.",
                code="model_required",
                param="model",
            )
        name = AUTO if name is None else name
        kind, members = self._lookup(name)
        if kind == "pinned":
            strategy = "pinned"
        elif strategy is None:
            own = self._alias_configs[name].strategy if kind == "alias" else None
            strategy = own or self._routing.strategy
        # One pool per strategy in effect, however it was asked for: the turns of round-robin live in it.
        pool = self._pools.get((name, endpoint, strategy))
        if pool is None:
            pool = self._build(name, kind, members, endpoint=endpoint, strategy=strategy)
            self._pools[name, endpoint, strategy] = pool
        return pool

    def _lookup(self, name: str) -> tuple[str, tuple[Deployment, ...]]:
        if name in self.deployments:
            return "pinned", (self.deployments[name],)
        if name in self._aliases:
            return "alias", self._aliases[name]
        if name == AUTO:
            return "auto", tuple(self.deployments.values())
        if name in self._by_short:
            return "short", self._by_short[name]
        raise UnknownModel(name[: 2 * _MAX_HINT_CHARS], self.nearest(name))

    def _build(
        self, name: str, kind: str, members: tuple[Deployment, ...], *, endpoint: str, strategy: str
    ) -> Pool:
        """Filter the members of a name for an endpoint; see :meth:`resolve` for what is refused."""
        serving, left_out = _split(members, lambda m: m.can_serve(endpoint), f"doesn't serve {endpoint}")
        if not serving:
            message = _unsupported(name, kind, members, endpoint)
            raise BadRequest(message, code="unsupported_endpoint", param="model")
        # `auto` is refused even where one model is all there is: a second one in the configuration must not
        # turn requests that worked into errors, or vectors of one model into those of another.
        if endpoint in ONE_MODEL_ENDPOINTS and (kind == "auto" or len({m.short for m in serving}) > 1):
            raise BadRequest(
                f"'{name}' may stand for different models, and {endpoint} of different models don't mix. "
                f"Name one model: {', '.join(dict.fromkeys(member.short for member in serving))}.",
                code="mixed_models",
                param="model",
            )
        if kind != "pinned":
            usable, without = _split(serving, lambda m: m.usable, "has no credentials")
            if usable:
                serving, left_out = usable, left_out + without
        alias = self._alias_configs[name] if kind == "alias" else None
        keepalive_s = self._routing.keepalive_s
        if alias is not None and alias.keepalive_s is not None:
            keepalive_s = alias.keepalive_s
        return Pool(
            name, kind, endpoint, serving, strategy, keepalive_s=keepalive_s, alias=alias, left_out=left_out
        )

    def _expand(self, alias: str, inside: tuple[str, ...]) -> tuple[Deployment, ...]:
        """The members of an alias in their order, each once; those of the aliases it names in their place."""
        config = self._alias_configs[alias]
        members: dict[str, Deployment] = {}
        for name in config.models or tuple(name for name, _ in config.split):
            if name in self.deployments:
                found: tuple[Deployment, ...] = (self.deployments[name],)
            elif name in self._alias_configs and name != alias and name not in inside:
                found = self._expand(name, (*inside, alias))
            elif name in self._by_short:
                # Also where an alias shadows a short name and lists it: it means the models then.
                found = self._by_short[name]
            else:
                raise ValueError(f"alias '{alias}' names the unknown model '{name}'")
            members.update((member.id, member) for member in found)
        return tuple(members.values())


def _short_name(model: ModelConfig) -> str:
    """The id's part after the provider: two deployments with the same one are the same model."""
    return model.id.removeprefix(model.provider + "/")


def _address(deployment: Deployment) -> tuple[str, str, int, str, str]:
    """What must stay the same for old measurements to hold."""
    provider = deployment.provider
    return provider.scheme, provider.host, provider.port, provider.base_path, deployment.model.upstream


def _split(
    members: Iterable[Deployment], keep: Callable[[Deployment], bool], reason: str
) -> tuple[list[Deployment], list[tuple[Deployment, str]]]:
    kept: list[Deployment] = []
    left_out: list[tuple[Deployment, str]] = []
    for member in members:
        if keep(member):
            kept.append(member)
        else:
            left_out.append((member, reason))
    return kept, left_out


def _unsupported(name: str, kind: str, members: Iterable[Deployment], endpoint: str) -> str:
    served = {served for member in members for served in member.endpoints}
    if kind == "auto":
        return f"No configured model serves {endpoint}."
    listed = ", ".join(known for known in ENDPOINTS if known in served) or "nothing"
    return f"The model '{name}' can't be used for {endpoint} here; it serves: {listed}."
