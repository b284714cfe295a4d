"""The time limits of an attempt, resolved at load: one object for a pool's member, plain or streamed.

A limit that is set in several places counts as set for the alias, else for the model, else for the provider,
else in ``[timeouts]``: the closer to what the request names, the more is known of what it waits for.

A stream's first byte comes soon, so ``first_byte`` limits it. A plain response comes when all of it is ready,
so where it is generated ``total`` stands in its place, and what ran until then is not asked for anew.
"""

from __future__ import annotations

from typing import Final

from proxy.config.settings import (
    NO_LIMITS,
    AliasConfig,
    ModelConfig,
    ProviderConfig,
    TimeLimits,
    TimeoutsConfig,
)
from proxy.endpoints import CLASSES, FREE

_NAMES: Final = ("connect", "first_byte", "first_token", "idle", "total")
# What a limit's name ends with, for people.
_IN_TIMEOUTS: Final = "[timeouts]"


class Limits:
    """The limits of one attempt, in seconds.

    ``answer_s``: from the end of the request to the head of the response: ``first_byte`` or ``total``;
    ``answer_name``: which of them, and where it is set, for people. ``is_total``: it is ``total``.
    ``take_s``, ``take_name``: the same of a request whose end has not come yet, from when the member stopped
    taking it: always ``first_byte``.
    ``first_token_s``: from the head to the first output; 0: no limit; below 0: three times the member's 99th
    percentile.
    """

    __slots__ = (
        "answer_name", "answer_s", "connect_s", "first_token_s", "idle_s", "is_total", "take_name", "take_s",
    )  # fmt: skip

    def __init__(
        self, connect_s: float, answer_s: float, answer_name: str, is_total: bool, first_token_s: float,
        idle_s: float, take_s: float, take_name: str,
    ) -> None:  # fmt: skip
        self.connect_s = connect_s
        self.answer_s = answer_s
        self.answer_name = answer_name
        self.is_total = is_total
        self.first_token_s = first_token_s
        self.idle_s = idle_s
        self.take_s = take_s
        self.take_name = take_name

    def __repr__(self) -> str:
        return (
            f"<Limits connect={self.connect_s:g} {self.answer_name}={self.answer_s:g} "
            f"first_token={self.first_token_s:g} idle={self.idle_s:g}>"
        )


# Of a plain response, and of a stream.
Pair = tuple[Limits, Limits]


def has_total(endpoint: str, streamed: bool) -> bool:
    """Return whether responses are limited by ``total``: plain ones that are generated or made."""
    return not streamed and CLASSES[endpoint] != FREE


class LimitTable:
    """The limits of a configuration's members. Those that are the same are one object."""

    __slots__ = ("_made", "_timeouts")

    def __init__(self, timeouts: TimeoutsConfig) -> None:
        self._timeouts = timeouts
        self._made: dict[tuple[str, str, str, bool], Limits] = {}

    def usual(self, endpoint: str) -> Pair:
        """Those of an endpoint where nothing but ``[timeouts]`` sets any."""
        return self._pair((), ("", "", ""), endpoint)

    def own(
        self, alias: AliasConfig | None, model: ModelConfig, provider: ProviderConfig, endpoint: str
    ) -> Pair | None:
        """Those of a member; None: as usual."""
        layers: list[tuple[str, TimeLimits]] = []
        key = ["", "", ""]
        if alias is not None and alias.times != NO_LIMITS:
            layers.append((f"of alias '{alias.name}'", alias.times))
            key[0] = alias.name
        if model.times != NO_LIMITS:
            layers.append((f"of model '{model.id}'", model.times))
            key[1] = model.id
        if provider.times != NO_LIMITS:
            layers.append((f"of provider '{provider.name}'", provider.times))
            key[2] = provider.name
        return self._pair(tuple(layers), (key[0], key[1], key[2]), endpoint) if layers else None

    def _pair(
        self, layers: tuple[tuple[str, TimeLimits], ...], key: tuple[str, str, str], endpoint: str
    ) -> Pair:
        return (
            self._limits(layers, key, has_total(endpoint, False)),
            self._limits(layers, key, has_total(endpoint, True)),
        )

    def _limits(
        self, layers: tuple[tuple[str, TimeLimits], ...], key: tuple[str, str, str], is_total: bool
    ) -> Limits:
        made = self._made.get((*key, is_total))
        if made is None:
            timeouts = self._timeouts
            found = {
                "connect": (timeouts.connect_s, ""),
                "first_byte": (timeouts.first_byte_s, _IN_TIMEOUTS),
                "first_token": (timeouts.first_token_s, ""),
                "idle": (timeouts.idle_s, ""),
                "total": (timeouts.total_s, _IN_TIMEOUTS),
            }
            for where, times in reversed(layers):
                given = (
                    times.connect_s,
                    times.first_byte_s,
                    times.first_token_s,
                    times.idle_s,
                    times.total_s,
                )
                for name, seconds in zip(_NAMES, given, strict=True):
                    if seconds is not None:
                        found[name] = seconds, where
            answer = "total" if is_total else "first_byte"
            made = Limits(
                found["connect"][0], found[answer][0], _named(answer, found[answer][1]), is_total,
                found["first_token"][0], found["idle"][0],
                found["first_byte"][0], _named("first_byte", found["first_byte"][1]),
            )  # fmt: skip
            self._made[(*key, is_total)] = made
        return made


def _named(name: str, where: str) -> str:
    return f"{where} {name}" if where == _IN_TIMEOUTS else f"{name} {where}"


_DEFAULT: Final = LimitTable(TimeoutsConfig())


def default_limits(endpoint: str) -> Pair:
    """Those of a file that sets none."""
    return _DEFAULT.usual(endpoint)
