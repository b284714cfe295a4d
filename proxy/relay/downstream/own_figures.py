"""What a key asks about itself and the control plane knows: its totals, and its finished requests.

The control plane has the database and the ledger. It is another process where there are several workers, so
the request waits for its answer. A key has one such question at a time in each worker, and all keys together
a few, so that nobody keeps the database busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from proxy.errors import BadRequest, GatewayError, NotFound, Unavailable
from proxy.wire.query import INVALID

log = logging.getLogger("tokenhub.client")

USAGE: Final = "usage"
REQUEST: Final = "request"
# Questions under way in a worker.
MOST: Final = 8
ANSWER_S: Final = 10.0
_MOST_PARAMETERS: Final = 20


class OwnAnswer(NamedTuple):
    """A response of the data listener's own. ``lines``: header lines beside those that every response has,
    each with its CRLF."""

    status: int
    lines: bytes
    body: bytes


class Told(NamedTuple):
    """The control plane's answer.

    ``body``: JSON; b"": there is nothing. ``error``: a sentence, why it can't be answered; ``param``: the
    parameter at fault, "" where the storage is.
    """

    body: bytes = b""
    error: str = ""
    param: str = ""


# Kind of the question, the key's id, and its parameters.
Ask = Callable[[str, str, Mapping[str, str]], Awaitable[Told]]
Give = Callable[[OwnAnswer | GatewayError], None]


class OwnFigures:
    """The questions of keys about themselves.

    :param ask: asks the control plane.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._running: dict[str, asyncio.Task[None]] = {}  # by key

    def ask(self, kind: str, key: str, query: Mapping[str, str], lines: bytes, give: Give) -> None:
        """Ask, and ``give`` the answer later. ``lines``: header lines of the answer.

        :raises Unavailable: too many questions are under way.
        """
        if key in self._running or len(self._running) >= MOST:
            text = "Earlier questions about usage are still being answered; try again in a moment."
            raise Unavailable(text, code="overloaded", retry_after_s=1, close=False)
        loop = asyncio.get_running_loop()
        self._running[key] = loop.create_task(self._answer(kind, key, query, lines, give))

    async def _answer(self, kind: str, key: str, query: Mapping[str, str], lines: bytes, give: Give) -> None:
        answer: OwnAnswer | GatewayError
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = _answer_of(await self._ask(kind, key, query), lines)
        except TimeoutError:
            answer = _failed("The usage of this key can't be read in time.")
        except Exception:
            log.exception("internal error in a key's question about itself")
            answer = _failed("The usage of this key can't be read.")
        finally:
            del self._running[key]  # before the answer is out, as the next question may follow at once
        give(answer)

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _answer_of(told: Told, lines: bytes) -> OwnAnswer | GatewayError:
    if told.body:
        return OwnAnswer(200, lines, told.body)
    if not told.error:
        return unknown_request()
    return BadRequest(told.error, code=INVALID, param=told.param) if told.param else _failed(told.error)


def unknown_request() -> GatewayError:
    """The error for a request that is not known, or another key's: nobody can tell which."""
    text = "This key has no such request, or it is too long ago. The id is that of X-Inferoute-Request-Id."
    return NotFound(text, "request_not_found")


def _failed(text: str) -> GatewayError:
    return Unavailable(text, code="storage_failed", retry_after_s=1, close=False)


def read_parameters(query: bytes) -> dict[str, str]:
    """The parameters of a query; an empty value counts as not given.

    :raises BadRequest: there are too many, or one is given twice.
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise BadRequest("The query has too many parameters.", code=INVALID) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(
                f"'{name[:60]}' is given more than once: give it once.", code=INVALID, param=name
            )
        found[name] = value
    return {name: value for name, value in found.items() if value}
