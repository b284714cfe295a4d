"""A head that more is worked out for is read as any other."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest
from proxy.relay.upstream.known_head import read_known_head
from proxy.wire.request_head import read_request_head
from tests.support.heads import facts

HEAD = b"POST /v1/x?a=1 HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\nAuthorization: Bearer k\r\nX-Team: 1"


def test_it_is_read_as_any_other_and_nothing_is_known_yet():
    head = read_known_head(HEAD)
    assert facts(head) == facts(read_request_head(HEAD))
    assert (head.options, head.access, head.prepared, head.dropped, head.weight) == (None, None, {}, None, 0)


def test_it_is_refused_as_any_other():
    with pytest.raises(BadRequest):
        read_known_head(HEAD + b"\r\nContent-Length: 4")
