"""Who may connect: counting by connection and by address. How it is on sockets is in test_hygiene.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxy.config.settings import ServerConfig, TimeoutsConfig
from proxy.relay.downstream import connection_limits as door_module
from proxy.relay.downstream.connection_limits import ConnectionLimits, client_of


class Transport:
    def __init__(self, host: str = "192.0.2.1", sock: Any = None) -> None:
        self.info = {"peername": (host, 1), "socket": sock}
        self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return self.info[name]

    def abort(self) -> None:
        self.aborted = True


def gateway(most: int = 100, per_client: int = 0, *, elsewhere: int = 0, draining: bool = False) -> Any:
    server = ServerConfig(max_connections=most, max_connections_per_client=per_client)
    return SimpleNamespace(
        config=SimpleNamespace(server=server), timeouts=TimeoutsConfig(), connections_elsewhere=elsewhere,
        draining=draining,
    )  # fmt: skip


def enter(door: ConnectionLimits, connection: Any, gateway: Any, transport: Any = None) -> str:
    error = door.enter(
        connection, transport or Transport(), gateway.config.server, gateway.connections_elsewhere,
        gateway.draining,
    )  # fmt: skip
    if error is None:
        return ""
    assert (error.status, error.code, error.retry_after_s, error.close) == (503, "overloaded", 1, True)
    return error.message


def test_all_together():
    door = ConnectionLimits(set())
    assert enter(door, 1, gateway(2)) == ""
    assert "Too many connections" in enter(door, 2, gateway(2, elsewhere=1))
    assert door.count() == 2  # it is there until it has gone
    assert "Too many connections" in enter(door, 3, gateway(2))
    door.leave(2)
    door.leave(3)
    assert enter(door, 4, gateway(2)) == ""
    assert "shutting down" in enter(door, 5, gateway(draining=True))


def test_those_above_the_limit_are_told_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(door_module, "MAX_TOLD", 2)
    door = ConnectionLimits(set())
    for number, is_told in ((1, True), (2, True), (3, True), (4, False)):
        transport = Transport()
        assert bool(enter(door, number, gateway(1), transport)) is (number > 1)
        assert transport.aborted is not is_told


def test_from_one_address():
    door = ConnectionLimits(set())
    for number in range(2):
        assert enter(door, number, gateway(per_client=2)) == ""
    assert "max_connections_per_client is 2" in enter(door, 2, gateway(per_client=2))
    assert enter(door, 3, gateway(per_client=2), Transport("192.0.2.2")) == ""
    door.leave(2)  # it was never counted
    assert enter(door, 4, gateway(per_client=2)) != ""
    door.leave(0)
    assert enter(door, 5, gateway(per_client=2)) == ""
    assert enter(door, 6, gateway(per_client=2)) != ""
    door.leave(5)
    assert enter(door, 7, gateway(per_client=2)) == ""
    for number in (1, 3, 4, 6, 7):
        door.leave(number)
    assert (door._inside, door._count, door.count()) == ({}, {}, 0)


def test_a_limit_that_comes_and_goes():
    door = ConnectionLimits(set())
    assert enter(door, 1, gateway()) == ""  # not counted
    assert enter(door, 2, gateway(per_client=1)) == ""
    assert enter(door, 3, gateway()) == ""
    assert enter(door, 4, gateway(per_client=1)) != ""
    for number in (1, 2, 3, 4):
        door.leave(number)
    assert (door._inside, door._count) == ({}, {})


def test_by_a_unix_socket_nobody_is_told_apart():
    door = ConnectionLimits(set())
    transport = Transport()
    transport.info["peername"] = ""
    for number in range(3):
        assert enter(door, number, gateway(per_client=1), transport) == ""


@pytest.mark.parametrize(
    ("host", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%lo", "fe80::2", True),
    ],
)
def test_who_is_one_client(host, other, is_same):
    assert (client_of((host, 1)) == client_of((other, 2, 0, 0))) is is_same
    assert client_of(None) == client_of("") == b""
