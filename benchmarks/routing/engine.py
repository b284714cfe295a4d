"""The simulated clock: requests arrive, a policy picks, members answer or fail, failed requests go on.

The failover loop is the same for all policies: at most ``MAX_ATTEMPTS``, each at another member. A request's
time is from its arrival to the first byte of a good answer, failed attempts included. One that no attempt
answered is a failed request; its time counts as what it took, or one time-out where that is more, so that
failing quickly is no way to be fast. Where whole answers count, the time is to the last byte. A policy may
ask a second member beside one that is silent, within the retry budget; the first output wins.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

from proxy.routing.retry_budget import RetryBudget
from routing.trace import MAX_ATTEMPTS, MUTE_S, TIMEOUT_S, Trace
from routing.world import Spent, World

_FIRST_BYTE, _END, _FAIL, _HEDGE, _PROGRESS = range(5)
# Hedges per request, as the gateway's own default.
_BUDGET = 0.2
# A running stream is looked at so often, where its pace counts.
_PROGRESS_S = 1.0
# Until so many answers have come nobody can know how long one takes: waits at hung members are no measure.
_KNOWN_AFTER = 10


class Request:
    """One client's request. ``tried``: the members that have it or had it; ``running``: those that may
    still answer."""

    __slots__ = (
        "arrived_s", "body_bytes", "hung_since_s", "is_hedged", "number", "replica", "running", "tried"
    )  # fmt: skip

    def __init__(self, number: int, replica: int, arrived_s: float, body_bytes: int) -> None:
        self.number = number
        self.replica = replica
        self.arrived_s = arrived_s
        self.body_bytes = body_bytes
        self.tried: tuple[int, ...] = ()
        self.running: list[Attempt] = []
        self.is_hedged = False
        self.hung_since_s = -1.0  # it has asked a member that hangs, and nobody since; below 0: no


class Attempt:
    """A request at a member. ``handle`` is the policy's own: whatever it needs to find its books again."""

    __slots__ = (
        "begun_s", "fault", "handle", "is_over", "is_queued", "is_running", "member", "request"
    )  # fmt: skip

    def __init__(self, request: Request, member: int, begun_s: float) -> None:
        self.request = request
        self.member = member
        self.begun_s = begun_s
        self.fault: str | None = None
        self.handle: Any = None
        self.is_queued = False  # it waits in the member's queue
        self.is_running = False  # it has a slot, where the member has slots
        self.is_over = False  # answered or failed: a time-out that was set for it is void


class Policy(Protocol):
    """One replica's routing. It is told of its own attempts only, each event at its time.

    ``pick`` gets the members tried already in ``request.tried`` and answers None if there is none to ask.
    An attempt that began ends with ``failed``, with ``left`` (another one was faster), or with ``first_byte``
    and then ``finished`` or ``failed``. ``sees_output``: an answer without output is a failure to it, which
    another member may heal; else it is a success like any other.
    """

    sees_output: bool

    def pick(self, request: Request, now: float) -> int | None: ...

    def begun(self, attempt: Attempt, now: float) -> None: ...

    def first_byte(self, attempt: Attempt, now: float) -> None: ...

    def finished(self, attempt: Attempt, spent: Spent, now: float) -> None: ...

    def failed(self, attempt: Attempt, kind: str, retry_after_s: float | None, now: float) -> None:
        """``kind``: "500", "429", "timeout", "empty" (a 200 without output) or "reset" (it broke off)."""

    def left(self, attempt: Attempt, now: float) -> None: ...

    def progressed(self, attempt: Attempt, tokens: float, now: float) -> None:
        """So many tokens have come until now; told once a second where whole answers count."""

    def hedge_s(self, attempt: Attempt, now: float) -> float | None:
        """Seconds without output after which a second member is to be asked; None: never."""

    def repriced(self, prices: list[tuple[float, float, float]], now: float) -> None:
        """List prices changed; see ``World.list_prices``."""


# (trace, world, replica) -> policy; the world is for the oracle alone.
Factory = Callable[[Trace, World, int], Policy]


class Run:
    """What became of each request, by number."""

    def __init__(self, trace: Trace) -> None:
        count = len(trace.arrivals_s)
        self.trace = trace
        self.first = array("b", bytes(count))  # first pick; -1: none
        self.best = array("b", bytes(count))  # what the oracle would have picked at that moment
        self.time_s = array("d", bytes(8 * count))
        self.usd = array("d", bytes(8 * count))
        self.attempts = array("b", bytes(count))
        self.is_failed = bytearray(count)
        self.asked_watched = bytearray(count)  # any attempt at the watched member
        self.hung_s = 0.0  # the longest that a request was left with a member that hangs


