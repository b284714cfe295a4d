"""Load on a running gateway: a number of requests at a time, or a second.

At a rate each request has a time at which it is due, and its latency counts from then: a gateway that holds
requests up also delays those behind them, and a client that measured from its own late start would not see
that.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from proxy.cli.bench_stats import Outcome, Results
from proxy.cli.data_client import Events, Target, content_of, not_there, price_of
from proxy.cli.parser import message_of
from proxy.config.settings import Config
from proxy.usage.response_usage import read_plain
from proxy.usage.tokens import Usage

# The event loop's timers are this late by themselves; more lateness counts as the request's.
_TIMER_S = 0.002
_PATIENCE_S = 0.1  # where nobody is there, the next try can wait
CONNECT = "connect"
_GATEWAY_DUR = re.compile(r"\bgateway;dur=([0-9.]+)")


class Plan(NamedTuple):
    """A load to send.

    ``path``: of the endpoint. ``concurrency``: requests at a time, at most. ``rate``: requests a second;
    None: the next as soon as one ends. ``requests`` or ``duration_s`` ends it.
    """

    target: Target
    model: str
    path: str
    endpoint: str
    body: bytes
    is_stream: bool
    concurrency: int
    rate: float | None
    requests: int | None
    duration_s: float | None
    timeout_s: float

    @property
    def amount(self) -> str:
        """The plan in words."""
        much = (
            f"{self.requests} requests" if self.requests is not None else f"{self.duration_s:g} s of requests"
        )
        pace = f"{self.concurrency} at a time" if self.rate is None else f"{self.rate:g} a second"
        return f"{much}, {pace},"


class Load:
    """A load while it runs. ``begun``: monotonic seconds; ``cpu_s``: what this process used of the CPU.

    :param on_charge: called once, at the first answer that is not simulated.
    """

    def __init__(
        self, plan: Plan, session: aiohttp.ClientSession, rng: Random, on_charge: Callable[[], None]
    ) -> None:
        self.plan = plan
        self.results = Results(rng)
        self.begun = 0.0
        self.elapsed_s = self.cpu_s = 0.0
        self.started = 0
        self._on_charge: Callable[[], None] | None = on_charge
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=plan.timeout_s, sock_connect=5)
        self._headers = {"Content-Type": "application/json"}

    async def check(self) -> None:
        """:raises CommandError: nobody is there."""
        try:
            async with self._session.get(f"{self.plan.target.url}/healthz") as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise not_there(self.plan.target, error) from None

    async def run(self, stop: asyncio.Future[None]) -> None:
        """Run to the end, or until ``stop`` is done: requests under way are then cut off, and not counted."""
        loop = asyncio.get_running_loop()
        self.begun, cpu_s = time.monotonic(), time.process_time()
        most = self.plan.concurrency
        if self.plan.requests is not None:
            most = min(most, self.plan.requests)
        tasks = [loop.create_task(self._work()) for _ in range(most)]
        work = asyncio.gather(*tasks)
        try:
            await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.elapsed_s = time.monotonic() - self.begun
            self.cpu_s = time.process_time() - cpu_s
            for task in tasks:
                task.cancel()
            await asyncio.gather(work, *tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                task.result()  # raises what is a fault of ours

    @property
    def unsent(self) -> int:
        """Requests that were due in the given time, for which no connection was free."""
        plan = self.plan
        if plan.rate is None or plan.duration_s is None:
            return 0
        return max(int(plan.rate * min(plan.duration_s, self.elapsed_s)) - self.started, 0)

    async def summary(self, config: Config | None) -> dict[str, Any]:
        """All of it as a JSON value. The gateway is asked for prices that are not in ``config``."""
        plan = self.plan
        usd: float | None = 0.0
        is_most = False
        if not self.results.simulated:
            for model, usage in self.results.models.items():
                price = await price_of(self._session, plan.target, config, model, usage)
                usd = None if usd is None or price is None else usd + price.usd
                is_most |= price is not None and price.is_most
        return {
            "url": plan.target.name,
            "model": plan.model,
            "endpoint": plan.endpoint,
            "stream": plan.is_stream,
            "concurrency": plan.concurrency,
            "rate": plan.rate,
            **self.results.summary(self.elapsed_s),
            "cut_off": self.started - self.results.done,
            "unsent": self.unsent,
            "client_cpu": round(self.cpu_s / self.elapsed_s, 3) if self.elapsed_s else 0.0,
            "usd": usd,
            "usd_is_most": is_most,
        }

    async def _work(self) -> None:
        """One request after the other."""
        while (due := self._next()) is not None:
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
                now = time.monotonic()
            outcome = await self._send(due if now - due > _TIMER_S else now)
            self.results.add(outcome)
            if self._on_charge is not None and outcome.usage is not None and not outcome.is_simulated:
                self._on_charge()
                self._on_charge = None
            if outcome.reason == CONNECT:
                await asyncio.sleep(_PATIENCE_S)

    def _next(self) -> float | None:
        """The time at which the next request is due; None: all were sent."""
        plan = self.plan
        now = time.monotonic()
        due = now if plan.rate is None else self.begun + self.started / plan.rate
        if plan.requests is not None and self.started >= plan.requests:
            return None
        if plan.duration_s is not None and max(due, now) >= self.begun + plan.duration_s:
            return None
        self.started += 1
        return due

    async def _send(self, since: float) -> Outcome:
        plan = self.plan
        post = self._session.post(
            plan.target.url + plan.path, data=plan.body, headers=self._headers, timeout=self._timeout
        )
        try:
            async with post as response:
                return await self._read(response, since)
        except TimeoutError:  # aiohttp's are such, too
            text = f"no end of the answer within {plan.timeout_s:g} s"
            return Outcome(time.monotonic() - since, "timeout", text)
        except aiohttp.ClientConnectorError as error:
            return Outcome(time.monotonic() - since, CONNECT, str(not_there(plan.target, error)))
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            return Outcome(time.monotonic() - since, "broke off", str(error) or type(error).__name__)

    async def _read(self, response: aiohttp.ClientResponse, since: float) -> Outcome:
        first_s: float | None = None
        usage: Usage | None = None
        reason, message = None, ""
        if response.status != 200:
            body = await response.read()
            reason, message = _reason(response.status, body), message_of(body)
        elif response.content_type == "text/event-stream":
            stream = _Stream(self.results)
            while data := await response.content.readany():
                stream.feed(data, time.monotonic())
            usage, message = stream.usage, stream.error
            reason = "error event" if message else None
            first_s = stream.first_at - since if stream.first_at else None
        else:
            usage = read_plain(await response.read(), self.plan.endpoint)
        headers = response.headers
        timing = _GATEWAY_DUR.search(headers.get("Server-Timing", ""))
        return Outcome(
            time.monotonic() - since,
            reason,
            message,
            headers.get("X-Inferoute-Provider", ""),
            headers.get("X-Inferoute-Model", ""),
            first_s,
            float(timing[1]) / 1000 if timing else None,
            usage,
            "X-Inferoute-Simulated" in headers,
            "," in headers.get("X-Inferoute-Attempts", ""),
        )


def _reason(status: int, body: bytes) -> str:
    try:
        return f"{status} {orjson.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(status)


class _Stream:
    """An event stream while it is read. Of its events only those are parsed of which something is wanted: a
    client that is busy with its own work measures that."""

    def __init__(self, results: Results) -> None:
        self._gaps = results.gaps
        self._events = Events()
        self._last_at = 0.0
        self.first_at = 0.0  # of text; 0: none came
        self.usage: Usage | None = None
        self.error = ""

    def feed(self, data: bytes, now: float) -> None:
        """:param now: monotonic seconds."""
        try:
            for event in self._events.feed(data):
                self._take(event, now)
        except (ValueError, TypeError, AttributeError) as error:
            self.error = f"an event is none of the chat API ({error})"
        if self.first_at:
            if self._last_at:
                self._gaps.add(now - self._last_at)
            self._last_at = now

    def _take(self, event: bytes, now: float) -> None:
        if event == b"[DONE]":
            return
        if not self.first_at and content_of(orjson.loads(event)):
            self.first_at = now
        if b'"usage"' in event and (usage := read_plain(event, "chat")) is not None:
            self.usage = usage
        if b'"error"' in event and orjson.loads(event).get("error"):
            self.error = message_of(event)
