"""The kernel's watch over connections; what it does to peers that vanish is in e2e/test_network.py."""

from __future__ import annotations

import socket

from proxy.relay.upstream.tcp_keepalive import DEAD_S, allow_stalls, enable


def options(sock: socket.socket) -> tuple[int, ...]:
    tcp = socket.IPPROTO_TCP
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(tcp, socket.TCP_KEEPIDLE),
        sock.getsockopt(tcp, socket.TCP_KEEPINTVL),
        sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
    )


def test_what_a_listening_socket_is_told_holds_for_those_it_accepts():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        enable(listening, 33.5)
        with socket.create_connection(listening.getsockname()) as client:
            accepted, _ = listening.accept()
            with accepted:
                assert options(accepted) == (1, 10, 2, 33_500)
            enable(client)
            assert options(client) == (1, 10, 2, 20_000)


def test_a_peer_that_may_keep_its_window_shut_is_still_asked_for_a_sign_of_life():
    with socket.socket() as sock:
        enable(sock)
        allow_stalls(sock)
        assert options(sock) == (1, 10, 2, 0)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 5


def test_a_packet_that_is_lost_ends_nothing():
    with socket.socket() as sock:
        enable(sock)
        _, idle_s, every_s, _ = options(sock)
        assert idle_s + 4 * every_s < DEAD_S


def test_a_unix_socket_has_no_peer_that_could_vanish():
    with socket.socket(socket.AF_UNIX) as sock:
        enable(sock)
        allow_stalls(sock)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
