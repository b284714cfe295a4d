"""TLS on the data listener of the installed program: with real clients, and with several workers."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import openai
import pytest
import trustme

from tests.e2e import Gateway, free_port, run
from tests.e2e.asking import text, wait_for

TLS = 'tls_cert = "c.pem"\ntls_key = "k.pem"'
BODY = {"model": "p/m", "messages": [{"role": "user", "content": "hi"}]}
SLOW = {"x-sim-latency-ms": "0", "x-sim-delay-ms": "100", "x-sim-chunks": "15"}


class Files:
    """The gateway's certificate, and the authority in a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.issue()

    def issue(self) -> bytes:
        """Another one; returned as it is seen by clients."""
        made = self.authority.issue_cert("127.0.0.1")
        (self.folder / "c.pem").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        (self.folder / "k.pem").write_bytes(made.private_key_pem.bytes())
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture(params=["1", "2"])
def gateway(tmp_path, files, request):
    with Gateway(tmp_path, text(TLS), "--workers", request.param) as running:
        assert running.address.startswith("https://127.0.0.1:")
        yield running


def shown(gateway: Gateway, files: Files) -> bytes:
    """The certificate that the next connection gets."""
    with (
        socket.create_connection(gateway.host_and_port, 10) as raw,
        files.context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
    ):
        return secured.getpeercert(binary_form=True)


def ask(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run("chat", "p/m", "Hi", "--config", "gateway.toml", *args, cwd=folder)


def test_our_own_client(tmp_path, files):
    """It goes by the file of this machine, and takes its certificate and no other, by whatever name."""
    port = free_port()
    with Gateway(tmp_path, text(f'listen = ["127.0.0.1:{port}"]\n{TLS}'), "--listen", f"127.0.0.1:{port}"):
        answer = ask(tmp_path)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.strip()
        refused = ask(tmp_path, "--url", f"https://127.0.0.1:{port}")
        assert refused.returncode == 1
        assert "certificate" in refused.stderr
        other = files.authority.issue_cert("127.0.0.1").cert_chain_pems[0]
        other.write_to_path(str(tmp_path / "other.pem"))
        config = (tmp_path / "gateway.toml").read_text().replace('"c.pem"', '"other.pem"')
        (tmp_path / "client.toml").write_text(config)
        refused = ask(tmp_path, "--config", "client.toml")
        assert refused.returncode == 1
        assert "certificate" in refused.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(gateway, files):
    url = gateway.address + "/v1/chat/completions"
    base = ["curl", "-sS", "--cacert", files.ca, "--max-time", "20", "-H", "Content-Type: application/json"]
    big = json.dumps({**BODY, "padding": "x" * (2 << 20)})
    for body in (json.dumps(BODY), big, json.dumps({**BODY, "stream": True})):
        done = subprocess.run(
            [*base, "--data-binary", "@-", url, "-H", "x-sim-latency-ms: 0", "-H", "x-sim-delay-ms: 0"],
            input=body, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith("data: [DONE]") or json.loads(done.stdout)["choices"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl(gateway, files):
    host, port = gateway.host_and_port

    def connect(*more: str) -> subprocess.CompletedProcess[str]:
        where = ["-connect", f"{host}:{port}", "-CAfile", files.ca, "-alpn", "h2,http/1.1"]
        return subprocess.run(
            ["openssl", "s_client", *where, *more],
            input="GET /healthz HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        done = connect(version, "-ign_eof")
        assert "Verify return code: 0 (ok)" in done.stdout
        assert "ALPN protocol: http/1.1" in done.stdout
        assert f"{name}," in done.stdout.replace(":", ",")
        assert '{"status":"ok"}' in done.stdout
    assert connect("-tls1_1").returncode != 0


def test_a_new_certificate_by_sighup_reaches_all_workers(gateway, files):
    old = shown(gateway, files)
    client = openai.DefaultHttpxClient(verify=files.context)
    url, body = gateway.address + "/v1/chat/completions", {**BODY, "stream": True}
    with client, client.stream("POST", url, json=body, headers=SLOW) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        new = files.issue()
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "changed: the TLS certificate changed" in gateway.log)
        assert {shown(gateway, files) for _ in range(20)} == {new} != {old}
        assert [line for line in lines if line][-1] == "data: [DONE]"
    (files.folder / "c.pem").write_text("broken")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: "the configuration stays as it was" in gateway.log)
    wait_for(lambda: "tls_cert c.pem holds no certificate in PEM" in gateway.log)
    assert {shown(gateway, files) for _ in range(10)} == {new}
