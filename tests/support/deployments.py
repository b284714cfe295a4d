"""What the tests of routing share: deployments, pools of them, the facts of a request, fates of attempts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from proxy.config.settings import EjectConfig, ModelConfig, ProviderConfig
from proxy.deployments.breaker import Breaker
from proxy.deployments.deployment import Deployment
from proxy.deployments.record import TIMEOUT, Record
from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool
from proxy.routing.strategy import choose
from proxy.usage.pricing import price_nusd
from proxy.usage.tokens import Usage

NOW = 100.0
EJECT = EjectConfig()


def deployment(
    name: str,
    *capabilities: str,
    short: str = "m",
    usable: bool = True,
    auth: str = "bearer",
    eject: EjectConfig = EJECT,
    key: Breaker | None = None,
    can_fail_over: bool = True,
    limit_word: str = "max_tokens",
    **facts: Any,
) -> Deployment:
    """The model ``short`` at the provider ``name``."""
    provider = ProviderConfig(
        name, f"http://{name}/v1", "http", name, 80, "/v1", auth=auth, output_limit_word=limit_word
    )
    capability_set = frozenset({"chat", *capabilities})
    model = ModelConfig(f"{name}/{short}", name, short, capabilities=capability_set, **facts)
    return Deployment(model, provider, usable=usable, eject=eject, key=key, can_fail_over=can_fail_over)


def pool_of(
    strategy: str, *members: Deployment, kind: str = "alias", endpoint: str = "chat", **more: Any
) -> Pool:
    return Pool(more.pop("name", "p"), kind, endpoint, members, strategy, **more)


def facts(**changes: Any) -> Facts:
    usual = {"endpoint": "chat", "streamed": True, "body_bytes": 4000, "images": False, "tools": False}
    return Facts(**{**usual, "now": NOW, **changes})


def attempt(member: Deployment, now: float = NOW, streamed: bool = True) -> Record:
    return Record(member, "chat", streamed, now)


def succeed(member: Deployment, seconds: float = 0.1, now: float = NOW, *, streamed: bool = True) -> None:
    """An attempt that is answered, and over, at ``now``."""
    record = attempt(member, now - seconds, streamed)
    record.first_byte(now)
    record.finished(now)


def fail(
    member: Deployment, outcome: str = "500", now: float = NOW, rng: Random | None = None, **more: Any
) -> str | None:
    """An attempt that fails at once; with a 4xx but 408 and 429 it is refused."""
    more.setdefault("is_refusal", outcome[0] == "4" and outcome not in ("408", "429"))
    return attempt(member, now).failed(now, outcome, rng or Random(1), **more)


def eject(member: Deployment, now: float = NOW) -> float:
    """Five failures in a row; returns when the ejection ends."""
    for _ in range(member.breaker.limit):
        fail(member, now=now)
    assert member.breaker.is_open
    return member.breaker.until_s


def ids(members: Any) -> list[str]:
    return [member.id for member in members]


def picks(pool: Pool, request: Facts, times: int = 400, seed: int = 1) -> Counter[str]:
    """Where so many of the same request go, by provider, if none is sent."""
    rng = Random(seed)
    found = (choose(pool, request, rng) for _ in range(times))
    return Counter(member.provider.name for member in found if member is not None)


class World:
    """Providers with true first-byte times, failures and lengths, and a clock that only this moves."""

    def __init__(self, strategy: str, seed: int, *members: Deployment) -> None:
        self.pool = pool_of(strategy, *(members or map(deployment, "abc")))
        self.rng = Random(seed)
        self.now = 0.0
        self.first_byte_s: Callable[[str, float], float] = lambda name, now: 0.5
        self.fails: Callable[[str, float], bool] = lambda name, now: False
        self.hangs: Callable[[str, float], bool] = lambda name, now: False
        self.output_tokens: dict[str, int] = {}
        self.spent_nusd = 0

    def run(self, seconds: float, per_second: float) -> Counter[str]:
        """Poisson arrivals for so long, counted by provider; the answers to all are in before it returns."""
        counts: Counter[str] = Counter()
        end = self.now + seconds
        pending: list[tuple[float, int, Record, str]] = []
        arrival = self.now + self.rng.expovariate(per_second)
        while arrival < end or pending:
            if pending and (arrival >= end or pending[0][0] <= arrival):
                at, _, record, outcome = heapq.heappop(pending)
                self._ended(record, at, outcome)
                self.now = max(self.now, at)
                continue
            self.now = arrival
            member = choose(self.pool, facts(now=arrival), self.rng)
            assert member is not None
            name = member.provider.name
            counts[name] += 1
            outcome, took = "", self.first_byte_s(name, arrival) * self.rng.lognormvariate(0.0, 0.4)
            if self.hangs(name, arrival):
                outcome, took = TIMEOUT, 60.0
            elif self.fails(name, arrival):
                outcome, took = "500", 0.02
            heapq.heappush(pending, (arrival + took, counts.total(), attempt(member, arrival), outcome))
            arrival += self.rng.expovariate(per_second)
        return counts

    def _ended(self, record: Record, at: float, outcome: str) -> None:
        if outcome:
            record.failed(at, outcome, self.rng)
            return
        record.first_byte(at)
        record.finished(at)
        usage = Usage(1000, 0, 0, self.output_tokens.get(record.deployment.provider.name, 200))
        cost_nusd = price_nusd(usage, record.deployment.prices)
        self.spent_nusd += cost_nusd or 0
        record.row.charged(at, 4000, usage, None)
