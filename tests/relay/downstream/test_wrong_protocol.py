"""Clients that speak TLS where there is none, or none where there is: the log's lines.

How it is on sockets is in test_downstream.py, test_listenertls.py and test_aiohttp_protocol.py.
"""

from __future__ import annotations

import pytest

from proxy.relay.downstream.wrong_protocol import QUIET_S, WrongProtocol


@pytest.mark.parametrize(
    ("sockname", "shown"),
    [
        (("127.0.0.1", 8080), "http://127.0.0.1:8080"),
        (("::1", 8080, 0, 0), "http://[::1]:8080"),
        ("/run/g.sock", "unix:/run/g.sock"),
        ("", "a Unix socket"),
        (None, "a Unix socket"),
    ],
)
def test_tls_to_a_plain_listener(caplog, sockname, shown):
    WrongProtocol().tls_to_plain(sockname, 100.0, "do that")
    text = f"a client speaks TLS to {shown}, which is plain HTTP: let it ask by http://, or do that"
    assert caplog.messages == [text]


def test_each_kind_is_told_once_a_minute(caplog):
    told = WrongProtocol()
    for now in (100.0, 100.0, 100.0 + 0.9 * QUIET_S):
        told.tls_to_plain(("h", 1), now, "do that")
        told.http_to_tls(["https://h:1", "https://i:2"], now)
    assert len(caplog.messages) == 2
    assert "plain HTTP to https://h:1 or https://i:2, which is TLS" in caplog.messages[1]
    told.tls_to_plain(("h", 1), 100.0 + QUIET_S, "do that")
    assert len(caplog.messages) == 3
