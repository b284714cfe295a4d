"""The processes around a measurement: the gateway, the scripted provider, and a client who is honest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from turns.answers import serve_provider
from turns.setup import TOKEN, Setup

READY_S = 120.0
STOP_S = 10.0
# An honest request now and then: enough for a percentile, too few to be a load.
PACE_S = 0.005


class Gateway:
    """The gateway, and what its event loop's turns take."""

    def __init__(self, setup: Setup, *, pin: bool) -> None:
        self.is_compiled = False
        self.ready_s = 0.0
        self._setup = setup
        self._pin = pin
        self._process: subprocess.Popen[str]
        self._log = (setup.folder / "gateway.log").open("wb")

    def __enter__(self) -> Gateway:
        setup, begun_s = self._setup, time.monotonic()
        program = str(Path(__file__).with_name("gateway.py"))
        self._process = subprocess.Popen(
            [sys.executable, program, str(setup.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "TURNS_ADMIN_TOKEN": TOKEN},
        )
        if self._pin:
            os.sched_setaffinity(self._process.pid, {0})
        try:
            self.is_compiled = bool(self._told()["is_compiled"])
            while not _listens(setup.port) or not _listens(setup.admin_port):
                if time.monotonic() - begun_s > READY_S or self._process.poll() is not None:
                    raise RuntimeError(f"the gateway does not start:\n{self.log()}")
                time.sleep(0.05)
        except BaseException:
            self._process.kill()
            raise
        time.sleep(1.0)
        self.ready_s = time.monotonic() - begun_s
        return self

    def log(self) -> str:
        """The end of what it has written."""
        return (self._setup.folder / "gateway.log").read_text(errors="replace")[-4000:]

    def is_alive(self) -> bool:
        """It still runs."""
        return self._process.poll() is None

    def begin(self) -> None:
        """Measure from here."""
        self._order("begin")

    def end(self) -> tuple[float, float]:
        """Milliseconds of CPU: of the longest turn, and of all."""
        self._order("end")
        told = self._told()
        return told["longest_ms"], told["cpu_ms"]

    def _order(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway has ended:\n{self.log()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


class Victim:
    """A client who sends small requests on one connection, in a process of its own."""

    def __init__(self, setup: Setup, *, pin: bool) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_be_victim, args=(theirs, setup.port, setup.secrets[0], setup.names[-1], pin), daemon=True
        )

    def __enter__(self) -> Victim:
        self._process.start()
        self.start()
        self.stop()
        return self

    def start(self) -> None:
        """Begin to send."""
        self._pipe.send("start")
        assert self._pipe.recv() == "started"

    def stop(self) -> list[float]:
        """For how many milliseconds each request since the start has waited for its answer."""
        self._pipe.send("stop")
        waits: list[float] = self._pipe.recv()
        return waits

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def _be_victim(pipe: Connection, port: int, secret: str, model: str, pin: bool) -> None:
    if pin:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    body = b'{"model":"%b","messages":[{"role":"user","content":"hello"}]}' % model.encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (secret.encode(), len(body), body)
    )
    sock = socket.create_connection(("127.0.0.1", port))
    while pipe.recv() == "start":
        pipe.send("started")
        waits = []
        while not pipe.poll():
            begun_s = time.perf_counter()
            try:
                sock.sendall(request)
                answer = b""
                while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                    data = sock.recv(65536)
                    if not data:
                        raise ConnectionResetError
                    answer += data
            except OSError:
                sock = socket.create_connection(("127.0.0.1", port))
            waits.append((time.perf_counter() - begun_s) * 1e3)
            time.sleep(PACE_S)
        assert pipe.recv() == "stop"
        pipe.send(waits)


@contextmanager
def provider_process() -> Iterator[int]:
    """The scripted provider while it runs; its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_be_provider, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _be_provider(pipe: Connection) -> None:
    asyncio.run(serve_provider(pipe.send))
