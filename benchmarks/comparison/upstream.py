"""What stands behind the proxies: the mock provider, and an nginx that ends TLS in front of it."""

from __future__ import annotations

import argparse
import fcntl
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from comparison import proc
from comparison.paths import BIN, ROOT

TLS = ROOT / "tls"
CA_FILE = TLS / "ca.pem"
TLS_NAME = "localhost"  # in the certificate beside 127.0.0.1: nginx compares names only
FRONT = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;
  keepalive_timeout 600s; keepalive_requests 100000000;
  client_max_body_size 100m; client_body_buffer_size 4m;
  upstream mock {{
    server 127.0.0.1:{upstream};
    keepalive 1024; keepalive_requests 100000000; keepalive_timeout 600s;
  }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {dir}/cert.pem;
    ssl_certificate_key {dir}/cert.key;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def locked(args: argparse.Namespace) -> Iterator[None]:
    """Nothing else on this machine that takes the same lock measures meanwhile."""
    if not args.lock:
        yield
        return
    with open(args.lock, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(f, fcntl.LOCK_UN)


def is_taken(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def ask(
    port: int,
    method: str,
    path: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 20,
) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Mock:
    """The mock provider, on the load's CPU."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.port = args.upstream_port
        self.helpers: list[int] = []
        if is_taken(self.port):
            raise SystemExit(f"port {self.port} is taken: another run? (--upstream-port, --base-port)")
        self.proc = subprocess.Popen(["taskset", "-c", str(args.load_cpu), BIN / "mock", str(self.port)])
        for _ in range(100):
            try:
                self.stats()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError("the mock did not start")

    def cpu_s(self) -> float:
        """Of the mock, and of what stands between it and the proxies."""
        return proc.cpu_s(proc.tree(self.proc.pid) + [p for pid in self.helpers for p in proc.tree(pid)])

    def stats(self) -> dict[str, int]:
        return json.loads(ask(self.port, "GET", "/__mock/stats")[1])

    def stop(self) -> None:
        self.proc.terminate()
        self.proc.wait()


class TlsFront:
    """nginx on the load's CPU, one port above the mock's, with a certificate made for this run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.port = tls_port(args)
        shutil.rmtree(TLS, ignore_errors=True)
        (TLS / "tmp").mkdir(parents=True)
        certify()
        config = TLS / "nginx.conf"
        config.write_text(FRONT.format(dir=TLS, port=self.port, upstream=args.upstream_port))
        if is_taken(self.port):
            raise RuntimeError(f"port {self.port} is taken")
        command = ["nginx", "-p", str(TLS), "-c", str(config), "-e", str(TLS / "error.log")]
        self.proc = subprocess.Popen(["taskset", "-c", str(args.load_cpu), *command])
        for _ in range(100):
            if is_taken(self.port):
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the TLS front did not start; see {TLS / 'error.log'}")

    def stop(self) -> None:
        self.proc.terminate()
        self.proc.wait()


def tls_port(args: argparse.Namespace) -> int:
    return args.upstream_port + 1


def certify() -> None:
    """A CA of our own, and a certificate of it for 127.0.0.1. Both are worthless in two days."""
    new = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]
    new += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    ca = [*new, "-subj", "/CN=benchmark CA", "-keyout", str(TLS / "ca.key"), "-out", str(CA_FILE)]
    ca += ["-addext", "keyUsage=critical,keyCertSign"]
    leaf = [*new, "-subj", "/CN=127.0.0.1", "-CA", str(CA_FILE), "-CAkey", str(TLS / "ca.key")]
    leaf += ["-addext", f"subjectAltName=IP:127.0.0.1,DNS:{TLS_NAME}"]
    leaf += ["-addext", "basicConstraints=critical,CA:FALSE"]
    leaf += ["-keyout", str(TLS / "cert.key"), "-out", str(TLS / "cert.pem")]
    for command in (ca, leaf):
        subprocess.run(command, check=True, capture_output=True)
