"""The members of a pool that can take a request: capable, large enough and healthy.

The checks go in this order, because their mistakes differ: a request with images at a model without vision
fails for certain, one at a member that is ejected may well succeed.

1. It was not tried yet for this request, and has credentials.
2. It takes images and tools, where the request has them and the members differ in it.
3. Its context window holds the prompt; where none does, the largest is left.
4. Its breaker is closed. A member whose ejection is over gets the next request as its trial. Where no member
   is closed, one of those that let others go first is picked; else the one due back first is tried (fail
   open), unless all of them are cooling down: then now and then one request tries.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.deployments.breaker import CLOSED, COOLING, DUE, EASING, OUT, TRIAL
from proxy.deployments.deployment import Deployment
from proxy.deployments.row import Row
from proxy.endpoints import ONE_PROMPT
from proxy.routing.pool import Pool


def candidates(pool: Pool, facts: Facts, tried: Sequence[Deployment] = ()) -> Sequence[int]:
    """Return the indices of the members that can take the request; empty if no member is left.

    Nearly always there is nothing to check but credentials and health. A token is at least a byte, so that a
    body smaller than every window needs no estimate.

    :param tried: where the request has been already.
    """
    min_context = pool.min_context
    if (
        not tried
        and (min_context is None or facts.body_bytes - facts.data_url_bytes <= min_context)
        and not (facts.images and pool.needs_vision_check)
        and not (facts.tools and pool.needs_tools_check)
    ):
        for member in pool.members:
            if (
                not member.usable
                or member.breaker.is_open
                or member.key.is_open
                or member.window.narrowed_until > 0.0
            ):
                break
        else:
            return pool.indices
    members = pool.members
    usable = [index for index in pool.indices if members[index].usable and members[index] not in tried]
    if not usable:
        return () if tried else (0,)  # no member has a key: the one that is asked says so
    # Where no usable member has the capability, the provider may say so: it knows better than our file.
    able = [index for index in usable if _lacking(pool, index, facts) is None] or usable
    fitting = [index for index in able if not _is_too_small(pool, index, facts)]
    if not fitting:
        fitting = [max(able, key=lambda index: members[index].window.tokens(facts.now) or 0)]
    return _healthy(pool, fitting, facts.now, is_first=not tried)


def _healthy(pool: Pool, fitting: list[int], now: float, *, is_first: bool) -> Sequence[int]:
    members = pool.members
    closed, easing, due, rest, probes = [], [], [], [], []
    for index in fitting:
        state = members[index].state(now)
        if state == CLOSED:
            closed.append(index)
        elif state == DUE:
            due.append(index)
        elif state == EASING:
            easing.append(index)
        elif state != COOLING:
            rest.append(index)
        elif members[index].breaker.may_probe(now):
            probes.append(index)
    free = closed or easing
    # A request that has failed once already is not the one to try a member with, unless nothing else is left.
    if due and (is_first or not free):
        return (min(due, key=lambda index: members[index].free_at(now)),)
    if free or not (rest or probes):
        return free
    return (min(rest or probes, key=lambda index: members[index].free_at(now)),)


def are_cooling(pool: Pool, now: float) -> bool:
    """Return whether every member that could be asked is cooling down."""
    states = [member.state(now) for member in pool.members if member.usable]
    return bool(states) and all(state == COOLING for state in states)


def is_out(pool: Pool, now: float) -> bool:
    """Return whether a pinned name stands for a member that is ejected or cools down, so that it is passed
    over where another name follows. A provider that gets the client's own credentials never is."""
    if pool.kind != "pinned":
        return False
    member = pool.members[0]
    if not (member.breaker.is_open or member.key.is_open) or member.passes_credentials:
        return False
    return member.state(now) in (OUT, TRIAL, COOLING)


def cooling_left_s(pool: Pool, now: float) -> float:
    """Return the seconds until the first of the members that cool down may be asked again."""
    cooling = [member for member in pool.members if member.state(now) == COOLING]
    return min((member.free_at(now) - now for member in cooling), default=0.0)


def why_not(pool: Pool, index: int, facts: Facts, is_one_due: bool) -> str:
    """Return the reason why a member is not a candidate, for people, in the order of the checks.

    :param is_one_due: as :func:`is_one_due` says of the pool.
    """
    member = pool.members[index]
    if not member.usable:
        return member.why_unusable
    if lacking := _lacking(pool, index, facts):
        return lacking
    if _is_too_small(pool, index, facts):
        window, tokens = member.window.tokens(facts.now), _prompt_tokens(pool, index, facts)
        return f"context window of {window} tokens, the prompt has about {tokens:.0f}"
    health = member.health(facts.now)
    if health["state"] == "ok":
        return "another is on trial" if is_one_due else "another is the last resort"
    text = str(health["state"])
    if health["ejected_until_s"]:
        text += f" for {health['ejected_until_s']:.1f} s"
    return f"{text}: {health['reason']}" if health["reason"] else text


def is_one_due(pool: Pool, now: float) -> bool:
    """Return whether a member waits for its trial."""
    return any(member.usable and member.state(now) == DUE for member in pool.members)


def rows(pool: Pool, facts: Facts) -> tuple[Row, ...]:
    """The members' rows for requests of this kind."""
    return pool.streamed_rows if facts.streamed else pool.plain_rows


def _lacking(pool: Pool, index: int, facts: Facts) -> str | None:
    capabilities = pool.members[index].capabilities
    if facts.images and pool.needs_vision_check and "vision" not in capabilities:
        return "takes no images"
    if facts.tools and pool.needs_tools_check and "tools" not in capabilities:
        return "takes no tools"
    return None


def _is_too_small(pool: Pool, index: int, facts: Facts) -> bool:
    if pool.endpoint not in ONE_PROMPT:
        return False
    window = pool.members[index].window.tokens(facts.now)
    return window is not None and _prompt_tokens(pool, index, facts) > window


def _prompt_tokens(pool: Pool, index: int, facts: Facts) -> float:
    text_bytes = facts.body_bytes - facts.data_url_bytes
    return text_bytes * rows(pool, facts)[index].tokens_per_byte(facts.now)


class Facts:
    """Facts of a request that the choice depends on.

    ``body_bytes`` is the size of the body, ``data_url_bytes`` that of the base64 data URLs in it (they are no
    text); ``images`` and ``tools`` say what the model must be able to take. ``now``: monotonic seconds.
    ``caller``: what a sticky split goes by, if anything.
    """

    __slots__ = ("body_bytes", "caller", "data_url_bytes", "endpoint", "images", "now", "streamed", "tools")

    def __init__(
        self, endpoint: str, streamed: bool, body_bytes: int, images: bool, tools: bool,
        data_url_bytes: int = 0, now: float = 0.0, caller: bytes = b"",
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.streamed = streamed
        self.body_bytes = body_bytes
        self.images = images
        self.tools = tools
        self.data_url_bytes = data_url_bytes
        self.now = now
        self.caller = caller
