"""How long clients wait at a member that hangs, and how many attempts hedges add in calm weather."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import log
from pathlib import Path
from random import Random

from failover.cell import Gateway, member
from failover.client import Seen, ask, body_of
from failover.provider import NEVER_S, Plan, Provider

# Before a member hangs, its pool has given these responses: ten are what "auto" needs.
WARM = 14
LONGEST_S = 5.0
MOST_EXTRA = 0.03


def usual(rng: Random, median_s: float, deviation: float) -> Callable[[int], Plan]:
    """A member whose first outputs are spread log-normally."""
    return lambda _: Plan(silence_s=rng.lognormvariate(log(median_s), deviation), gap_s=0.0)


class Pool:
    """Requests to two members, ``count`` of them, one each ``every_s``, at a gateway with defaults.

    :param strategy: a member hangs from the start, under this; empty: nothing is wrong with either.
    """

    def __init__(
        self, provider: Provider, folder: Path, workers: int, strategy: str, every_s: float, count: int
    ) -> None:
        self.provider, self.every_s, self.count = provider, every_s, count
        self.strategy, self.name, self.workers = strategy, folder.name, workers
        self.names, self.seen, self.asked = [self.name + "b", self.name + "g"], list[Seen](), [0, 0]
        rng = Random(1)
        for name, median_s in zip(self.names, (0.3, 0.4), strict=True):
            provider.plans[name] = usual(rng, median_s, 0.35 if strategy else 0.5)
        members = "".join(member(provider, name) for name in self.names)
        models = ", ".join(f'"{name}/m"' for name in self.names)
        alias = f'[aliases]\n{self.name} = {{ models = [{models}], strategy = "{strategy or "latency"}" }}\n'
        self.gateway = Gateway(folder, members + alias, workers)

    async def play(self) -> None:
        if self.strategy:
            for number in range(WARM):
                await self._ask(-number - 1)
            # The one that gets the requests.
            hung = max(self.names, key=lambda name: len(self.provider.calls[name]))
            self.provider.plans[hung] = lambda _: Plan(wait_s=NEVER_S)
            self.names.sort(key=lambda name: name != hung)
        before, waiting = [len(self.provider.calls[name]) for name in self.names], []
        for number in range(self.count):
            waiting.append(asyncio.ensure_future(self._ask(number)))
            await asyncio.sleep(self.every_s)
        self.seen = list(await asyncio.gather(*waiting))
        self.asked = [
            len(self.provider.calls[name]) - was for name, was in zip(self.names, before, strict=True)
        ]

    async def _ask(self, number: int) -> Seen:
        return await ask(self.gateway.port, "chat", body_of(self.name, "chat", number))

    def result(self) -> tuple[str, bool]:
        """For people, and whether it is as wanted."""
        whole = sum(one.word.startswith("whole") for one in self.seen)
        longest_s, extra = max(one.first_s for one in self.seen), sum(self.asked) / self.count - 1
        is_well = whole == self.count and (longest_s <= LONGEST_S if self.strategy else extra <= MOST_EXTRA)
        said = f"{self.count:,} requests, {60 / self.every_s:g} a minute, {self.workers} worker(s)"
        if not self.strategy:
            return f"calm weather, {said}: {whole:,} whole, {extra:.2%} more attempts", is_well
        over = sum(one.first_s > LONGEST_S for one in self.seen)
        waits = (
            f"longest wait {longest_s:.1f} s, {over} over {LONGEST_S:g} s, asked there {self.asked[0]} times"
        )
        return f"one hangs, {self.strategy}, {said}: {whole:,} whole, {waits}", is_well
