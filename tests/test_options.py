"""What a head asks of the gateway."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest
from proxy.headers import read_request_head
from proxy.options import Options, read_options


def head(*lines: bytes):
    return read_request_head(b"\r\n".join((b"POST / HTTP/1.1", b"Host: g", *lines)))


def test_nothing_said():
    asked = head()
    assert read_options(asked) == Options(None, None)
    assert asked.options == Options(None, None)


def test_what_can_be_said():
    asked = head(b"X-Inferoute-Strategy: cost", b"x-inferoute-timeout: 2.5", b"X-Inferoute-Other: x")
    assert read_options(asked) == Options("cost", 2.5)
    assert read_options(head(b"Content-Encoding: identity", b"Expect: 100-continue")) == Options()


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (b"X-Inferoute-Strategy: fastest", 400, "cost, latency, availability, round-robin"),
        (b"X-Inferoute-Strategy: Cost", 400, "'Cost' is none"),
        (b"X-Inferoute-Strategy:", 400, "must be one of"),
        (b"X-Inferoute-Timeout: soon", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: 0", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: -1", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: nan", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: inf", 400, "seconds above 0"),
        (b"Content-Encoding: gzip", 400, "without Content-Encoding"),
        (b"Expect: the worst", 417, "100-continue"),
    ],
)
def test_what_cannot_be_followed(line, status, said):
    asked = head(line)
    with pytest.raises(BadRequest) as raised:
        read_options(asked)
    assert raised.value.status == status
    assert said in raised.value.message
    assert asked.options is None
