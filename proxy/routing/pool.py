"""A pool: the deployments one request may go to, and what the choice among them needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from proxy.config.settings import AliasConfig
from proxy.deployments.deployment import Deployment
from proxy.endpoints import ONE_PROMPT, WRITING
from proxy.routing.fail_on import USUAL, FailOn
from proxy.routing.time_limits import Limits, Pair, default_limits
from proxy.usage.counters import CountedPrefix
from proxy.usage.media_tokens import PICTURE_TOKENS
from proxy.usage.pricing import Prices

_NEVER: Final = float("-inf")
_FOREVER: Final = float("inf")
# Where the configuration says nothing of a model's answers: a usual limit.
_UNKNOWN_OUTPUT: Final = 16_384
# Speech is as long as its text: proxy.access.admission.
_UNBOUNDED: Final = 1_000_000


class Pool:
    """The deployments one request may go to, with what the choice needs of them.

    ``members``: those that serve the endpoint and have credentials; all that serve it, if none has any.
    ``left_out``: the other ones, each with the reason.
    ``needs_vision_check``, ``needs_tools_check``: members differ in the capability. Where no member has it,
    skipping would leave no member, so the provider may answer.
    ``min_context``: the smallest window in tokens; None: none is to be checked.
    ``turns``: of round-robin, changed by the strategy only.
    ``shares``: of a split: (name, weight, members behind the name), best known by index.
    ``inner``: of a split: the strategy among the members behind one name.
    ``near``: the best members by latency, for plain responses and for streams, as worked out at ``near_at``.
    ``dearest``: the highest input and output price of a member, in pico-USD a token, with what any request
    may cause (cached tokens, reasoning).
    ``dearest_parts``: those of cache writes, and of sound in and out; None where no member has such prices.
    ``most_output``: the most tokens that a member writes in one response, by the configuration; at images
    those of one picture, 0 where nothing is written.
    ``most_by_max_tokens``: the same of members that don't know chat's newer word for it; 0: all know it.
    ``widest``: the largest prompt that a member takes.
    ``prefixes``: by member, the prefix of its ledger lines and their counters.
    ``peek``: a stream is held until it shows output, where another attempt could follow.
    ``hedge``: when a second member is asked beside a silent one: ``auto``, ``p95``, seconds; "": never. For
    plain requests (``hedges_plain``) only where an alias says so itself.
    ``fail_on``: what of its members' responses is a failure.
    ``deadline_s``: seconds for all attempts of a request together; infinite: no limit.
    ``usual_limits``: the time limits of its members, but for those in ``own_limits``.
    ``fallback_names``: tried after the members, for requests that name this pool first; ``behind``: their
    pools, by the strategy that a request asks for (:mod:`proxy.routing.fallbacks`).
    ``can_fail_over``: an attempt at one member may be followed by one at another.
    """

    __slots__ = (
        "alias",
        "behind",
        "can_fail_over",
        "deadline_s",
        "dearest",
        "dearest_parts",
        "endpoint",
        "fail_on",
        "fallback_names",
        "hedge",
        "hedges_plain",
        "indices",
        "inner",
        "keepalive_s",
        "kind",
        "left_out",
        "members",
        "min_context",
        "most_by_max_tokens",
        "most_output",
        "name",
        "near",
        "near_at",
        "needs_tools_check",
        "needs_vision_check",
        "own_limits",
        "peek",
        "plain_rows",
        "prefixes",
        "shares",
        "strategy",
        "streamed_rows",
        "turns",
        "usual_limits",
        "widest",
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
        deadline_s: float = 0.0,
        usual_limits: Pair | None = None,
        own_limits: Mapping[Deployment, Pair] | None = None,
        alias: AliasConfig | None = None,
        fallback_names: tuple[str, ...] = (),
        left_out: Iterable[tuple[Deployment, str]] = (),
        shares: Iterable[tuple[str, int, Iterable[Deployment]]] = (),
        can_fail_over: bool = True,
        inner: str = "latency",
        peek: bool = True,
        hedge: str | float = "",
        fail_on: FailOn = USUAL,
    ) -> None:
        self.name = name
        self.kind = kind
        self.endpoint = endpoint
        self.members = tuple(members)
        self.strategy = strategy
        self.keepalive_s = keepalive_s
        self.deadline_s = deadline_s or _FOREVER
        self.usual_limits = usual_limits or default_limits(endpoint)
        self.own_limits = dict(own_limits or {})
        self.alias = alias
        self.peek = peek
        self.hedge: str | float = "" if hedge == "off" else hedge
        self.hedges_plain = alias is not None and alias.hedge is not None
        self.fail_on = fail_on
        self.fallback_names = fallback_names
        self.behind: dict[str | None, list[Pool]] = {}
        self.left_out = tuple(left_out)
        self.needs_vision_check = self._differ_in("vision")
        self.needs_tools_check = self._differ_in("tools")
        windows = [
            member.model.context_window for member in self.members if member.model.context_window is not None
        ]
        self.min_context = min(windows) if windows and endpoint in ONE_PROMPT else None
        self.indices = tuple(range(len(self.members)))
        self.streamed_rows = tuple(member.row(endpoint, True) for member in self.members)
        self.plain_rows = tuple(member.row(endpoint, False) for member in self.members)
        self.turns = [0] * len(self.members)
        self.near: list[Sequence[int]] = [(), ()]
        self.near_at = [_NEVER, _NEVER]
        self.inner = inner
        self.dearest, self.dearest_parts = _dearest([member.prices for member in self.members])
        self.most_output = max((_most_output(member, endpoint) for member in self.members), default=0)
        unheeding = [each for each in self.members if each.provider.output_limit_word == "max_tokens"]
        self.most_by_max_tokens = max((_most_output(member, endpoint) for member in unheeding), default=0)
        widths = [member.model.context_window or _UNKNOWN_OUTPUT for member in self.members]
        self.widest = max(widths, default=0)
        self.prefixes: dict[tuple[Deployment, bool], CountedPrefix] = {}
        self.can_fail_over = can_fail_over and len(self.members) > 1
        at = {member: index for index, member in enumerate(self.members)}
        self.shares = tuple(
            (share_name, weight, tuple(at[member] for member in behind if member in at))
            for share_name, weight, behind in shares
        )

    def limits(self, member: Deployment, streamed: bool) -> Limits:
        """The time limits of an attempt at a member."""
        plain, stream = self.own_limits.get(member, self.usual_limits)
        return stream if streamed else plain

    def _differ_in(self, capability: str) -> bool:
        return len({capability in member.capabilities for member in self.members}) > 1

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.kind} {self.strategy} {[member.id for member in self.members]}>"


def _dearest(prices: Sequence[Prices]) -> tuple[tuple[int, int], tuple[int, int, int] | None]:
    """Return ``dearest`` and ``dearest_parts`` of a :class:`Pool`."""
    given = output = written = heard = spoken = 0
    has_parts = False
    for input_pusd, cached_pusd, output_pusd, parts in prices:
        given = max(given, input_pusd or 0, cached_pusd or 0)
        output = max(output, output_pusd or 0)
        if parts is not None:
            has_parts = True
            output = max(output, parts.reasoning_pusd or 0)
            written = max(written, parts.cache_write_pusd or 0)
            heard = max(heard, parts.audio_input_pusd or 0)
            spoken = max(spoken, parts.audio_output_pusd or 0)
    if not has_parts:
        return (given, output), None
    return (given, output), (max(given, written), max(given, heard), max(output, spoken))


def _most_output(member: Deployment, endpoint: str) -> int:
    said = member.model.max_output_tokens
    if endpoint in WRITING:
        return said or member.model.context_window or _UNKNOWN_OUTPUT
    if endpoint == "images":
        return said or PICTURE_TOKENS
    return said or _UNBOUNDED if endpoint == "speech" else 0
