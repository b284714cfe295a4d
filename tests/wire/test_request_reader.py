"""The rest of a request that has its answer: what is dropped of it, and whether the connection is kept.

How it is on sockets is in test_own_answers.py and test_downstream.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxy.relay.downstream.request_flow import READING, REFUSED, WAITING, RequestFlow
from proxy.wire.request_head import read_request_head


class Transport:
    def __init__(self, **info: Any) -> None:
        self.info, self.said = info, []

    def get_extra_info(self, name: str) -> Any:
        return self.info.get(name)

    def can_write_eof(self) -> bool:
        return not self.info.get("sslcontext")

    def write_eof(self) -> None:
        self.said.append("eof")

    def close(self) -> None:
        self.said.append("close")

    def is_closing(self) -> bool:
        return False


class Told:
    def __init__(self) -> None:
        self.tls: list[object] = []

    def tls_to_plain(self, sockname: object, now: float, way_out: str) -> None:
        self.tls.append(sockname)


def flow(**info: Any) -> Any:
    gateway = SimpleNamespace(
        cors=None, draining=False, wrong_protocol=Told(), outbox=SimpleNamespace(let_go=lambda: None),
        timeouts=SimpleNamespace(client_write_s=1.0),
    )  # fmt: skip
    made = RequestFlow(gateway)
    made.transport = Transport(**info)
    return made


HEAD = b"POST /x HTTP/1.1\r\nHost: g\r\n"


@pytest.mark.parametrize(
    ("extra", "length", "came", "phase", "keep", "rest"),
    [
        (b"", None, b"GET /", WAITING, True, b"GET /"),
        (b"Content-Length: 3\r\n", 3, b"abcGET /", WAITING, True, b"GET /"),
        (b"Content-Length: 3\r\n", 3, b"ab", READING, True, b""),
        (b"Content-Length: 65537\r\n", 65537, b"a", READING, True, b""),
        (b"Content-Length: 65538\r\n", 65538, b"a", READING, False, b""),
        (b"Content-Length: 3\r\nExpect: 100-continue\r\n", 3, b"", READING, False, b""),
        (b"Content-Length: 3\r\nExpect: 100-continue\r\n", 3, b"abc", WAITING, True, b""),
        (b"Transfer-Encoding: chunked\r\n", None, b"0\r\n\r\n", READING, False, b""),
        (b"Connection: close\r\n", None, b"", WAITING, False, b""),
    ],
)
def test_what_is_left_of_a_request(extra, length, came, phase, keep, rest):
    made = flow()
    head = made._head = read_request_head((HEAD + extra)[:-2])
    made._pass_over(head, length, b"head" + came, 4)
    assert (made._phase, made._may_keep(), made._buffer) == (phase, keep, rest)


def test_nothing_is_kept_while_the_gateway_stops():
    made = flow()
    head = made._head = read_request_head(HEAD[:-2])
    made._pass_over(head, None, b"", 0)
    assert made._may_keep()
    made.gateway.draining = True
    assert not made._may_keep()


@pytest.mark.parametrize(("info", "said"), [({}, ["eof"]), ({"sslcontext": 1}, [])])
def test_lingering(info, said):
    made = flow(**info)
    made._buffer = b"more"
    made._linger()
    assert (made._phase, made._buffer, made.transport.said) == (REFUSED, b"", said)


def test_tls_is_told_by_its_first_byte():
    made = flow(sockname=("h", 1))
    assert not made._ends_as_tls(b"GET / HTTP/1.1\r\n")
    assert not made._ends_as_tls(b"")
    assert made._ends_as_tls(b"\x16\x03")
    assert (made.transport.said, made.gateway.wrong_protocol.tls) == (["close"], [("h", 1)])
    within = flow(sslcontext=object())
    assert not within._ends_as_tls(b"\x16\x03")
