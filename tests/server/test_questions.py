"""A worker's questions and the supervisor's answers, in any order."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.relay.downstream.own_figures import Told
from proxy.server.messages import Answer, Channel, Question
from proxy.server.questions import Questions


async def test_questions_and_answers():
    channels = [await Channel.open(end) for end in socket.socketpair()]
    questions = Questions(channels[0])
    asked = [asyncio.create_task(questions.ask("usage", key, {"by": "day"})) for key in ("a", "b", "c")]
    received = [await channels[1].receive() for _ in asked]
    assert received == [
        Question(number, "usage", key, {"by": "day"}) for number, key in ((1, "a"), (2, "b"), (3, "c"))
    ]
    asked[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked[1]
    for number in (3, 2, 1, 9):
        questions.answer(Answer(number, Told(b"%d" % number)))
    assert [(await asked[0]).body, (await asked[2]).body] == [b"1", b"3"]
    for channel in channels:
        channel.close()
