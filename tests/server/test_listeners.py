"""Addresses and Unix sockets to listen on; every socket is real."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys

import pytest

from proxy.config.settings import Listen
from proxy.errors import StartError
from proxy.server.listeners import listen_on, remove_socket, serve_on


def close(*by_worker: list[socket.socket]) -> None:
    for sockets in by_worker:
        for sock in sockets:
            sock.close()


async def test_a_free_port_is_told():
    [sockets], address = await listen_on(Listen("127.0.0.1", 0), 0o660)
    assert address.port > 0
    by_us = rf"by process {os.getpid()} \(.+\)" if sys.platform == "linux" else ""
    said = rf"^Can't listen on http://127.0.0.1:{address.port}: .*in use {by_us}\. "
    with pytest.raises(StartError, match=said + r"Set \[server\] listen to .*, or start with --listen\.$"):
        await listen_on(address, 0o660)
    with pytest.raises(StartError, match=said + r"Do this\.$"):
        await listen_on(address, 0o660, way_out="Do this")
    close(sockets)
    [sockets], again = await listen_on(address, 0o660)
    assert again == address
    close(sockets)


async def test_several_workers_have_a_socket_each_for_one_port():
    by_worker, address = await listen_on(Listen("127.0.0.1", 0), 0o660, 3)
    assert [sock.getsockname() for [sock] in by_worker] == [("127.0.0.1", address.port)] * 3
    for workers in (1, 2):  # nobody else gets in, though the workers share it
        with pytest.raises(StartError, match="in use"):
            await listen_on(address, 0o660, workers)
    for _ in range(30):  # nobody serves yet, and nobody is refused
        socket.create_connection(("127.0.0.1", address.port), timeout=5).close()
    close(*by_worker)


async def test_a_name_may_be_several_addresses():
    by_worker, address = await listen_on(Listen("localhost", 0), 0o660, 2)
    for sockets in by_worker:
        assert {sock.getsockname()[1] for sock in sockets} == {address.port}
        assert {sock.family for sock in sockets} <= {socket.AF_INET, socket.AF_INET6}
    close(*by_worker)


async def test_a_name_that_is_none():
    with pytest.raises(StartError, match=r"^Can't listen on http://nobody\.invalid:1"):
        await listen_on(Listen("nobody.invalid", 1), 0o660)


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_comes_to_a_socket_is_served(tmp_path, workers):
    for listen in (Listen("127.0.0.1", 0), Listen(path=str(tmp_path / "x.sock"))):
        by_worker, address = await listen_on(listen, 0o660, workers)
        made: list[asyncio.Protocol] = []

        def factory(made: list[asyncio.Protocol] = made) -> asyncio.Protocol:
            made.append(asyncio.Protocol())
            return made[-1]

        server = await serve_on(by_worker[0][0], factory)
        while not made:
            if listen.path:
                _, writer = await asyncio.open_unix_connection(address.path)
            else:
                _, writer = await asyncio.open_connection("127.0.0.1", address.port)
            await asyncio.sleep(0.01)
            writer.close()
        server.close()
        await server.wait_closed()
        close(*by_worker[1:])


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
async def test_a_unix_socket_has_its_mode_and_goes_at_the_end(tmp_path, mode):
    before = os.umask(0o022)
    os.umask(before)
    listen = Listen(path=str(tmp_path / "x.sock"))
    by_worker, address = await listen_on(listen, mode, 2)
    assert stat.S_IMODE((tmp_path / "x.sock").stat().st_mode) == mode
    assert (os.umask(before), address) == (before, listen)
    assert by_worker[0][0] is by_worker[1][0]
    close(by_worker[0])
    remove_socket(address)
    remove_socket(address)  # twice is no fault
    assert not (tmp_path / "x.sock").exists()


async def test_what_is_in_a_sockets_place(tmp_path):
    """A socket nobody listens on is replaced; one in use, and any other file, is left alone."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    [sockets], _ = await listen_on(Listen(path=str(path)), 0o660)
    with pytest.raises(StartError, match="somebody listens there already"):
        await listen_on(Listen(path=str(path)), 0o660)
    close(sockets)
    precious = tmp_path / "precious.txt"
    precious.write_text("data")
    with pytest.raises(StartError, match="in use"):
        await listen_on(Listen(path=str(precious)), 0o660)
    assert precious.read_text() == "data"
