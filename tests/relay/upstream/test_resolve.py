"""Names and addresses of providers; with a name server, and addresses far away, in e2e/test_network.py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

from proxy.relay.upstream import resolve as module
from proxy.relay.upstream.resolve import Addresses, reach
from tests.support.fakes import blackhole, dead_url, until


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def at(port: int) -> module.Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].removesuffix("/v1"))


async def test_a_host_that_is_an_address_is_looked_up_nowhere(monkeypatch):
    monkeypatch.setattr(module.threading, "Thread", None)
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        [found] = await Addresses(host, 80).find()
        assert (found[0], found[4][:2]) == (family, (host, 80))


async def test_a_name_is_looked_up_once_for_all_who_wait_and_again_for_the_next(monkeypatch):
    begun, go_on, real = [], threading.Event(), socket.getaddrinfo

    def slow(host, *args, flags=0, **more):
        if flags:
            return real(host, *args, flags=flags, **more)
        begun.append(threading.current_thread())
        go_on.wait(10)
        return [host, len(begun)]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    addresses = Addresses("name.test", 80)
    leaves, *stay = [asyncio.create_task(addresses.find()) for _ in range(5)]
    await until(lambda: begun)
    leaves.cancel()  # the others' look-up goes on
    await asyncio.wait({leaves})
    go_on.set()
    assert await asyncio.gather(*stay) == [["name.test", 1]] * 4
    assert await addresses.find() == ["name.test", 2]
    assert all(thread.daemon for thread in begun)  # or it would keep the process from ending


@pytest.mark.parametrize(("host", "error"), [("no-such-host.invalid", OSError), ("x" * 64, UnicodeError)])
async def test_a_name_that_is_none(host, error):
    addresses = Addresses(host, 80)
    for _ in range(2):
        with pytest.raises(error):
            await addresses.find()


async def test_a_failure_that_nobody_waits_for_any_more(monkeypatch):
    faults, go_on, real = [], threading.Event(), socket.getaddrinfo
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def fails(*args, flags=0, **more):
        if flags:
            return real(*args, flags=flags, **more)
        go_on.wait(10)
        raise OSError("none")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    addresses = Addresses("name.test", 80)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(addresses.find(), 0.01)
    go_on.set()
    await until(lambda: addresses._lookup is None)
    assert not faults


@pytest.mark.parametrize("before", ["", "r", "rr", "s", "sr", "rs", "ss"])
async def test_the_first_that_picks_up(listener, before):
    """r refuses, s is silent: neither keeps the next from being tried."""
    with blackhole() as silent:
        ports = {"r": port_of(dead_url()), "s": port_of(silent)}
        tried = [at(ports[kind]) for kind in before]
        async with asyncio.timeout(10):
            with await reach([*tried, at(listener.getsockname()[1])]) as sock:
                assert sock.getpeername() == listener.getsockname()
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("count", [1, 2])
async def test_nobody_picks_up(count):
    with pytest.raises(ConnectionRefusedError, match="Connection refused"):
        await reach([at(port_of(dead_url()))] * count)


async def test_an_address_of_a_kind_that_is_not_there_is_no_more_than_one_that_refuses(listener):
    odd = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))
    with await reach([odd, at(listener.getsockname()[1])]) as sock:
        assert sock.getpeername() == listener.getsockname()


@pytest.mark.parametrize("count", [1, 3])
async def test_who_gives_up_leaves_nothing(count):
    loop = asyncio.get_running_loop()
    with blackhole() as silent, contextlib.ExitStack() as made:
        real = socket.socket
        sockets: list[socket.socket] = []

        class Counted(real):
            def __init__(self, *args, **more) -> None:
                super().__init__(*args, **more)
                sockets.append(self)

        socket.socket = Counted
        made.callback(setattr, socket, "socket", real)
        task = loop.create_task(reach([at(port_of(silent))] * count))
        await until(lambda: len(sockets) == count)
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: all(sock.fileno() == -1 for sock in sockets))


async def test_of_two_that_pick_up_at_once_one_is_closed():
    """The second was tried as the first was late; then both are there in the same turn."""
    loop, made = asyncio.get_running_loop(), []
    together = loop.create_future()

    async def connect(_):
        await asyncio.shield(together)
        made.append(socket.socket())
        return made[-1]

    real = module._connect
    module._connect = connect
    try:
        task = loop.create_task(reach([at(1), at(2)]))
        loop.call_later(module.NEXT_AFTER_S * 2, together.set_result, None)
        with await task as sock:
            assert len(made) == 2
            await until(lambda: [one.fileno() == -1 for one in made if one is not sock] == [True])
    finally:
        module._connect = real
