"""The rows: a fault, the way to it, and what is wanted of the gateway.

Ways: ``two`` members, the bad one first; ``alone``, the bad one by its id; ``single``, the bad one as an
alias's only member; ``fallback``, so, and the good one is the alias's fallback.

Some wants are what can be had, and no more. A stream that has begun is never spliced. A member that is alone
and slow is waited for. After ``total`` a plain response is not asked for elsewhere, and by default it is not
hedged. A fallback is no member and not asked beside one: it has to wait for ``first_byte``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover.provider import BROKEN_AT, NEVER_S, TOKENS, Plan

KINDS = (
    "a 429 with a short Retry-After", "a lasting 429", "one 500", "a lasting 503", "a reset", "no answer",
    "a first token after 20 s", "a stream cut at 40 of 60", "a stream that stalls", "a malformed event",
    "no [DONE]", "a prompt that is too long", "a content filter", "a prefilled answer, cut", "flapping",
    "accounting",
)  # fmt: skip
# The first output is wanted within this.
SOON_S = 15.0
# USD per million tokens of the bad and the good member.
PRICES = {"b": (1, 2), "g": (2, 4)}


def once(plan: Plan) -> Callable[[int], Plan]:
    return lambda number: Plan() if number else plan


def always(plan: Plan) -> Callable[[int], Plan]:
    return lambda _: plan


FAULTS: dict[str, Callable[[int], Plan]] = {
    "429-short": once(Plan(429, "rate_limit_exceeded", retry_after="2")),
    "429": always(Plan(429, "rate_limit_exceeded", retry_after="30")),
    "500": once(Plan(500)),
    "503": always(Plan(503)),
    "reset": once(Plan(0)),
    "hang": always(Plan(wait_s=NEVER_S)),
    "mute": always(Plan(silence_s=NEVER_S)),
    "slow": always(Plan(silence_s=20.0)),
    "slow-head": always(Plan(wait_s=20.0)),
    "cut": always(Plan(tokens=BROKEN_AT, end="reset")),
    "cut-in-event": always(Plan(tokens=BROKEN_AT, end="half")),
    "ended": always(Plan(tokens=BROKEN_AT, end="no-finish")),
    "stall": always(Plan(tokens=BROKEN_AT, end="stall")),
    "malformed": always(Plan(is_malformed=True)),
    "no-done": always(Plan(end="no-done")),
    "no-finish": always(Plan(end="no-finish")),
    "too-long": always(Plan(400, "context_length_exceeded")),
    "filter": always(Plan(400, "content_filter")),
    "flapping": lambda number: Plan() if number % 2 else Plan(500),
}


@dataclass(frozen=True, slots=True)
class Row:
    """Up to ``times`` requests, one after another, and what is wanted of each.

    :param word: as in :class:`failover.client.Seen`, with ``|`` between what is as good.
    :param asked: how often the bad and the good member are asked in all: ``2+0``; ``2-3+0`` for a range.
    :param within_s: for all of the response. :param pause_s: at least, between the first two requests at the
        bad member.
    """

    kind: int
    fault: str
    way: str
    how: str
    endpoint: str
    word: str
    asked: str
    within_s: float = SOON_S
    pause_s: float = 0.0
    times: int = 1
    headers: str = ""
    is_prefilled: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.fault}-{self.way}-{self.how}-{self.endpoint}"


def rows(*, tuned: bool) -> list[Row]:
    """All rows. ``tuned``: for the file of an operator who has set limits, see cell.py."""
    made: list[Row] = []

    def add(
        kind: int, fault: str, ways: str, hows: str, word: str, asked: str, at: str = "chat", **more: object
    ) -> None:
        for endpoint in at.split():
            for way in ways.split():
                for how in hows.split():
                    made.append(Row(kind, fault, way, how, endpoint, word, asked, **more))  # type: ignore[arg-type]

    every, told, limited, refused = (
        "chat responses messages",
        f"told b {BROKEN_AT}",
        {},
        "error 429 rate_limit_exceeded",
    )
    first_byte_s, idle_s, slow, slow_asked, slow_s, total_s = 65.0, 125.0, "whole b", "1+0", 25.0, SOON_S
    if tuned:
        first_byte_s, idle_s, slow, slow_asked, slow_s, total_s = 35.0, 35.0, "whole g", "1+1", SOON_S, 35.0
    else:  # stands in for a limit that a plain request has by default after 600 s only
        limited = {"headers": "X-Inferoute-Timeout: 3\r\n"}

    add(1, "429-short", "two", "streamed plain", "whole g", "1+2", times=2)
    add(1, "429-short", "fallback", "streamed plain", "whole g", "1+1")
    add(1, "429-short", "two", "sdk", "whole g", "1+1", every)
    add(1, "429-short", "alone", "plain", "whole b", "2+0", pause_s=1.99)
    add(1, "429-short", "alone", "streamed", "whole b", "2+0", every, pause_s=1.99)
    add(2, "429", "two", "streamed plain", "whole g", "1+4", times=4)
    add(2, "429", "fallback two", "sdk", "whole g", "1+1")
    add(2, "429", "alone", "streamed plain sdk", refused, "1+0")
    # While nobody is left, one request in a minute tries all the same.
    add(2, "429", "single", "streamed plain", refused + "|error 429 providers_cooling_down", "1-2+0", times=3)
    add(3, "500", "two", "streamed sdk", "whole g", "1+1", every)
    add(3, "500", "fallback", "streamed plain", "whole g", "1+1")
    add(3, "500", "two", "plain", "whole g", "1+1")
    add(3, "500", "alone single", "plain", "whole b", "2+0")
    add(3, "500", "alone single", "streamed", "whole b", "2+0", every)
    add(4, "503", "two", "streamed plain", "whole g", "3-6+12", times=12)  # five strikes, and it is ejected
    add(4, "503", "fallback", "streamed plain sdk", "whole g", "1+1")
    add(4, "503", "alone", "streamed plain sdk", "error 503", "2+0")
    add(5, "reset", "two fallback", "streamed plain sdk", "whole g", "1+1")
    add(5, "reset", "alone", "streamed plain", "whole b", "2+0")
    add(6, "hang", "two", "streamed sdk", "whole g", "1+1", every)
    add(6, "hang", "two", "plain", "whole g", "1+1", **limited)
    add(6, "hang", "fallback", "streamed", "whole g", "1+1", within_s=SOON_S if tuned else first_byte_s)
    add(6, "hang", "alone", "streamed", "error 504", "1+0", within_s=first_byte_s)
    add(6, "hang", "alone", "plain", "error 504", "1+0", within_s=total_s, **limited)
    add(6, "mute", "two", "streamed sdk", "whole g", "1+1", every)
    add(
        6,
        "mute",
        "fallback",
        "streamed",
        "whole g" if tuned else "told",
        slow_asked,
        within_s=SOON_S if tuned else idle_s,
    )
    add(6, "mute", "alone", "streamed", "told", "1+0", within_s=idle_s)
    for fault in ("slow", "slow-head"):
        add(7, fault, "two", "streamed sdk", "whole g", "1+1")
        add(7, fault, "two", "plain", slow, slow_asked, within_s=slow_s)
        add(7, fault, "fallback", "streamed", slow, slow_asked, within_s=slow_s)
        add(7, fault, "alone", "streamed plain", "whole b", "1+0", within_s=25.0)
    for fault in ("cut", "ended"):
        add(8, fault, "two alone", "streamed", told, "1+0", every)
        add(8, fault, "fallback", "streamed", told, "1+0")
        add(8, fault, "two", "sdk", told, "1+0", every)
    add(8, "cut-in-event", "two alone", "streamed", f"cut b {BROKEN_AT}", "1+0", every)
    add(8, "cut", "two fallback", "plain", "whole g", "1+1")
    add(8, "cut", "alone", "plain", "cut b", "1+0")
    add(9, "stall", "two alone", "streamed", told, "1+0", every, within_s=idle_s)
    add(9, "stall", "two", "sdk", told, "1+0", every, within_s=idle_s)
    add(9, "stall", "two", "plain", "whole g", "1+1", within_s=SOON_S if tuned else idle_s)
    add(9, "stall", "alone", "plain", "cut b", "1+0", within_s=idle_s)
    add(10, "malformed", "two alone", "streamed", "whole b", "1+0")  # it passes byte for byte
    add(10, "malformed", "two", "sdk", "told b", "1+0")
    add(11, "no-done", "two alone", "streamed sdk", "whole b", "1+0")
    add(11, "no-finish", "two alone", "streamed", f"told b {TOKENS}", "1+0", every)
    add(12, "too-long", "two", "streamed sdk", "whole g", "1+1", every)
    add(12, "too-long", "fallback", "streamed plain", "whole g", "1+1")
    add(12, "too-long", "alone", "streamed plain sdk", "error 400 context_length_exceeded", "1+0")
    add(13, "filter", "two", "streamed sdk", "error 400 content_filter", "1+0", every)
    add(13, "filter", "alone fallback", "streamed plain", "error 400 content_filter", "1+0")
    add(14, "cut", "two alone", "streamed sdk", told, "1+0", "chat messages", is_prefilled=True)
    add(14, "500", "two", "streamed plain", "whole g", "1+1", is_prefilled=True)
    add(
        15, "flapping", "two", "streamed plain", "whole", "2-20+1-20", times=20
    )  # half fail, not more than half
    add(15, "flapping", "alone", "streamed", "whole b", "12+0", times=6)
    # Each line of the ledger is held to its row; these are there for that alone.
    add(16, "500", "two", "streamed plain sdk", "whole", "1-3+1-3", every, times=3)
    add(16, "hang", "two", "streamed", "whole g", "1-2+2", times=2)
    add(16, "cut", "two", "streamed", told, "2+0", times=2)
    return [row for row in made if row.how != "plain" or row.endpoint == "chat"]
