"""Addresses and Unix sockets to listen on; every socket is real."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from proxy.config import Listen
from proxy.listeners import StartError, is_local, open_listener, remove_socket, show


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        (Listen("127.0.0.1", 1), True),
        (Listen("127.9.9.9", 1), True),
        (Listen("::1", 1), True),
        (Listen("localhost", 1), True),
        (Listen(path="/run/x.sock"), True),
        (Listen("0.0.0.0", 1), False),
        (Listen("::", 1), False),
        (Listen("10.0.0.1", 1), False),
        (Listen("localhost.example.com", 1), False),
        (Listen("gateway", 1), False),
        (Listen("", 1), False),
    ],
)
def test_is_local(listen, local):
    assert is_local(listen) is local


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        (Listen("127.0.0.1", 80), "http://127.0.0.1:80"),
        (Listen("::1", 80), "http://[::1]:80"),
        (Listen(path="/run/x.sock"), "unix:/run/x.sock"),
    ],
)
def test_show(listen, text):
    assert show(listen) == text


async def test_a_free_port_is_told():
    listener, address = await open_listener(Listen("127.0.0.1", 0), asyncio.Protocol, 0o660)
    assert address.port > 0
    with pytest.raises(StartError, match=f"^Can't listen on http://127.0.0.1:{address.port}: .*in use$"):
        await open_listener(address, asyncio.Protocol, 0o660)
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
async def test_a_unix_socket_has_its_mode_and_goes_at_the_end(tmp_path, mode):
    before = os.umask(0o022)
    os.umask(before)
    listen = Listen(path=str(tmp_path / "x.sock"))
    listener, address = await open_listener(listen, asyncio.Protocol, mode)
    assert stat.S_IMODE((tmp_path / "x.sock").stat().st_mode) == mode
    assert (os.umask(before), address) == (before, listen)
    listener.close()
    await listener.wait_closed()
    remove_socket(address)
    remove_socket(address)  # twice is no fault
    assert not (tmp_path / "x.sock").exists()


async def test_what_is_in_a_sockets_place(tmp_path):
    """A socket nobody listens on is replaced; one in use, and any other file, is left alone."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener, _ = await open_listener(Listen(path=str(path)), asyncio.Protocol, 0o660)
    with pytest.raises(StartError, match="somebody listens there already"):
        await open_listener(Listen(path=str(path)), asyncio.Protocol, 0o660)
    listener.close()
    await listener.wait_closed()
    precious = tmp_path / "precious.txt"
    precious.write_text("data")
    with pytest.raises(StartError, match="in use"):
        await open_listener(Listen(path=str(precious)), asyncio.Protocol, 0o660)
    assert precious.read_text() == "data"
