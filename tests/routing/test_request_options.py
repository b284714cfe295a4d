"""What a head asks of the gateway."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest
from proxy.routing.request_options import Options, caller_of, read_options
from proxy.wire.request_head import read_request_head


def head(*lines: bytes):
    return read_request_head(b"\r\n".join((b"POST / HTTP/1.1", b"Host: g", *lines)))


def test_what_can_be_said_and_nothing():
    assert read_options(head()) == Options(None, None)
    asked = head(b"X-Inferoute-Strategy: cost", b"x-inferoute-timeout: 2.5", b"X-Inferoute-Other: x")
    assert read_options(asked) == Options("cost", 2.5)
    assert read_options(head(b"Content-Encoding: identity", b"Expect: 100-continue")) == Options()


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (
            b"X-Inferoute-Strategy: fastest",
            400,
            "Use cost, latency, throughput, availability, round-robin or order.",
        ),
        (b"X-Inferoute-Strategy: Cost", 400, "Unknown strategy 'Cost'"),
        (b"X-Inferoute-Strategy:", 400, "Unknown strategy ''"),
        (b"X-Inferoute-Timeout: soon", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: 0", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: -1", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: nan", 400, "seconds above 0"),
        (b"X-Inferoute-Timeout: inf", 400, "seconds above 0"),
        (b"X-Inferoute-Fallback:", 400, "commas between them"),
        (b"X-Inferoute-Fallback: a,,b", 400, "commas between them"),
        (b"X-Inferoute-Fallback: a,", 400, "commas between them"),
        (b"X-Inferoute-Fallback: \xff", 400, "commas between them"),
        (b"X-Inferoute-Fallback: 1,2,3,4,5,6,7,8,9", 400, "up to 8"),
        (b"Content-Encoding: gzip", 400, "without Content-Encoding"),
        (b"Content-Type: application/x-www-form-urlencoded", 415, "send Content-Type: application/json"),
        (b"Content-Type: application/json\r\ncontent-type: text/plain", 415, "once"),
        (b"Expect: the worst", 417, "100-continue"),
    ],
)
def test_what_cannot_be_followed(line, status, said):
    asked = head(line)
    with pytest.raises(BadRequest) as raised:
        read_options(asked)
    assert raised.value.status == status
    assert said in raised.value.message


def test_fallbacks_keep_their_order_over_all_lines():
    asked = head(b"X-Inferoute-Fallback: openai/gpt-4o ,economy", b"x-inferoute-fallback: caf\xc3\xa9")
    assert read_options(asked).fallbacks == ("openai/gpt-4o", "economy", "café")
    eight = b",".join(b"%d" % number for number in range(8))
    assert len(read_options(head(b"X-Inferoute-Fallback: " + eight)).fallbacks) == 8
    with pytest.raises(BadRequest, match="up to 8") as raised:
        read_options(head(b"X-Inferoute-Fallback: " + eight, b"X-Inferoute-Fallback: more"))
    assert (raised.value.code, raised.value.param) == ("invalid_fallback", "X-Inferoute-Fallback")


@pytest.mark.parametrize(
    ("sticky", "lines", "caller"),
    [
        ("key", [b"Authorization: Bearer th-1"], b"Bearer th-1"),
        ("key", [b"x-api-key: th-2"], b"th-2"),
        ("key", [], b""),
        ("header:x-user", [b"X-User:  7 "], b"7"),
        ("header:X-User", [b"x-user: 7"], b"7"),
        ("header:x-user", [b"X-User: 7", b"X-User: 8"], b"7"),
        ("header:x-user", [b"X-User-Id: 7"], b""),
        ("header:x-user", [b"X-User:"], b""),
        ("header:session_id", [b"Session_Id: 7"], b"7"),  # kept, though it never passes
        ("header:user-agent", [b"User-Agent: 7"], b"7"),
    ],
)
def test_who_calls(sticky, lines, caller):
    assert caller_of(head(*lines), sticky) == caller


def test_callers_with_other_credentials_differ():
    one, other = (head(b"Authorization: Bearer " + key, b"X-User: 7") for key in (b"th-1", b"th-2"))
    assert caller_of(one, "key") != caller_of(other, "key")
    assert caller_of(one, "header:x-user") == caller_of(other, "header:x-user")
