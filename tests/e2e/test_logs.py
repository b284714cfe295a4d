"""The log of the installed program: its lines, its levels, and a reader that stops reading."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess

import pytest
import trustme

from tests.e2e import TOKENHUB, Gateway, environment
from tests.e2e.test_installed import request, text, wait_for
from tests.e2e.test_workers import ask
from tests.support.fakes import post

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


def test_a_reader_that_stops_reading_does_not_stop_the_gateway(tmp_path):
    """Its pipe is as small as can be, and each request is worth a line."""
    config = tmp_path / "gateway.toml"
    address = str(tmp_path / "g.sock")
    body = b'{"model":"p/m"}'
    dead = text(mode="never").replace("https://api.example.com", "http://127.0.0.1:1")
    config.write_text(dead + '[admin]\nlisten = ""\n[state]\npath = ":memory:"\n')
    process = subprocess.Popen(
        [TOKENHUB, "serve", "--config", str(config), "--listen", f"unix:{address}"],
        stderr=subprocess.PIPE, env=environment(P_API_KEY="k"),
    )  # fmt: skip
    assert process.stderr is not None
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    wait_for(lambda: os.path.exists(address))
    with socket.socket(socket.AF_UNIX) as client:
        wait_for(lambda: client.connect_ex(address) in (0, 106))
        client.settimeout(10)
        for _ in range(300):  # a warning each, and more: several times what the pipe holds
            client.sendall(post(body))
            answer = b""
            while b"\r\n\r\n{" not in answer:
                answer += client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 503 ")
    process.terminate()
    said = process.stderr.read().decode()  # now somebody reads, and nothing is missing
    assert process.wait(20) == 0
    assert sum("tokenhub.provider" in line for line in said.splitlines()) >= 300
    process.stderr.close()


def test_nothing_of_a_request_is_logged(tmp_path):
    with Gateway(tmp_path, text() + LEVELS.format("debug")) as gateway:
        body = {"model": "p/m", "messages": [{"role": "user", "content": "PR0MPT"}]}
        response = request(gateway, "POST", "/v1/chat/completions", body, Authorization="Bearer S3CRET")
        response.read()
        response.connection.close()
    assert gateway.log
    assert "PR0MPT" not in gateway.log
    assert "S3CRET" not in gateway.log
