"""How many connections are accepted in a turn of the event loop, and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from unittest.mock import Mock

import pytest

from proxy.config.settings import Listen
from proxy.relay.downstream.resume_queue import LONG_S
from proxy.server.acceptor import DESCRIPTORS, KEPT_S, Acceptor
from proxy.server.listeners import listen_on
from tests.support.fakes import until


class Accepting(Acceptor):
    def __init__(self, sock: socket.socket) -> None:
        self.made: list[asyncio.Protocol] = []
        super().__init__(sock, self._make, None)

    def _make(self) -> asyncio.Protocol:
        self.made.append(asyncio.Protocol())
        return self.made[-1]

    async def accepted_in_few_turns(self, count: int) -> int:
        """How many of ``count`` that have come already."""
        self.made.clear()
        clients = [socket.create_connection(self.address) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)
        accepted = len(self.made)
        for client in clients:
            client.close()
        await until(lambda: len(self.made) == count)
        return accepted


@pytest.fixture
async def listener() -> AsyncIterator[Accepting]:
    [[sock]], listen = await listen_on(Listen("127.0.0.1", 0), 0o660)
    listener = Accepting(sock)
    listener.address = listen.host, listen.port
    inode = os.fstat(sock.fileno()).st_ino
    await listener.start()
    yield listener
    listener.close()
    await until(lambda: inode not in open_inodes())


def open_inodes() -> set[int]:
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            inodes.add(os.stat(f"/proc/self/fd/{fd}").st_ino)
    return inodes


async def test_while_turns_are_long_more_are_accepted_in_each(listener):
    assert await listener.accepted_in_few_turns(40) <= 4  # the event loop's own pace
    listener.adapt(1.1 * LONG_S, 50.0)
    await until(lambda: repr(listener) == f"<Acceptor descriptors={DESCRIPTORS}>")
    assert await listener.accepted_in_few_turns(40) == 40
    listener.adapt(LONG_S, 50.0 + KEPT_S)
    assert await listener.accepted_in_few_turns(40) == 40
    listener.adapt(1.1 * LONG_S, 60.0)
    listener.adapt(0.0, 60.5 + KEPT_S)
    assert repr(listener) == "<Acceptor descriptors=1>"
    assert await listener.accepted_in_few_turns(40) <= 4
    listener.adapt(1.1 * LONG_S, 80.0)
    await until(lambda: repr(listener) == f"<Acceptor descriptors={DESCRIPTORS}>")


async def test_short_turns_change_nothing_and_it_can_be_closed_while_it_opens(listener):
    for at in range(100):
        listener.adapt(LONG_S, float(at))
    await asyncio.sleep(0)
    assert repr(listener) == "<Acceptor descriptors=1>"
    listener.adapt(1.0, 5.0)
    await asyncio.sleep(0)
    listener.close()
    assert repr(listener) == "<Acceptor descriptors=0>"
    listener.adapt(1.0, 6.0)
    await asyncio.sleep(0)
    assert repr(listener) == "<Acceptor descriptors=0>"


@pytest.mark.parametrize("left", [0, 2])
async def test_without_descriptors_it_goes_on_as_it_is_and_tries_again_later(listener, left):
    real, listener.sock = listener.sock, Mock()
    listener.sock.dup.side_effect = [
        *(real.dup() for _ in range(left)), OSError(24, "Too many open files"),
    ]  # fmt: skip
    listener.adapt(1.0, 5.0)
    await until(listener._opening.done)
    assert repr(listener) == f"<Acceptor descriptors={1 + left}>"
    assert await listener.accepted_in_few_turns(3) == 3
    listener.sock = real
    listener.adapt(0.0, 6.0 + KEPT_S)
    listener.adapt(1.0, 7.0 + KEPT_S)
    await until(lambda: repr(listener) == f"<Acceptor descriptors={DESCRIPTORS}>")
