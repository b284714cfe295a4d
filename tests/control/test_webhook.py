"""Sending alerts: what is tried again, what is not, and that the address stays out of the log."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses
from yarl import URL

from proxy.control import webhook as webhook_module
from proxy.control.webhook import ATTEMPTS, FIRST_PAUSE_S, MAX_PAUSE_S, Webhook
from tests.support.fakes import dead_url, hangs, until

ADDRESS = "https://user:hunter2@hooks.example.com/services/T0/SECRET?token=SECRET2"
OTHER = "https://other.example.com/SECRET3"


class Pauses:
    """Pauses take no time; how long they would be is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        self.during: Callable[[], object] = lambda: None
        monkeypatch.setattr(webhook_module.asyncio, "wait_for", self._wait_for)

    async def _wait_for(self, waiting: Any, seconds: float) -> None:
        waiting.close()
        self.seconds.append(seconds)
        await asyncio.sleep(0)
        self.during()
        raise TimeoutError


@pytest.fixture
def pauses(monkeypatch) -> Pauses:
    return Pauses(monkeypatch)


@pytest.fixture
async def webhook(caplog) -> AsyncIterator[Webhook]:
    with caplog.at_level(logging.DEBUG):
        made = Webhook(random.Random(1))
        made.use(ADDRESS)
        yield made
        await made.close()
    assert made._session is None or made._session.closed
    for secret in ("SECRET", "hunter2"):
        assert secret not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


