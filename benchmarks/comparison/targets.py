"""A gateway under test: started on its CPU, checked, stopped."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from comparison import proc
from comparison.bodies import SIZES, body, stream_body
from comparison.paths import HARNESS, LOGS, ROOT, RUN
from comparison.scenarios import SCENARIOS, STREAM_CHECK
from comparison.specs import Spec, fill, is_direct
from comparison.upstream import CA_FILE, TLS_NAME, ask, is_taken, locked, tls_port

LOOPBACK = ("127.0.0.1", "::1")
STOP_S = 10


class Target:
    """
    :param port: the first of ten that are its own.
    """

    def __init__(self, name: str, spec: Spec, args: argparse.Namespace, port: int) -> None:
        self.name, self.args = name, args
        self.direct = is_direct(spec)
        self.port = args.upstream_port if self.direct else port
        self.dir = RUN / name
        values = {
            **spec.get("vars", {}),
            "PORT": self.port,
            "PORT2": port + 1,
            "UPSTREAM": f"http://127.0.0.1:{args.upstream_port}",
            "UPSTREAM_PORT": args.upstream_port,
            "TLS_PORT": tls_port(args),
            "TLS_NAME": TLS_NAME,
            "CA_FILE": CA_FILE,
            "DIR": self.dir,
            "ROOT": ROOT,
            "HARNESS": HARNESS,
            "PYTHON": sys.executable,
        }
        self.spec = fill(spec, values)
        self.path = self.spec.get("path", "/v1/chat/completions")
        self.model = self.spec.get("model", "mock-model")
        self.headers = self.spec.get("headers", {})
        self.proc: subprocess.Popen[bytes] | None = None
        self.info: dict[str, Any] = {"note": self.spec.get("note", "")}
        if "beside" in self.spec:
            self.info["beside"] = self.spec["beside"]

    def pids(self) -> list[int]:
        return proc.tree(self.proc.pid) if self.proc and self.proc.poll() is None else []

    def data(self, file: str) -> bytes:
        return (self.dir / file).read_bytes()

    def prepare(self) -> None:
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "tmp").mkdir(parents=True)
        for file, text in self.spec.get("files", {}).items():
            (self.dir / file).write_text(text)
        (self.dir / "headers").write_text("".join(f"{k}: {v}\n" for k, v in self.headers.items()))
        for size in SIZES:
            (self.dir / f"body-{size}").write_bytes(body(size, self.model))
        for name, scenario in SCENARIOS.items():
            if scenario.kind == "stream":
                data = stream_body(self.model, scenario.chunks, scenario.delay_ms)
                (self.dir / scenario.body_file(name)).write_bytes(data)

    def start(self) -> None:
        """To the first 200, and one request of each kind checked. :raises RuntimeError: it is not so."""
        self.prepare()
        try:
            if version := self.spec.get("version"):
                done = subprocess.run(version, check=False, capture_output=True, text=True)
                lines = (done.stdout or done.stderr).strip().splitlines()
                self.info["version"] = lines[-1] if lines else "?"
            if not self.direct:
                with locked(self.args):
                    self._launch()
        except FileNotFoundError as error:
            raise RuntimeError(f"not installed: {error.filename} is not there (see {LOGS})") from None
        self.check()
        if self.direct:
            return
        time.sleep(1)
        pids = self.pids()
        self.info["rss_idle_mb"] = proc.rss_mb(pids)
        self.info["processes"] = len(pids)
        self.info["threads"] = proc.threads(pids)

    def _launch(self) -> None:
        if is_taken(self.port):
            raise RuntimeError(f"port {self.port} is taken")
        env = {**os.environ, **{k: str(v) for k, v in self.spec.get("env", {}).items()}}
        begun = time.monotonic()
        with open(self.dir / "log", "wb") as log:
            self.proc = subprocess.Popen(
                ["taskset", "-c", str(self.args.proxy_cpu), *self.spec["start"]],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=env,
                cwd=self.spec.get("cwd", self.dir),
                start_new_session=True,
            )
        last = "no answer"
        while (status := self._first_answer()) != "200":
            last = status or last
            if self.proc.poll() is not None:
                raise RuntimeError(f"ended with {self.proc.returncode}: {self.tail()}")
            if time.monotonic() - begun > self.spec.get("ready_timeout_s", 60):
                raise RuntimeError(f"not ready, last: {last}: {self.tail()}")
            self._refuse_strangers()
            time.sleep(0.02)
        # What was true of an earlier start stays: a second one has warm caches.
        self.info.setdefault("startup_s", round(time.monotonic() - begun, 3))
        self.info.setdefault("startup_cpu_s", round(proc.cpu_s(self.pids()), 2))
        self._refuse_strangers()

    def _first_answer(self) -> str:
        try:
            status, data = ask(self.port, "POST", self.path, self.data("body-1k"), self.headers)
        except OSError as error:
            return repr(error)
        return "200" if status == 200 else f"{status} {data[:200]!r}"

    def _refuse_strangers(self) -> None:
        for address, port in proc.listeners(self.pids()):
            if address not in LOOPBACK:
                self.stop()
                raise RuntimeError(f"listens on {address}:{port}; only loopback is allowed: stopped")

    def check(self) -> None:
        """One request and one stream through the target, read as a client would."""
        status, data = ask(self.port, "POST", self.path, self.data("body-1k"), self.headers)
        if (
            status != 200
            or b"A reverse proxy" not in data
            or json.loads(data)["usage"]["total_tokens"] != 251
        ):
            raise RuntimeError(f"wrong answer: {status} {data[:300]!r}")
        stream = SCENARIOS[STREAM_CHECK]
        file = stream.body_file(STREAM_CHECK)
        status, data = ask(self.port, "POST", self.path, self.data(file), self.headers)
        marks = data.count(b"@T")
        if status != 200 or marks != stream.chunks or b"[DONE]" not in data:
            raise RuntimeError(f"wrong stream: {status}, {marks} chunks, ends with {data[-300:]!r}")
        self.info["stream_bytes_per_event"] = round(len(data) / data.count(b"data:"))
        for size in ("100k", "2m"):
            status, data = ask(self.port, "POST", self.path, self.data(f"body-{size}"), self.headers)
            if status != 200:
                self.info[f"body_{size}"] = f"{status} {data[:200]!r}"

    def tail(self) -> str:
        try:
            return self.data("log")[-600:].decode("utf8", "replace")
        except OSError:
            return ""

    def signal(self, number: int) -> None:
        if self.proc and self.proc.poll() is None:
            os.killpg(self.proc.pid, number)  # the process group made for it

    def stop(self) -> None:
        if not self.proc:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.proc.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.proc.wait(STOP_S)

    def restart(self) -> None:
        self.stop()
        self.start()
