"""TokenHub's own strategies as a policy of the simulation. No logic of its own: it only translates events."""

from __future__ import annotations

from random import Random

from proxy.config.parse import parse
from proxy.config.settings import STRATEGIES
from proxy.deployments.deployment import Deployment
from proxy.deployments.escape import escape_s
from proxy.deployments.record import CONNECT, TIMEOUT, Record
from proxy.routing.catalog import Catalog
from proxy.routing.strategy import Facts, choose
from proxy.usage.tokens import Usage
from routing.engine import Attempt, Request
from routing.trace import Trace
from routing.world import Spent, World

# Of a stream of chat: an event a token.
_BYTES_PER_TOKEN = 180.0


def _toml(trace: Trace, prices: list[tuple[float, float, float]]) -> str:
    """The configuration a gateway in front of these members would have: defaults, but for the strategy."""
    lines = []
    for member, (given, cached, output) in zip(trace.members, prices, strict=True):
        lines += [
            f'[providers."{member.name}"]',
            'base_url = "http://127.0.0.1:9/v1"',
            'auth = "none"',
            f'[models."{member.name}/model"]',
            f"input_price = {given:.6f}",
            f"cached_input_price = {cached:.6f}",
            f"output_price = {output:.6f}",
            'capabilities = ["chat"]',
        ]
    names = ", ".join(f'"{member.name}/model"' for member in trace.members)
    strategy = trace.strategy if trace.strategy in STRATEGIES else "latency"
    lines += ["[aliases]", f'pool = {{ models = [{names}], strategy = "{strategy}" }}']
    return "\n".join(lines)


class Ours:
    """A replica: its own catalog, so its own tables, breakers and cool-downs."""

    name = "tokenhub"
    sees_output = True  # the relay holds a stream until its first output

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        self._trace = trace
        self._rng = Random(f"{self.name}/{trace.seed}/{replica}")
        self._catalog: Catalog | None = None
        self.repriced(world.list_prices(), 0.0)

    def repriced(self, prices: list[tuple[float, float, float]], now: float) -> None:
        """A reload: a new catalog that takes the old one's rows over."""
        usable = {member.name: True for member in self._trace.members}
        config = parse(_toml(self._trace, prices))
        self._catalog = Catalog(config, usable, created=0, previous=self._catalog)
        self._pool = self._catalog.resolve("pool", "chat", None)
        by_id = {deployment.id: deployment for deployment in self._pool.members}
        self._members: list[Deployment] = [by_id[f"{member.name}/model"] for member in self._trace.members]

    def pick(self, request: Request, now: float) -> int | None:
        facts = Facts("chat", True, request.body_bytes, False, False, 0, now)
        tried = tuple(self._members[index] for index in request.tried)
        chosen = choose(self._pool, facts, self._rng, tried)
        return None if chosen is None else self._members.index(chosen)

    def begun(self, attempt: Attempt, now: float) -> None:
        size = attempt.request.body_bytes
        attempt.handle = Record(self._members[attempt.member], "chat", True, now, prompt_bytes=size)

    def first_byte(self, attempt: Attempt, now: float) -> None:
        attempt.handle.first_byte(now)

    def finished(self, attempt: Attempt, spent: Spent, now: float) -> None:
        record: Record = attempt.handle
        record.finished(now)
        usage = Usage(spent.input_tokens, spent.cached_tokens, 0, spent.output_tokens, 0, False)
        stream_s = now - record.first_byte_at
        size = int(_BYTES_PER_TOKEN * spent.output_tokens)
        record.row.charged(now, attempt.request.body_bytes, usage, spent.usd, stream_s, passed_bytes=size)

    def failed(self, attempt: Attempt, kind: str, retry_after_s: float | None, now: float) -> None:
        # Each request of a trace is another one, as those of real traffic are: its number is its mark.
        mark = 0 if kind in (CONNECT, TIMEOUT) else (attempt.request.number + 1) << 26 | 1
        attempt.handle.failed(now, "error" if kind == "empty" else kind, self._rng, retry_after_s, mark=mark)

    def left(self, attempt: Attempt, now: float) -> None:
        attempt.handle.left(now)

    def progressed(self, attempt: Attempt, tokens: float, now: float) -> None:
        attempt.handle.progressed(now, int(_BYTES_PER_TOKEN * tokens))

    def hedge_s(self, attempt: Attempt, now: float) -> float | None:
        return escape_s(attempt.handle.row, attempt.request.body_bytes, self._pool.streamed_rows)