class Response(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know of an argument that aiohttp 3.14 wants."""

    def __init__(self, *args: Any, **more: Any) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
            more.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **more)


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.setattr("aioresponses.core.ClientResponse", Response)
    with aioresponses() as mocked:
        yield mocked


def bodies(answers: aioresponses, url: str = ADDRESS) -> list[Any]:
    calls = answers.requests.get(("POST", URL(url)), [])
    return [json.loads(call.kwargs["data"]) for call in calls]


def alert(number: int) -> dict[str, Any]:
    return {"text": f"No. {number}", "number": number}


def sent(answers: aioresponses, url: str = ADDRESS) -> list[int]:
    return [body["number"] for body in bodies(answers, url)]


async def idle(webhook: Webhook, *numbers: int) -> None:
    """All of these alerts, and those before them, have gone their way."""
    for number in numbers:
        webhook.send(alert(number))
    await until(lambda: not webhook._waiting)


async def test_alerts_go_out_in_their_order(webhook, answers, caplog):
    answers.post(ADDRESS, status=204, repeat=True)
    await idle(webhook, *range(3))
    assert bodies(answers) == [alert(number) for number in range(3)]
    [call, *_] = answers.requests["POST", URL(ADDRESS)]
    assert call.kwargs["headers"] == {"Content-Type": "application/json"}
    assert call.kwargs["allow_redirects"] is False
    assert caplog.messages == [f"alert: No. {number}" for number in range(3)]


@pytest.mark.parametrize("status", [500, 503, 408, 425, 429])
async def test_what_may_pass_is_tried_again_and_nothing_overtakes(webhook, answers, pauses, caplog, status):
    for _ in range(2):
        answers.post(ADDRESS, status=status)
    answers.post(ADDRESS, repeat=True)
    await idle(webhook, 1, 2)
    assert sent(answers) == [1, 1, 1, 2]
    assert f"an alert waits: hooks.example.com answered {status}; 9 more attempts" in caplog.messages
    first, second = pauses.seconds
    assert FIRST_PAUSE_S / 2 <= first <= FIRST_PAUSE_S <= second <= 2 * FIRST_PAUSE_S


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 301, 302])
async def test_what_will_not_pass_is_given_up(webhook, answers, pauses, caplog, status):
    answers.post(ADDRESS, status=status, headers={"Location": OTHER})
    answers.post(ADDRESS)
    await idle(webhook, 1, 2)
    assert sent(answers) == [1, 2]
    assert bodies(answers, OTHER) == []
    assert f"an alert is lost: hooks.example.com answered {status}" in caplog.messages
    assert pauses.seconds == []


async def test_a_receiver_that_stays_away(webhook, answers, pauses, caplog):
    errors = [
        aiohttp.ClientConnectionError(ADDRESS), TimeoutError(), OSError(5, ADDRESS),
        aiohttp.InvalidURL(ADDRESS),
    ]  # fmt: skip
    for error in errors:
        answers.post(ADDRESS, exception=error)
    answers.post(ADDRESS, status=500, repeat=True)
    await idle(webhook, 1)
    assert len(bodies(answers)) == ATTEMPTS
    assert len(pauses.seconds) == ATTEMPTS - 1
    for before, seconds in enumerate(pauses.seconds):
        whole = min(FIRST_PAUSE_S * 2**before, MAX_PAUSE_S)
        assert whole / 2 <= seconds <= whole
    assert caplog.messages[-1] == "an alert is lost: hooks.example.com answered 500"
    assert "hooks.example.com did not answer within 10 s" in caplog.text
    assert "hooks.example.com can't be reached (ClientConnectionError)" in caplog.text


@pytest.mark.parametrize(("said", "seconds"), [("60", 60.0), ("100000", MAX_PAUSE_S), ("nonsense", 1.0)])
async def test_a_receiver_that_says_when(webhook, answers, pauses, said, seconds):
    answers.post(ADDRESS, status=429, headers={"Retry-After": said})
    answers.post(ADDRESS)
    await idle(webhook, 1)
    [paused] = pauses.seconds
    assert seconds / 2 <= paused <= seconds


async def test_another_address_takes_what_waits_at_once(webhook, answers, caplog):
    answers.post(ADDRESS, status=500, repeat=True)
    answers.post(OTHER, repeat=True)
    webhook.send(alert(1))
    await until(lambda: bodies(answers))
    webhook.use(OTHER)
    webhook.use(OTHER)
    await idle(webhook)
    assert bodies(answers, OTHER) == [alert(1)]
    assert caplog.messages.count("alerts go to other.example.com") == 1


async def test_no_address_drops_what_waits(webhook, answers, caplog):
    answers.post(ADDRESS, status=500, repeat=True)
    webhook.send(alert(1))
    webhook.send(alert(2))
    await until(lambda: bodies(answers))
    webhook.use("")
    await idle(webhook)
    webhook.use(OTHER)
    answers.post(OTHER)
    webhook.send(alert(3))
    await until(lambda: bodies(answers, OTHER))
    assert [body["number"] for body in bodies(answers, OTHER)] == [3]
    assert "alerts are no longer sent" in caplog.messages


async def test_the_queue_is_bounded_and_loses_the_oldest(webhook, answers, caplog, monkeypatch):
    monkeypatch.setattr(webhook_module, "MAX_WAITING", 20)
    taken = asyncio.Event()

    async def hold(_url: URL, **_: Any) -> CallbackResult:
        await taken.wait()
        return CallbackResult(status=200)

    answers.post(ADDRESS, callback=hold, repeat=True)
    for number in range(22):
        webhook.send(alert(number))
    assert len(webhook._waiting) == 20
    assert caplog.text.count("an alert is lost: 20 already wait for hooks.example.com") == 2
    taken.set()
    await idle(webhook)
    assert sent(answers) == list(range(2, 22))


async def test_the_end_sends_what_waits_without_a_pause(webhook, answers):
    answers.post(ADDRESS, status=500)
    answers.post(ADDRESS, repeat=True)
    webhook.send(alert(1))
    webhook.send(alert(2))
    await until(lambda: bodies(answers))
    await webhook.close()
    assert sent(answers) == [1, 1, 2]
    await webhook.close()


async def test_the_end_does_not_wait_for_a_receiver_that_hangs(webhook, provider, caplog, monkeypatch):
    monkeypatch.setattr(webhook_module, "GRACE_S", 0.05)
    provider.script = hangs
    webhook.use(f"{provider.url}/SECRET")
    webhook.send(alert(1))
    webhook.send(alert(2))
    await webhook.close()
    assert "2 alerts are lost: 127.0.0.1 did not take them in time" in caplog.messages


async def test_nobody_listens(webhook, pauses, caplog):
    webhook.use(dead_url() + "/SECRET")
    await idle(webhook, 1)
    assert "127.0.0.1 can't be reached (Connection refused)" in caplog.text
