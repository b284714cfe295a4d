"""A worker as the supervisor sees it: its process, and the channel over which it gets its orders."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque

from proxy.server.messages import Answer, Channel, Count
from proxy.usage.counters import Counted

# An order is obeyed within milliseconds; a worker that doesn't answer for so long serves nobody either.
ORDER_S = 10.0
# Who watches would rather see what was a moment ago than wait.
_COUNT_S = 1.0
# Orders that wait for their answers; with more, a worker is stuck, and nothing is asked that can wait.
_MANY = 16


class Handle:
    """See the module's text. Orders are answered in the order they were given."""

    def __init__(self, index: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.index = index
        self.process = process
        self.channel = channel
        self.counted = {False: Counted({}, {}), True: Counted({}, {})}  # as it said last; True: in brief
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._reader = asyncio.get_running_loop().create_task(self._listen())

    async def ask(self, order: object) -> Answer:
        """Give an order. The worker's death is an answer too."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        with contextlib.suppress(ConnectionError):
            await self.channel.send(order)
        if self._reader.done():
            self._give_up()
        return await answer

    async def count(self, brief: bool) -> None:
        """Bring :attr:`counted` up to date, if it answers soon."""
        if len(self._waiting) >= _MANY:
            return
        with contextlib.suppress(TimeoutError):
            answer = await asyncio.wait_for(self.ask(Count(brief)), _COUNT_S)
            if not answer.error:
                self.counted[brief] = answer.value

    async def _listen(self) -> None:
        while isinstance(answer := await self.channel.receive(), Answer):
            if self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(answer)
        self._give_up()

    def _give_up(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(Answer(error="it has died"))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def close(self) -> None:
        """After its end."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._give_up()
        self.channel.close()
