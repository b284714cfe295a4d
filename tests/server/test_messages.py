"""The socket pair between supervisor and worker."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.access.key import Key
from proxy.config.parse import parse
from proxy.control.key_store import Keyring
from proxy.server import messages
from proxy.server.messages import ApplyConfig, ApplyKeys, Channel, Drain, GetRecent, Reply, Start

CONFIG = parse('[providers.a]\nbase_url = "http://a/v1"\n[models."a/m"]\n[aliases]\nx = ["a/m"]')
WORKER_CONFIG = messages.WorkerConfig(CONFIG, {"a": "secret"}, 0)


@pytest.fixture
async def ends():
    pair = socket.socketpair()
    channels = [await Channel.open(sock) for sock in pair]
    yield channels
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("message", [
    Start(WORKER_CONFIG, 0, 2, (3, 4), 5, 6, "ledger", Keyring(), 1, {2**64 - 1: {"own": {}}}, (0, 7)),
    ApplyKeys(Keyring(((Key("key_1", "x", b"\0" * 32, 1, models=("a/*",)), 0),), is_open=False)),
    ApplyConfig(WORKER_CONFIG), GetRecent({"limit": "3"}), Drain(), Reply([{"id": 1}]), Reply(error="no"),
    Reply("x" * 3_000_000),
], ids=lambda message: type(message).__name__)  # fmt: skip
async def test_what_is_said_is_heard(ends, message):
    said = asyncio.get_running_loop().create_task(ends[0].send(message))
    assert await ends[1].receive() == message
    await said


async def test_messages_come_in_their_order_until_the_other_end_is_gone(ends):
    for number in range(50):
        await ends[0].send(number)
    assert [await ends[1].receive() for _ in range(50)] == list(range(50))
    await ends[0].send(Drain())
    ends[0].close()
    assert await ends[1].receive() == Drain()
    assert await ends[1].receive() is None


async def test_gone_in_the_middle_of_a_message():
    ours, theirs = socket.socketpair()
    channel = await Channel.open(ours)
    theirs.send(b"\x10\0\0\0abc")
    theirs.close()
    assert await channel.receive() is None
    channel.close()
