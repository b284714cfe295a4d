"""Sends alerts to the operator's webhook: one after the other, each tried again until it is taken.

The address of a webhook is a secret, since anyone who has it can post there: the log gets its host only, and
never the text of the HTTP client's errors, which may repeat the address.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from proxy.wire.retry_after import retry_after_s

log = logging.getLogger("tokenhub.alerts")

# For one attempt, from the look-up of the host to the end of the response's head.
TIMEOUT_S = 10.0
# With pauses of 1, 2, 4, … s between them that is about nine minutes: enough for the receiver to restart.
ATTEMPTS = 10
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 300.0
# Each cause is reported at most once an hour: this many wait only if the receiver is away for long.
MAX_WAITING = 1000
# How long alerts that wait are still sent when the gateway stops.
GRACE_S = 3.0
# Refusals that another attempt may well change; any other 4xx is about the request, and that stays the same.
_PASSING = frozenset((408, 425, 429))


class _Failed(Exception):
    """An attempt failed; the text says why. ``wait_s``: the receiver's Retry-After."""

    def __init__(self, text: str, wait_s: float = 0.0, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.wait_s = wait_s
        self.is_final = is_final


class Webhook:
    """Sends alerts from the call of :meth:`use` to that of :meth:`close`.

    :param rng: spreads the pauses, as several gateways may have lost the same receiver.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self.url = ""
        self._rng = rng or random.Random()
        self._waiting: deque[bytes] = deque()
        self._hurry = asyncio.Event()  # no pause now: the address is another, or the end is near
        self._something = asyncio.Event()
        self._is_closing = False
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        """The part of the address that may be logged."""
        return urlsplit(self.url).hostname or ""

    def use(self, url: str) -> None:
        """Send to this address from now on, what waits included; "" drops what waits."""
        if url == self.url:
            return
        self.url = url
        self._hurry.set()
        if url:
            log.info("alerts go to %s", self.host)
        else:
            self._waiting.clear()
            log.info("alerts are no longer sent")

    def send(self, payload: Mapping[str, Any]) -> None:
        """Queue an alert."""
        log.info("alert: %s", payload["text"], extra={"event": payload.get("event")})
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            log.error("an alert is lost: %d already wait for %s", MAX_WAITING, self.host)
        self._waiting.append(orjson.dumps(payload))
        self._something.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Send what waits, for up to :data:`GRACE_S`, and end."""
        self._is_closing = True
        self._hurry.set()
        self._something.set()
        if self._task is not None:
            done, _ = await asyncio.wait((self._task,), timeout=GRACE_S)
            if not done:
                log.error("%d alerts are lost: %s did not take them in time", len(self._waiting), self.host)
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _run(self) -> None:
        while True:
            while self._waiting:
                await self._deliver(self._waiting[0])
            if self._is_closing:
                return
            self._something.clear()
            await self._something.wait()

    async def _deliver(self, body: bytes) -> None:
        """Send the first waiting alert until it is taken or given up, and drop it."""
        pause_s = FIRST_PAUSE_S
        for left in reversed(range(ATTEMPTS)):
            if not self._is_closing:
                self._hurry.clear()
            try:
                await self._post(body)
                break
            except _Failed as error:
                if error.is_final or not left or self._is_closing:
                    log.error("an alert is lost: %s %s", self.host, error)
                    break
                log.warning("an alert waits: %s %s; %d more attempts", self.host, error, left)
                await self._pause(max(error.wait_s, pause_s))
                pause_s = min(2.0 * pause_s, MAX_PAUSE_S)
            if not self._is_first(body):
                return
        if self._is_first(body):
            self._waiting.popleft()

    def _is_first(self, body: bytes) -> bool:
        """True: it still waits. Others may have pushed it out, or the webhook was removed."""
        return bool(self._waiting) and self._waiting[0] is body

    async def _pause(self, seconds: float) -> None:
        seconds = min(seconds, MAX_PAUSE_S) * (0.5 + 0.5 * self._rng.random())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    async def _post(self, body: bytes) -> None:
        """:raises _Failed: it was not taken."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {"Content-Type": "application/json"}
        try:
            # A redirect would make a GET of it, or take the alert to who knows where.
            post = self._session.post(self.url, data=body, headers=headers, allow_redirects=False)
            async with post as answer:
                status, wait = answer.status, answer.headers.get("Retry-After", "")
        except TimeoutError:
            raise _Failed(f"did not answer within {TIMEOUT_S:g} s") from None
        except Exception as error:  # whatever it is, the next alert is to be sent all the same
            raise _Failed(_why(error)) from None
        if not 200 <= status < 300:
            wait_s = retry_after_s([b"Retry-After: " + wait.encode()], time.time()) or 0.0
            is_final = status < 500 and status not in _PASSING
            raise _Failed(f"answered {status}", wait_s, is_final=is_final)


def _why(error: Exception) -> str:
    """Describe an error without its own text, which may repeat the address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "can't be found: its name does not resolve"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) else None
    return f"can't be reached ({os.strerror(number) if number else type(cause).__name__})"
