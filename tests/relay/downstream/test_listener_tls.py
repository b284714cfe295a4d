"""Handshakes of clients; what is seen on sockets is in tests/system/test_listenertls.py."""

from __future__ import annotations

import ssl

import pytest

from proxy.relay.downstream.listener_tls import listener_tls
from tests.support.certificates import files, made


def test_a_listeners_certificate_is_replaced_and_its_handshakes_are_counted(tmp_path):
    first, second = made(files(tmp_path)), made(files(tmp_path))
    listener = listener_tls(first, lambda: 2, lambda: b"")
    a, b = (listener.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True) for _ in range(2))
    assert (a.context, b.context, len(listener.handshakes)) == (first, first, 2)
    with pytest.raises(ConnectionRefusedError):
        listener.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    del a  # however it ended
    listener.current = second
    c = listener.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert c.context is second
