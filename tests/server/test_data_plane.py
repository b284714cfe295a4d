"""The data plane in one process; how it drains is in test_single.py."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from unittest.mock import Mock

import pytest

from proxy.access.accounts import Accounts
from proxy.access.accounts import memory_bytes as accounts_bytes
from proxy.config.parse import parse
from proxy.config.settings import Listen
from proxy.control.key_store import Keyring
from proxy.control.prepare import prepare, read_keys
from proxy.deployments.worker_sync import WorkerSync, memory_bytes
from proxy.relay.upstream.tcp_keepalive import DEAD_S
from proxy.routing.catalog import Catalog
from proxy.server.data_plane import DataPlane
from proxy.server.listeners import listen_on
from proxy.server.machine import usable_memory_bytes
from proxy.storage.ledger_files import Ledger
from tests.support.fakes import RawClient, until

TEXT = """
[server]
max_connections = 3
[providers.a]
base_url = "{url}"
auth = "none"
[models."a/m"]
"""


@pytest.fixture
async def two(provider):
    """Two planes of one machine, each on a socket of its own."""
    config = parse(TEXT.format(url=provider.url))
    prepared = prepare(config, read_keys(config, {}), 0)
    memory = memoryview(bytearray(memory_bytes(2)))
    accounts = memoryview(bytearray(accounts_bytes(2)))
    planes = []
    for index in range(2):
        catalog = Catalog(config, prepared.usable, 0)
        plane = DataPlane(
            config, catalog, prepared.providers, keyring=Keyring(), accounts=Accounts(accounts, 2, index),
            ledger=Ledger(None), knowledge=WorkerSync(memory, 2, index),
        )  # fmt: skip
        await plane.start()
        [[sock]], plane.address = await listen_on(Listen("127.0.0.1", 0), 0o600)
        await plane.accept(sock)
        planes.append(plane)
    yield planes
    for plane in planes:
        await plane.close()


async def ask(plane: DataPlane) -> tuple[RawClient, int]:
    client = await RawClient.to(plane.address)
    await client.post(b'{"model":"a/m"}')
    return client, (await client.response())[0]


def finished(plane: DataPlane) -> int:
    return plane.gateway.catalog.deployments["a/m"].row("chat", False).snapshot(0.0)["finished"]


async def test_what_one_learns_the_other_knows_and_probes_are_answered(two):
    one, other = two
    assert (await ask(one))[1] == 200
    await until(lambda: finished(other) == 1)
    assert (await ask(other))[1] == 200
    await until(lambda: finished(one) == finished(other) == 2)
    client = await RawClient.to(two[0].address)
    await client.send(b"GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await client.response())[0] == 200
    await asyncio.wait_for(two[0].drain(), 5)
    with pytest.raises(ConnectionRefusedError):
        await RawClient.to(two[0].address)


async def test_connections_are_limited_together(two):
    one, other = two
    clients = [await ask(one), await ask(one), await ask(other)]
    assert [status for _, status in clients] == [200] * 3
    await until(lambda: (one.gateway.connections_elsewhere, other.gateway.connections_elsewhere) == (1, 2))
    refused = await RawClient.to(other.address)
    status, _, body = await refused.response()
    assert (status, b"overloaded" in body) == (503, True)
    for client in (refused, *(client for client, _ in clients)):
        client.close()
    await until(lambda: not one.gateway.connections_elsewhere and not other.gateway.connections_elsewhere)
    assert (await ask(other))[1] == 200


async def test_what_may_be_held_is_limited_together(two):
    one, other = (plane.gateway for plane in two)
    assert one.max_buffered_bytes == min(usable_memory_bytes() // 4, 1 << 30)
    one.buffered_bytes = one.max_buffered_bytes
    await until(lambda: other.buffered_elsewhere)
    assert not other.is_full()
    other.buffered_bytes = 1
    await until(lambda: one.buffered_elsewhere)
    assert one.is_full() and other.is_full()
    one.buffered_bytes = other.buffered_bytes = 0
    await until(lambda: not (one.buffered_elsewhere or other.buffered_elsewhere))


@pytest.mark.interpreted
async def test_a_fault_in_sharing_stops_nothing(two, monkeypatch, caplog):
    one, other = two
    with caplog.at_level(logging.ERROR), monkeypatch.context() as patch:
        patch.setattr(one.gateway.knowledge, "step", Mock(side_effect=ValueError("nonsense")))
        await until(lambda: "exchanging samples with the other workers" in caplog.text)
        assert (await ask(one))[1] == 200
        await asyncio.sleep(0.1)
    assert caplog.text.count("exchanging samples with the other workers") == 1  # and not 50 times a second
    await until(lambda: finished(other) == 1)  # told when it works again


async def test_clients_that_vanish_are_noticed_as_the_configuration_says(two):
    plane, text = two[0], TEXT.format(url="http://127.0.0.1:1/v1")

    def limit_s() -> float:
        sock = plane._acceptors[0].sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000

    assert limit_s() == plane.gateway.timeouts.client_write_s == 120
    for given_s, taken_s in ((90, 90), (1, DEAD_S)):
        config = parse(f'{text}[timeouts]\nclient_write = "{given_s}s"\n')
        plane.gateway.adopt(config, plane.gateway.catalog, plane.gateway.providers)
        await until(lambda taken_s=taken_s: limit_s() == taken_s)


@pytest.mark.interpreted
async def test_after_a_standstill_what_has_come_is_read_before_anything_is_late(two):
    """Once: a gateway that is late at each tick has deadlines, too."""
    plane = two[0]
    plane._ticker.cancel()
    ticks: list[float] = []
    plane.gateway.tick = ticks.append
    for late_s, looks in ((0.5, True), (2.0, False), (2.0, True), (2.0, False), (0.0, True), (2.0, False)):
        ticks.clear()
        plane._tick_due = time.monotonic() - late_s
        plane._tick()
        plane._ticker.cancel()
        assert bool(ticks) is looks
    del plane.gateway.tick
    plane._tick()
