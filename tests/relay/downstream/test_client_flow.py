"""Pausing and closing, with a transport that notes what is done to it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from proxy.config.settings import TimeoutsConfig
from proxy.relay.downstream.client_flow import CLOSED, REFUSED, ClientFlow
from proxy.relay.downstream.resume_queue import ResumeQueue
from proxy.relay.exchange.client import NEVER
from proxy.relay.exchange.head_cache import HeadCache
from proxy.relay.exchange.outbox import WriteBatch


class Transport:
    def __init__(self, **info: object) -> None:
        self.did: list[str] = []
        self.closing = False
        self.info = info

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> object:
        return self.info.get(name)

    def can_write_eof(self) -> bool:
        return "sslcontext" not in self.info

    def __getattr__(self, name: str):
        return lambda *_: self.did.append(name)


class Told:
    def __init__(self) -> None:
        self.tls: list[object] = []

    def tls_to_plain(self, sockname: object, now: float, way_out: str) -> None:
        self.tls.append(sockname)


def flow(**info: object) -> ClientFlow:
    outbox = WriteBatch([].append)
    turns: list[Callable[[], None]] = []
    rest = ResumeQueue(outbox.turn, turns.append)
    gateway = SimpleNamespace(
        timeouts=TimeoutsConfig(), outbox=outbox, resume_queue=rest, turns=turns,
        draining=False, heads=HeadCache(), wrong_protocol=Told(),
    )  # fmt: skip
    made = ClientFlow(gateway)  # type: ignore[arg-type]
    made.transport = Transport(**info)  # type: ignore[assignment]
    return made


def test_the_earliest_wish_counts():
    client = flow()
    assert client.wake_at == NEVER
    for when, expected in ((5.0, 5.0), (7.0, 5.0), (3.0, 3.0)):
        client.wake_by(when)
        assert client.wake_at == expected


def test_pausing_twice_is_pausing_once():
    client = flow()
    for pause in (False, True, True, False, False):
        client.pause_reading(pause)
    assert client.transport.did == ["pause_reading", "resume_reading"]
    assert client.resumed_at > 0
    client.transport.closing = True
    client.pause_reading(True)
    assert client.is_paused is False


def test_what_is_sent_overtakes_nothing():
    client = flow()
    client.send_soon(b"a", 1.0)
    client.send_soon(b"b", 1.0)
    assert client.transport.did == ["write"]
    client.send(b"c")
    assert client.transport.did == ["write"] * 3
    client.send_soon(b"d", 1.0)
    client.close()
    assert client.transport.did == ["write"] * 4 + ["close"]


def test_closing_has_a_limit():
    client = flow()
    client.close()
    assert client.transport.did == ["close"]
    assert client.wake_at < NEVER
    client.reset()
    assert client.transport.did == ["close", "abort"]


def test_a_rest_ends_with_the_turn_unless_reading_is_paused_for_another_reason():
    for paused_before, paused_within, resumed_within, expected in (
        (False, False, False, ["pause_reading", "resume_reading"]),
        (True, False, False, ["pause_reading"]),
        (False, True, False, ["pause_reading"]),
        (True, False, True, ["pause_reading", "resume_reading"]),
        (False, True, True, ["pause_reading", "resume_reading"]),
    ):
        client = flow()
        client.pause_reading(paused_before)
        client.rest()
        client.rest()
        if paused_within:
            client.pause_reading(True)
        if resumed_within:
            client.pause_reading(False)
        assert client.transport.did == ["pause_reading"]
        [end] = client.gateway.turns
        end()
        end()
        assert client.transport.did == expected
        client.pause_reading(False)
        assert client.transport.did == ["pause_reading", "resume_reading"]
        assert not client.is_resting


def test_a_closing_connection_does_not_rest():
    client = flow()
    client.transport.closing = True
    client.rest()
    assert (client.gateway.turns, client.transport.did) == ([], [])


@pytest.mark.parametrize(
    ("lines", "keeps"), [(b"", True), (b"Connection: close\r\n", False), (b"Expect: 100-continue\r\n", False)]
)
def test_a_connection_is_kept_where_the_rest_of_a_request_can_be_dropped(lines, keeps):
    client = flow()
    assert not client.keeps_alive()  # of no request
    client.reader.read_head(b"POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n%b\r\n" % lines)
    assert not client._may_keep()
    client._drop_body()
    assert client._may_keep() is keeps
    client.gateway.draining = True
    assert not client._may_keep()


@pytest.mark.parametrize(("info", "did"), [({}, ["write_eof"]), ({"sslcontext": 1}, [])])
def test_lingering(info, did):
    client = flow(**info)
    client.reader.unread = b"more"
    client._linger()
    assert (client._phase, client.reader.unread, client.transport.did) == (REFUSED, b"", did)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"", b"\x16\x03"])
def test_tls_is_told_by_its_first_byte(data):
    client, within = flow(sockname=("h", 1)), flow(sslcontext=object())
    client.reader.unread = within.reader.unread = data
    is_tls = data.startswith(b"\x16")
    assert (client._ends_as_tls(), within._ends_as_tls()) == (is_tls, False)
    assert client.gateway.wrong_protocol.tls == [("h", 1)] * is_tls
    assert (client._phase == CLOSED) is is_tls
