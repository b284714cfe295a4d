"""The questions that a worker asks its supervisor, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from proxy.relay.downstream.own_figures import Told
from proxy.server.messages import Answer, Channel, Question


class Questions:
    """The questions under way. Answers come in any order.

    :param channel: to the supervisor; what reads from it passes on the answers.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: dict[int, asyncio.Future[Told]] = {}
        self._number = 0

    async def ask(self, kind: str, key: str, query: Mapping[str, str]) -> Told:
        """Ask, and wait for the answer. :raises ConnectionError: the supervisor has died."""
        number = self._number = self._number + 1
        answer: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._channel.send(Question(number, kind, key, dict(query)))
            return await answer
        finally:
            del self._waiting[number]

    def answer(self, answer: Answer) -> None:
        """An answer has come; maybe nobody waits for it any more."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.told)
