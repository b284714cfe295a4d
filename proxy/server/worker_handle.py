"""A worker as the supervisor sees it: its process, and the channel that brings it messages."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque

from proxy.relay.downstream.own_figures import Ask
from proxy.server.messages import Answer, Channel, Count, Question, Reply
from proxy.usage.counters import Counted

# A worker replies within milliseconds; one that takes this long serves nobody either.
REPLY_S = 10.0
# Watchers get slightly old counts rather than wait longer.
_COUNT_S = 1.0
# With more messages waiting for a reply, a worker is stuck: counts, which can wait, are not asked for.
_MAX_WAITING = 16


class WorkerHandle:
    """A worker's process and channel. Replies come in the order of the messages.

    :param answer: answers the worker's questions.
    """

    def __init__(
        self, index: int, process: asyncio.subprocess.Process, channel: Channel, answer: Ask
    ) -> None:
        self.index = index
        self.process = process
        self.channel = channel
        self.counted = {False: Counted({}, {}), True: Counted({}, {})}  # its latest; True: in brief
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._answer = answer
        self._answering: set[asyncio.Task[None]] = set()
        self._reader = asyncio.get_running_loop().create_task(self._listen())

    async def call(self, message: object) -> Reply:
        """Send a message and wait for the reply. If the worker dies, that is the reply's error."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        with contextlib.suppress(ConnectionError):
            await self.channel.send(message)
        if self._reader.done():
            self._give_up()
        return await reply

    async def count(self, brief: bool) -> None:
        """Update :attr:`counted`, if the worker replies soon."""
        if len(self._waiting) >= _MAX_WAITING:
            return
        with contextlib.suppress(TimeoutError):
            reply = await asyncio.wait_for(self.call(Count(brief)), _COUNT_S)
            if not reply.error:
                self.counted[brief] = reply.value

    async def _listen(self) -> None:
        while isinstance(reply := await self.channel.receive(), Reply | Question):
            if isinstance(reply, Question):
                task = asyncio.get_running_loop().create_task(self._answer_question(reply))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            elif self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(reply)
        self._give_up()

    async def _answer_question(self, question: Question) -> None:
        told = await self._answer(question.kind, question.key, question.query)
        with contextlib.suppress(ConnectionError):
            await self.channel.send(Answer(question.number, told))

    def _give_up(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(Reply(error="it has died"))

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it lives."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def close(self) -> None:
        """Close the channel, after the worker has ended."""
        for task in (self._reader, *self._answering):
            task.cancel()
        await asyncio.gather(self._reader, *self._answering, return_exceptions=True)
        self._give_up()
        self.channel.close()
