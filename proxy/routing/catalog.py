"""Names to deployments: what a request's ``model`` may mean, worked out once and looked up ever after.

Lookup order: exact id, alias, ``auto``, short name; case-sensitive. A response is kept per (name, endpoint,
strategy); only names that exist are kept, so the table is as finite as the configuration. A reload builds a
new catalog and hands the old one's rows on, so that nothing learned is lost and requests that run on the old
one still count in the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import Final

from proxy.config.fallbacks import all_fallbacks
from proxy.config.settings import ENDPOINTS, ONE_MODEL_ENDPOINTS, SERVED_WITH, STRATEGIES, Config
from proxy.deployments.breaker import Breaker
from proxy.deployments.deployment import Deployment, key_breaker
from proxy.errors import BadRequest, NotAllowed, UnknownModel
from proxy.routing.fail_on import FailOn
from proxy.routing.name_hints import NearNames
from proxy.routing.pool import Pool
from proxy.routing.request_options import unknown_strategy
from proxy.routing.time_limits import LimitTable

AUTO: Final = "auto"
SPLIT: Final = "split"  # the strategy of an alias with shares, where a request asks for no other
# An error repeats no more of a name that comes from outside.
_MAX_TOLD_CHARS: Final = 200

Members = tuple[Deployment, ...]
# Those of the members of a name that may be used; it raises where none may.
Narrow = Callable[[str, Members], Members]
# Pools by name, endpoint and strategy in effect.
Pools = dict[tuple[str, str, str], Pool]


class Catalog:
    """All names of a configuration.

    :param usable: provider name -> has credentials; one that is missing has none.
    :param created: Unix seconds for ``created`` in ``/v1/models``.
    :param previous: the catalog this one replaces; rows of deployments that still exist live on.
    :param same_keys: providers whose key is the same as in ``previous``: a refused one stays refused.
    :param in_steps: it is whole only once all of ``steps`` are taken.
    :raises ValueError: a model or alias names something unknown (``config.parse`` refuses such a file
        before).
    """

    def __init__(
        self,
        config: Config,
        usable: Mapping[str, bool],
        created: int,
        previous: Catalog | None = None,
        same_keys: Collection[str] = (),
        *,
        in_steps: bool = False,
    ) -> None:
        self._routing = config.routing
        self.created = created
        self.deployments: dict[str, Deployment] = {}
        self._by_short: dict[str, Members] = {}
        self.keys: dict[str, Breaker] = {name: key_breaker(config.routing.eject) for name in config.providers}
        if previous is not None:
            self.keys |= {name: previous.keys[name] for name in same_keys}
        self._fail_on = FailOn(config.routing.fail_on)
        self._alias_configs = dict(config.aliases)
        self._aliases: dict[str, tuple[Deployment, ...]] = {}
        self._found: dict[tuple[str | None, str, str | None], Pool] = {}
        self._pools: Pools = {}
        self._limits = LimitTable(config.timeouts)
        self._defaults: dict[str, str] = dict(config.routing.default_models)  # by endpoint
        self.steps = self._fill(config, usable, previous)
        if not in_steps:
            for _ in self.steps:
                pass

    def _fill(
        self, config: Config, usable: Mapping[str, bool], previous: Catalog | None
    ) -> Generator[None, None, None]:
        for model in config.models.values():
            provider = config.providers.get(model.provider)
            if provider is None:
                raise ValueError(f"model '{model.id}' names the unknown provider '{model.provider}'")
            deployment = Deployment(
                model,
                provider,
                usable=usable.get(provider.name, False),
                half_life_s=config.routing.half_life_s,
                eject=config.routing.eject,
                can_fail_over=config.routing.failover,
                key=self.keys[provider.name],
            )
            old = previous.deployments.get(model.id) if previous is not None else None
            if old is not None:
                deployment.adopt(old)
            self.deployments[model.id] = deployment
            self._by_short[deployment.short] = (*self._by_short.get(deployment.short, ()), deployment)
            yield
        for name in config.aliases:
            self._aliases[name] = self._expand(name, ())
            yield
        for endpoint in ONE_MODEL_ENDPOINTS:
            only = None if endpoint in self._defaults else self._only_model(endpoint)
            if only is not None:
                self._defaults[endpoint] = only
            yield
        ids = {short: [member.id for member in members] for short, members in self._by_short.items()}
        self._near = NearNames([*self._by_short, *self._aliases], ids, in_steps=True)
        yield from self._near.steps

    def parts(self) -> list[object]:
        """All that takes a moment to be let go of, in parts."""
        return [*self.deployments.values(), *self._pools.values(), self._near]

    def resolve(self, name: str | None, endpoint: str, strategy: str | None) -> Pool:
        """The pool a request may go to.

        :param name: the request's ``model``; None if it has none.
        :param endpoint: as in :data:`proxy.config.settings.ENDPOINTS`, or ``count_tokens``.
        :param strategy: of ``X-Inferoute-Strategy``; None without that header.
        :raises BadRequest: no name and no strategy, an unknown strategy, an endpoint the name doesn't serve,
            or different models at an endpoint of one.
        :raises UnknownModel: no such name.
        """
        pool = self._found.get((name, endpoint, strategy))
        if pool is None:
            pool = self._resolve_new(name, endpoint, strategy, self._pools, None)
            self._found[name, endpoint, strategy] = pool
        return pool

    def resolve_among(
        self, name: str | None, endpoint: str, strategy: str | None, narrow: Narrow, pools: Pools
    ) -> Pool:
        """Resolve a name for a key that may use some models only. A name that it may not use is refused
        as such, before anything is said of what stands behind it.

        :param narrow: raises :class:`proxy.errors.NotAllowed`.
        :param pools: those that were made for the key until now.
        """
        return self._resolve_new(name, endpoint, strategy, pools, narrow)

    def listed(self) -> list[str]:
        """The names that ``/v1/models`` lists: every id, then every alias."""
        return [*self.deployments, *self._aliases]

    def members(self, name: str) -> Members:
        """The models behind an id, an alias or a short name; none: there is no such name."""
        deployment = self.deployments.get(name)
        if deployment is not None:
            return (deployment,)
        return self._aliases.get(name) or self._by_short.get(name) or ()

    def names(self) -> list[str]:
        """All names that requests may use, ``auto`` included."""
        return [*self.deployments, *self._aliases, *self._by_short, AUTO]

    def nearest(self, name: str) -> str | None:
        """The known name that an unknown one was probably meant to be; None if none is close."""
        return self._near.nearest(name)

    def _resolve_new(
        self, name: str | None, endpoint: str, strategy: str | None, pools: Pools, narrow: Narrow | None
    ) -> Pool:
        if strategy is not None and strategy not in STRATEGIES:
            raise BadRequest(
                unknown_strategy(strategy), code="invalid_strategy", param="X-Inferoute-Strategy"
            )
        is_named = name is not None
        if name is None:
            name = self._unnamed(endpoint, strategy)
        kind, members = self._lookup(name)
        try:
            allowed = members if narrow is None else narrow(name, members)
        except NotAllowed:
            if is_named or name == AUTO:
                raise
            # Not by its name, which the request did not say.
            text = "The request names no model, and this API key may not use the default model."
            raise NotAllowed(f"{text} Put a `model` in the body: GET /v1/models lists them.") from None
        if kind == "pinned":
            strategy = "pinned"
        elif strategy is None:
            alias = self._alias_configs[name] if kind == "alias" else None
            if alias is not None and alias.split:
                strategy = SPLIT
            else:
                strategy = (alias and alias.strategy) or self._routing.strategy
        # One pool per strategy in effect, however it was asked for: the turns of round-robin live in it.
        pool = pools.get((name, endpoint, strategy))
        if pool is None:
            pool = self._build(name, kind, members, allowed, endpoint=endpoint, strategy=strategy)
            pools[name, endpoint, strategy] = pool
        return pool

    def default_model(self, endpoint: str) -> str | None:
        """The name that stands for none at an endpoint; None: requests there have to name one."""
        return self._defaults.get(endpoint) or self._defaults.get(SERVED_WITH.get(endpoint, endpoint))

    def _unnamed(self, endpoint: str, strategy: str | None) -> str:
        """The name that a request without one is taken to mean.

        :raises BadRequest: no name stands for it.
        """
        mixes = endpoint not in ONE_MODEL_ENDPOINTS
        if strategy is not None and mixes:
            return AUTO  # that is what such a request asks for
        default = self.default_model(endpoint)
        if default is not None:
            return default
        if not any(member.can_serve(endpoint) for member in self.deployments.values()):
            raise BadRequest(f"No model here serves {endpoint}.", code="unsupported_endpoint", param="model")
        text = "The request names no model. Put a `model` in the body: GET /v1/models lists them."
        if mixes:
            text = (
                "The request names no model. Put a `model` in the body, or send the header "
                "X-Inferoute-Strategy to let the gateway pick one."
            )
        raise BadRequest(text, code="model_required", param="model")

    def _only_model(self, endpoint: str) -> str | None:
        """The name of the model that alone serves an endpoint, at whichever providers."""
        serving = [member for member in self.deployments.values() if member.can_serve(endpoint)]
        if len(serving) == 1:
            return serving[0].id
        shorts = {member.short for member in serving}
        name = shorts.pop() if len(shorts) == 1 else None
        return name if name is not None and self.means(name) == "short" else None

    def means(self, name: str) -> str | None:
        """Return the kind of a name: ``pinned``, ``alias``, ``auto``, ``short``; None: unknown."""
        if name in self.deployments:
            return "pinned"
        if name in self._aliases:
            return "alias"
        if name == AUTO:
            return "auto"
        return "short" if name in self._by_short else None

    def _lookup(self, name: str) -> tuple[str, Members]:
        kind = self.means(name)
        if kind is None:
            raise UnknownModel(name[:_MAX_TOLD_CHARS], None)  # the caller decides on a hint: it takes time
        if kind == "auto":
            return kind, tuple(self.deployments.values())
        return kind, self._aliases[name] if kind == "alias" else self._find(name)

    def _build(
        self, name: str, kind: str, members: Members, allowed: Members, *, endpoint: str, strategy: str
    ) -> Pool:
        """Filter the members of a name for an endpoint; see :meth:`resolve` for what is refused.

        :param allowed: those of the members that may be used; nothing is said of the others.
        """
        serving, left_out = _split(allowed, lambda m: m.can_serve(endpoint), f"doesn't serve {endpoint}")
        if not serving:
            message = _unsupported(name, kind, allowed, endpoint)
            raise BadRequest(message, code="unsupported_endpoint", param="model")
        # `auto` is refused even where one model is all there is: a second one in the configuration, or in a
        # key's list, must not turn requests that worked into errors, or vectors of one model into another's.
        if endpoint in ONE_MODEL_ENDPOINTS and (
            kind == "auto" or len({m.short for m in members if m.can_serve(endpoint)}) > 1
        ):
            raise BadRequest(
                f"'{name}' may stand for different models, and {endpoint} of different models don't mix. "
                f"Name one model: {', '.join(dict.fromkeys(member.short for member in serving))}.",
                code="mixed_models",
                param="model",
            )
        if kind != "pinned":
            usable = [member for member in serving if member.usable]
            if usable:
                left_out += [(member, member.why_unusable) for member in serving if not member.usable]
                serving = usable
        alias = self._alias_configs[name] if kind == "alias" else None
        shares = [(model, weight, self._find(model)) for model, weight in alias.split] if alias else []
        keepalive_s = self._routing.keepalive_s
        if alias is not None and alias.keepalive_s is not None:
            keepalive_s = alias.keepalive_s
        peek, hedge, fail_on = self._routing.peek, self._routing.hedge, self._fail_on
        if alias is not None:
            hedge = hedge if alias.hedge is None else alias.hedge
            peek = peek if alias.peek is None else alias.peek
            fail_on = fail_on if alias.fail_on is None else FailOn(alias.fail_on)
        deadline_s = self._routing.deadline_s
        if alias is not None and alias.deadline_s is not None:
            deadline_s = alias.deadline_s
        own = {m: self._limits.own(alias, m.model, m.provider, endpoint) for m in serving}
        return Pool(
            name,
            kind,
            endpoint,
            serving,
            strategy,
            keepalive_s=keepalive_s,
            deadline_s=deadline_s,
            usual_limits=self._limits.usual(endpoint),
            own_limits={member: pair for member, pair in own.items() if pair is not None},
            alias=alias,
            fallback_names=all_fallbacks(name, self._alias_configs) if alias else (),
            left_out=left_out,
            shares=shares,
            can_fail_over=self._routing.failover,
            inner=(alias and alias.strategy) or self._routing.strategy,
            peek=peek,
            hedge=hedge,
            fail_on=fail_on,
        )

    def _expand(self, alias: str, inside: tuple[str, ...]) -> Members:
        """The members of an alias in their order, each once; those of the aliases it names in their place."""
        config = self._alias_configs[alias]
        members: dict[str, Deployment] = {}
        names = [*config.models, *(share for share, _ in config.split)]
        for name in names:
            is_alias = name not in self.deployments and name in self._alias_configs
            if is_alias and name != alias and name not in inside:
                found = self._expand(name, (*inside, alias))
            else:
                # A short name also where an alias shadows it and lists it: it means the models then.
                found = self._find(name)
            if not found:
                raise ValueError(f"alias '{alias}' names the unknown model '{name}'")
            members.update((member.id, member) for member in found)
        return tuple(members.values())

    def _find(self, name: str) -> Members:
        """The deployments of an id or a short name; none if it is neither."""
        if name in self.deployments:
            return (self.deployments[name],)
        return self._by_short.get(name, ())


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
        return f"No model that this request may use serves {endpoint}."
    listed = ", ".join(known for known in ENDPOINTS if known in served) or "nothing"
    return f"The model '{name}' can't be used for {endpoint} here; it serves: {listed}."
