"""Addresses for people, and who can reach them."""

from __future__ import annotations

import pytest

from proxy.config.listen import is_local, show
from proxy.config.settings import Listen


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