class Engine:
    """One policy on one trace; call :meth:`run` once."""

    def __init__(self, trace: Trace, factory: Factory) -> None:
        self._trace = trace
        self._world = World(trace)
        self._policies = [factory(trace, self._world, replica) for replica in range(trace.cell.replicas)]
        self._budgets = [RetryBudget(_BUDGET) for _ in self._policies]
        self._is_whole = trace.strategy == "throughput"
        self._answers = [0 for _ in self._policies]
        self._heap: list[tuple[float, int, int, Attempt, Any]] = []
        self._order = 0
        self._watched = trace.watched
        self._result = Run(trace)

    def run(self) -> Run:
        """Everything until the last stream has ended."""
        trace, heap = self._trace, self._heap
        for number, now in enumerate(trace.arrivals_s):
            while heap and heap[0][0] <= now:
                self._step()
            self._advance(now)
            self._arrive(Request(number, trace.replicas[number], now, trace.body_bytes[number]), now)
        while heap:
            self._step()
        return self._result

    def _advance(self, now: float) -> None:
        world = self._world
        if world.next_change_s <= now and world.advance(now):
            prices = world.list_prices()
            for policy in self._policies:
                policy.repriced(prices, now)

    def _step(self) -> None:
        now, _, kind, attempt, extra = heappop(self._heap)
        self._advance(now)
        if kind == _END:
            self._ended(attempt, extra, now)
        elif kind == _PROGRESS:
            self._policies[attempt.request.replica].progressed(attempt, extra, now)
        elif attempt.is_over:
            pass
        elif kind == _FIRST_BYTE:
            self._answered(attempt, now)
        elif kind == _HEDGE:
            self._hedge(attempt, now)
        else:
            self._failed(attempt, *extra, now)

    def _push(self, at_s: float, kind: int, attempt: Attempt, extra: Any = None) -> None:
        self._order += 1
        heappush(self._heap, (at_s, self._order, kind, attempt, extra))

    def _arrive(self, request: Request, now: float) -> None:
        result, number = self._result, request.number
        best = self._world.best(number, now)
        assert best is not None
        result.best[number] = best
        self._budgets[request.replica].count_request(now)
        member = self._policies[request.replica].pick(request, now)
        result.first[number] = -1 if member is None else member
        self._send(request, member, now)

    def _send(self, request: Request, member: int | None, now: float) -> None:
        if member is None:
            self._give_up(request, now)
            return
        assert member not in request.tried, "a policy picked a member twice"
        request.tried = (*request.tried, member)
        self._result.attempts[request.number] += 1
        if member == self._watched:
            self._result.asked_watched[request.number] = 1
        attempt = Attempt(request, member, now)
        request.running.append(attempt)
        self._end_hang(request, now)
        policy = self._policies[request.replica]
        policy.begun(attempt, now)
        if not request.is_hedged:
            after_s = policy.hedge_s(attempt, now)
            if after_s is not None:
                self._push(now + after_s, _HEDGE, attempt)
        world = self._world
        fault = attempt.fault = world.fault(member, request.number)
        if fault in ("hang", "mute") and self._answers[request.replica] >= _KNOWN_AFTER:
            request.hung_since_s = now
        limit = world.members[member].limit
        if fault == "hang":
            self._push(now + TIMEOUT_S, _FAIL, attempt, ("timeout", None))
        elif fault == "error":
            self._push(now + world.phases[member].error_s, _FAIL, attempt, ("500", None))
        elif fault == "empty":
            self._push(now + world.phases[member].error_s, _FAIL, attempt, ("empty", None))
        elif fault == "mute":
            self._push(now + MUTE_S, _FAIL, attempt, ("timeout", None))
        elif limit is not None and not world.admits(member, request.number, now):
            self._push(now + limit.error_s, _FAIL, attempt, ("429", limit.retry_after_s))
        else:
            self._enter(attempt, now)

    def _end_hang(self, request: Request, now: float) -> None:
        """Another member is asked, or nobody any more."""
        if request.hung_since_s >= 0.0:
            self._result.hung_s = max(self._result.hung_s, now - request.hung_since_s)
            request.hung_since_s = -1.0

    def _enter(self, attempt: Attempt, now: float) -> None:
        """The member takes it: at once, or into its queue."""
        world, member = self._world, attempt.member
        server = world.members[member].server
        if server is not None and world.running[member] >= server.slots:
            world.queues[member].append(attempt)
            world.waiting[member] += 1
            attempt.is_queued = True
            self._push(attempt.begun_s + TIMEOUT_S, _FAIL, attempt, ("timeout", None))
            return
        self._start(attempt, now)

    def _start(self, attempt: Attempt, now: float) -> None:
        world, member, number = self._world, attempt.member, attempt.request.number
        world.running[member] += 1
        attempt.is_running = True
        at_s = now + world.first_byte_s(member, number)
        if at_s <= attempt.begun_s + TIMEOUT_S:
            self._push(at_s, _FIRST_BYTE, attempt)
        elif not attempt.is_queued:  # one from a queue has its time-out already
            self._push(attempt.begun_s + TIMEOUT_S, _FAIL, attempt, ("timeout", None))
        attempt.is_queued = False

    def _answered(self, attempt: Attempt, now: float) -> None:
        attempt.is_over = True
        request = attempt.request
        policy = self._policies[request.replica]
        self._result.time_s[request.number] = now - request.arrived_s
        spent = self._world.spent(attempt.member, request.number)
        self._result.usd[request.number] = spent.usd
        policy.first_byte(attempt, now)
        self._answers[request.replica] += 1
        for other in request.running:
            if other is not attempt:
                self._stop(other, now)
                policy.left(other, now)
        request.running = []
        stream_s = self._world.stream_s(attempt.member, request.number)
        if attempt.fault == "break":
            stream_s *= 0.5
        if self._is_whole:
            for step in range(1, int(stream_s / _PROGRESS_S) + 1):
                tokens = spent.output_tokens * step * _PROGRESS_S / stream_s
                self._push(now + step * _PROGRESS_S, _PROGRESS, attempt, tokens)
        self._push(now + stream_s, _END, attempt, spent)

    def _ended(self, attempt: Attempt, spent: Spent, now: float) -> None:
        self._release(attempt, now)
        request, policy = attempt.request, self._policies[attempt.request.replica]
        if self._is_whole:
            self._result.time_s[request.number] = now - request.arrived_s
        if attempt.fault == "break":
            policy.failed(attempt, "reset", None, now)
            self._give_up(request, now)
        else:
            policy.finished(attempt, spent, now)

    def _hedge(self, attempt: Attempt, now: float) -> None:
        """The attempt is silent for too long: a second member is asked, if there is one and the budget
        allows it."""
        request = attempt.request
        if request.is_hedged or len(request.tried) >= MAX_ATTEMPTS:
            return
        budget = self._budgets[request.replica]
        if budget.is_left(now):
            member = self._policies[request.replica].pick(request, now)
            if member is not None:
                budget.take(now)
                request.is_hedged = True
                self._send(request, member, now)

    def _stop(self, attempt: Attempt, now: float) -> None:
        attempt.is_over = True
        if attempt.is_running:
            self._release(attempt, now)
        elif attempt.is_queued:
            self._world.waiting[attempt.member] -= 1

    def _failed(self, attempt: Attempt, kind: str, retry_after_s: float | None, now: float) -> None:
        self._stop(attempt, now)
        request = attempt.request
        request.running.remove(attempt)
        policy = self._policies[request.replica]
        policy.failed(attempt, kind, retry_after_s, now)
        if request.running:
            return  # its rival may still answer
        is_final = attempt.fault == "mute" or (kind == "empty" and not policy.sees_output)
        if is_final or len(request.tried) >= MAX_ATTEMPTS:
            self._give_up(request, now)
            return
        self._send(request, policy.pick(request, now), now)

    def _release(self, attempt: Attempt, now: float) -> None:
        """A slot comes free: the next of the queue that still waits has it."""
        world, member = self._world, attempt.member
        world.running[member] -= 1
        queue = world.queues[member]
        while queue:
            waiting = queue.popleft()
            assert isinstance(waiting, Attempt)
            if not waiting.is_over:
                world.waiting[member] -= 1
                self._start(waiting, now)
                return

    def _give_up(self, request: Request, now: float) -> None:
        self._end_hang(request, now)
        self._result.is_failed[request.number] = 1
        self._result.time_s[request.number] = max(now - request.arrived_s, TIMEOUT_S)
