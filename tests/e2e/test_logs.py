"""The log of the installed program: its lines, its levels, and a reader that stops reading."""

from __future__ import annotations

import json
import signal
import socket

import pytest
import trustme

from tests.e2e import Gateway
from tests.e2e.asking import ask, text, wait_for

LEVELS = '\n[log]\nlevel = "{}"\n'


def lines(gateway: Gateway) -> list[dict]:
    return [json.loads(line) for line in gateway.log.splitlines()]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_into_a_file_it_is_one_json_object_a_line(tmp_path, workers):
    with Gateway(tmp_path, text() + LEVELS.format("info"), "--workers", workers) as gateway:
        assert ask(gateway, "p/none") == 404
    messages = [line["message"] for line in lines(gateway)]
    assert f"listening on {gateway.address}" in messages
    assert messages[-1] == "stopped"
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines(gateway))
    times = [line["time"] for line in lines(gateway) if "worker" not in line]
    assert times == sorted(times)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_levels_change_with_sighup_in_all_processes(tmp_path, workers):
    config = text('tls_cert = "c.pem"\ntls_key = "k.pem"') + LEVELS.format("info")
    made = trustme.CA().issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    made.private_key_pem.write_to_path(tmp_path / "k.pem")

    with Gateway(tmp_path, config, "--workers", workers) as gateway:

        def fail() -> set[object]:
            """Handshakes that fail, which is worth a line at level debug; which workers tell of some."""
            for _ in range(8):
                with socket.create_connection(gateway.host_and_port, 10) as client:
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    client.settimeout(10)
                    try:
                        client.recv(100)
                    except ConnectionResetError:
                        pass
            return {line.get("worker") for line in lines(gateway) if "handshake failed" in line["message"]}

        assert fail() == set()
        before = gateway.config.read_text()
        levels = 'level = "info"\nlevels = { "tokenhub.tls" = "debug" }'
        gateway.config.write_text(before.replace('level = "info"', levels))
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "changed: log.levels changed" in gateway.log)
        wait_for(lambda: fail() == ({None} if workers == "1" else {0, 1}))
        assert {line["level"] for line in lines(gateway) if line["logger"] == "tokenhub.tls"} == {"debug"}
