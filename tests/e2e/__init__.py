"""The installed program, run as its users run it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

TOKENHUB = str(Path(sys.executable).with_name("tokenhub"))
ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without keys of providers or settings of ours."""
    ours = ("_API_KEY", "TOKENHUB_")
    return {k: v for k, v in os.environ.items() if not any(part in k for part in ours)} | more


def run(*args: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``tokenhub`` to its end."""
    return subprocess.run(
        [TOKENHUB, *args], cwd=cwd, env=environment(**environ), capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def run_unread(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command whose output goes to a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment(), stdout=writing, stderr=subprocess.PIPE, text=True,
            timeout=20, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)


class Gateway:
    """``tokenhub serve`` in a process of its own, as a context.

    Leaving the context ends it with SIGTERM; it has to exit with 0, and without a traceback.

    :param within: a command that runs it, and becomes it.
    """

    def __init__(
        self, folder: Path, text: str, *args: str, within: tuple[str, ...] = (), **environ: str
    ) -> None:
        if "[admin]" not in text:
            text += '\n[admin]\nlisten = "127.0.0.1:0"\n'
        if "[log]" not in text:  # in which the tests read
            text += '\n[log]\nformat = "text"\n'
        self.config = config = folder / "gateway.toml"
        config.write_text(text)
        listen = () if "--listen" in args else ("--listen", "127.0.0.1:0")
        self._command = [*within, TOKENHUB, "serve", "--config", str(config), *listen, *args]
        self._environ = environment(**environ)
        self._folder = folder
        self._lines: list[str] = []
        self._listening = threading.Event()
        self.address = ""
        self.admin = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environ, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._listening.wait(60)  # a busy machine takes its time
        if not self.address:
            self.process.kill()
            self.wait()
            raise AssertionError(self.log)
        return self

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)
            said = json.loads(line)["message"] if line.startswith("{") else line
            if "admin API at" in said:
                self.admin = said.rsplit(maxsplit=1)[1]
            if "listening on" in said:
                self.address = said.rsplit(maxsplit=1)[1]
                self._listening.set()
        self._listening.set()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition("//")[2].rpartition(":")
        return host, int(port)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, limit_s: float = 20.0) -> int:
        """Its exit code."""
        code = self.process.wait(limit_s)
        self._reader.join(5)
        return code

    def kill(self) -> int:
        """End it with SIGKILL, where no context does; its exit code."""
        self.process.kill()
        code = self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise
        finally:
            if self.process.stderr is not None:
                self.process.stderr.close()
        assert code == 0, self.log
        assert "Traceback" not in self.log, self.log
