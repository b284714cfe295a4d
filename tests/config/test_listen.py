"""Addresses for people, and who can reach them."""

from __future__ import annotations

import pytest

from proxy.config.listen import is_local, show
from proxy.config.settings import Listen


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        *((Listen(host, 1), True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        (Listen(path="/run/x.sock"), True),
        *((Listen(host, 1), False) for host in ("0.0.0.0", "::", "10.0.0.1", "gateway", "")),
        (Listen("localhost.example.com", 1), False),
    ],
)
def test_is_local(listen, local):
    assert is_local(listen) is local


def test_show():
    assert show(Listen("127.0.0.1", 80)) == "http://127.0.0.1:80"
    assert show(Listen("::1", 80)) == "http://[::1]:80"
    assert show(Listen(path="/run/x.sock")) == "unix:/run/x.sock"
