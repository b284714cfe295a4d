"""The commands at a real terminal, a pseudo one, and their examples, against a gateway that simulates."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.cli.test_main import ACTIONS, COMMANDS, examples
from tests.e2e import ROOT, TOKENHUB, Gateway, environment, run, run_unread
from tests.e2e.asking import stat_of, wait_for

ENTER, LEAVE, SHOW_CURSOR, HIDE_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h", "\x1b[?25l"
# A process that has the terminal as its own, so that ^C and ^Z do what they do; and SIGINT is not ignored.
_START = """if True:
    import os, signal, sys
    os.login_tty(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Terminal:
    """``tokenhub`` at a terminal of its own, as a context. ``text`` is all that it wrote."""

    def __init__(self, *args: str, cwd: Path, columns: int = 100, lines: int = 30, **environ: str) -> None:
        self._args = args
        self._cwd = cwd
        self._environ = environment(TERM="xterm-256color") | environ
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            if name not in environ:
                self._environ.pop(name, None)
        self._size = columns, lines
        self.text = ""

    def __enter__(self) -> Self:
        self._fd, child = pty.openpty()
        self.resize(*self._size)
        command = [sys.executable, "-c", _START, str(child), TOKENHUB, *self._args]
        self.process = subprocess.Popen(command, cwd=self._cwd, env=self._environ, pass_fds=[child])
        os.close(child)
        return self

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def read(self, limit_s: float = 0.05) -> bool:
        """Takes in what is there; False at the end."""
        if not select.select([self._fd], [], [], limit_s)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the child has closed it
            return False
        self.text += data.decode()
        return bool(data)

    def until(self, pattern: str, since: int = 0, limit_s: float = 20.0) -> re.Match[str]:
        deadline = time.monotonic() + limit_s
        while not (found := re.compile(pattern).search(self.text, since)):
            assert self.read(), f"it ended without {pattern!r}: {self.text!r}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text!r}"
        return found

    def wait(self, limit_s: float = 20.0) -> int:
        deadline = time.monotonic() + limit_s
        while self.read():
            assert time.monotonic() < deadline, self.text
        return self.process.wait(limit_s)

    def interrupted(self) -> int:
        """Its exit code after Ctrl-C."""
        self.type("\x03")
        return self.wait()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)


def bare(text: str) -> str:
    """Without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def is_as_before(text: str) -> bool:
    """The terminal shows what it showed, and its cursor."""
    return text.rfind(LEAVE) > text.rfind(ENTER) and text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)


@contextlib.contextmanager
def running(folder: Path, *, quick: bool = False) -> Iterator[None]:
    """A gateway with the product's own file, but on sockets in this folder.

    :param quick: providers take no time.
    """
    text = (ROOT / "routes.toml").read_text()
    if quick:
        none = 'headers = { x-sim-latency-ms = "0", x-sim-delay-ms = "0" }'
        text, count = re.subn(r"^base_url = .*$", rf"\g<0>\n{none}", text, flags=re.MULTILINE)
        assert count == 5
    text = text.replace('listen = ["127.0.0.1:8080"]', f'listen = ["unix:{folder}/g.sock"]')
    text += f'\n[admin]\nlisten = "unix:{folder}/a.sock"\n'
    (folder / "routes.toml").write_text(text)
    (folder / "headers.txt").write_text("User-Agent: example\n")
    (folder / "request.json").write_text('{"messages":[{"role":"user","content":"Hi"}]}')
    with Gateway(folder, text, "--listen", f"unix:{folder}/g.sock") as gateway:
        assert gateway.admin == f"unix:{folder}/a.sock"
        gateway.config.unlink()
        (folder / "gateway.toml").symlink_to("routes.toml")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Where such a gateway runs, which has no key."""
    folder = tmp_path_factory.mktemp("terminal")
    with running(folder):
        yield folder


# ---------------------------------------------------------------------- the examples in --help

QUICKER = {"200": "5", "30s": "1s", "100": "5"}


def test_examples_do_what_they_say(tmp_path):
    """All but those that stay (serve, simulate, --watch), from the same help texts that people read."""
    with running(tmp_path, quick=True):
        run_examples(tmp_path)


def run_examples(folder: Path) -> None:
    # Keys last: where there is one, the requests of the others need it.
    later = ("serve", "simulate", "groups", "keys", "aliases", "usage")
    paths = [[command] for command in COMMANDS if command not in later]
    paths += [[command, action] for command, actions in ACTIONS.items() for action in actions]
    paths += [["aliases"], ["usage"]]
    count = 0
    for path in paths:
        for example in examples(run(*path, "--help", cwd=folder).stdout):
            if "--watch" in example:
                continue
            argv = [QUICKER.get(word, word) if path == ["bench"] else word for word in example]
            done = subprocess.run(
                [TOKENHUB, *argv], cwd=folder, env=environment(), input="What is this?", capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (argv, done.stdout, done.stderr)
            assert done.stdout.strip(), argv
            assert "Traceback" not in done.stderr
            if "--json" in argv:
                json.loads(done.stdout)
            count += 1
    assert count >= 20
    refused = run("chat", "gpt-4o-mini", "Hi", cwd=folder)
    assert refused.returncode == 1
    assert refused.stderr.startswith("tokenhub: 401: ")
    assert refused.stderr.endswith(" (the key is taken from $TOKENHUB_API_KEY)\n")
    refused = run("bench", "gpt-4o-mini", "--requests", "1", cwd=folder)
    assert refused.returncode == 1
    assert "the key is taken from $TOKENHUB_API_KEY" in refused.stdout


# ---------------------------------------------------------------------- tables


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize(
    "command", ["routes", "models", "aliases list", "keys list", "usage", "explain balanced"]
)
def test_no_line_is_wider_than_the_terminal(folder, command, columns):
    with Terminal(*shlex.split(command), cwd=folder, columns=columns) as terminal:
        assert terminal.wait() == 0
    lines = bare(terminal.text).splitlines()
    if command.startswith("explain"):
        lines = lines[1:]  # a sentence, which the terminal wraps
    lines = [line for line in lines if not line.startswith("tokenhub: ")]  # so is this
    assert lines
    assert all(len(line) <= columns for line in lines), terminal.text


def test_colours_are_for_terminals_that_have_them(folder):
    def text_of(**environ: str) -> str:
        with Terminal("routes", cwd=folder, **environ) as terminal:
            assert terminal.wait() == 0
        return terminal.text

    plain = text_of(NO_COLOR="1")
    assert "\x1b" not in plain
    assert "\x1b" not in text_of(TERM="dumb")
    coloured = text_of()
    assert "\x1b[32mok\x1b[0m" in coloured
    columns = [line.split()[0] for line in plain.splitlines()]
    assert columns == [line.split()[0] for line in bare(coloured).splitlines()]


# ---------------------------------------------------------------------- routes --watch


@pytest.mark.parametrize("end", ["ctrl-c", "SIGTERM", "SIGHUP"])
def test_watching_leaves_the_terminal_as_it_was(folder, end):
    with Terminal("routes", "--watch", cwd=folder) as terminal:
        terminal.until("MODEL")
        first = terminal.until("; Ctrl-C ends it")
        terminal.until("; Ctrl-C ends it", first.end())  # and again
        assert ENTER in terminal.text
        assert not is_as_before(terminal.text)
        if end == "ctrl-c":
            assert terminal.interrupted() == 0
        else:
            terminal.process.send_signal(signal.Signals[end])
            assert terminal.wait() == 128 + signal.Signals[end]
    assert is_as_before(terminal.text)
    assert "Traceback" not in terminal.text


def test_a_window_of_another_size_is_drawn_anew(folder):
    with Terminal("routes", "--watch", cwd=folder, columns=100, lines=40) as terminal:
        terminal.until("IN FLIGHT")
        for columns, lines in ((40, 10), (20, 5), (120, 50)):
            terminal.read()
            since = len(terminal.text)
            terminal.resize(columns, lines)
            terminal.until("\x1b\\[H", since)
            terminal.until("meta/muse" if lines == 50 else "…", since)
            frame = terminal.text[terminal.text.index("\x1b[H", since) :]
            shown = bare(frame).split("\r\n")
            assert all(len(line) <= columns for line in shown[:lines]), frame
        assert terminal.interrupted() == 0
    assert is_as_before(terminal.text)


def test_it_can_be_suspended(folder):
    with Terminal("routes", "--watch", cwd=folder) as terminal:
        terminal.until("IN FLIGHT")
        terminal.type("\x1a")
        pid = terminal.process.pid
        wait_for(lambda: terminal.read() and stat_of(pid)[0] == "T")
        wait_for(lambda: terminal.read() and is_as_before(terminal.text))
        since = len(terminal.text)
        os.kill(pid, signal.SIGCONT)
        terminal.until(re.escape(ENTER), since)
        terminal.until("IN FLIGHT", since)
        assert terminal.interrupted() == 0
    assert is_as_before(terminal.text)


def test_a_gateway_that_is_restarted_while_it_is_watched(tmp_path):
    text = (ROOT / "routes.toml").read_text() + f'\n[admin]\nlisten = "unix:{tmp_path}/a.sock"\n'
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(tmp_path, text))
        terminal = stack.enter_context(Terminal("routes", "--watch", "--admin", gateway.admin, cwd=tmp_path))
        terminal.until("IN FLIGHT")
        gateway.signal(signal.SIGTERM)
        gateway.wait()
        found = terminal.until("as it was before: no gateway's admin API at")
        terminal.until("openai/gpt-4o", found.end())
        stack.enter_context(Gateway(tmp_path, text))
        terminal.read()
        since = len(terminal.text)
        deadline = time.monotonic() + 20
        while "as it was before" in terminal.text[since:] or "IN FLIGHT" not in terminal.text[since:]:
            since = max(since, terminal.text.rfind("\x1b[H"))
            assert terminal.read() and time.monotonic() < deadline
        assert terminal.interrupted() == 0


def test_watching_where_nothing_can_be_drawn_anew(folder):
    with Terminal("routes", "--watch", cwd=folder, TERM="dumb") as terminal:
        terminal.until("(?s)MODEL.*MODEL")
        assert terminal.interrupted() == 0
    assert "\x1b" not in terminal.text


# ---------------------------------------------------------------------- bench and chat


def test_bench_at_a_terminal(folder):
    with Terminal("bench", "gpt-4o-mini", "--requests", "10", cwd=folder) as terminal:
        terminal.until(r"\r[━─]{20} \d+/10  [\d.]+/s  0 failed  .*\d:\d\d\x1b\[K")
        assert terminal.wait(60) == 0
    last = terminal.text.rpartition("\r\x1b[K")[2]
    assert "0 of them failed" in last
    assert "nothing: all answers are SIMULATED" in last
    assert "P50" in last


@pytest.mark.parametrize(
    ("command", "meanwhile", "end"),
    [
        ("bench gpt-4o-mini --duration 1h --concurrency 2", r" [1-9]\d*  [\d.]+/s  0 failed",
         "ended early; 2 requests were under way and don't count"),
        ("chat gpt-4o-mini Tell", "This is", "\r\n"),
    ],
)  # fmt: skip
def test_what_is_interrupted_says_so(folder, command, meanwhile, end):
    with Terminal(*command.split(), cwd=folder) as terminal:
        terminal.until(meanwhile)
        assert terminal.interrupted() == 130
    assert end in terminal.text and terminal.text.endswith("\n")
    assert "Traceback" not in terminal.text


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("routes --admin http://127.0.0.1:1", 1, "no gateway's admin API at"),
        ("chat nobody Hi", 1, "404: The model 'nobody' does not exist"),
        ("explain balancd", 1, "Did you mean 'balanced'"),
        ("models --config /nowhere", 1, "can't read /nowhere"),
        ("rutes", 2, "did you mean 'routes'"),
    ],
)
def test_one_line_with_the_way_out_and_no_traceback(folder, command, code, said):
    for columns in ("20", "80"):
        done = run(*shlex.split(command), cwd=folder, COLUMNS=columns)
        assert done.returncode == code
        assert done.stdout == ""
        assert done.stderr.startswith("tokenhub")
        assert done.stderr.count("\n") == 1
        assert said in done.stderr


def test_without_a_configuration(tmp_path):
    for command in ("routes", "chat m Hi", "bench", "models", "check", "serve", "keys list", "explain m"):
        done = run(*shlex.split(command), cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "there is no routes.toml here" in done.stderr


def test_an_output_without_arrows(folder):
    """What a terminal's encoding can't say becomes a question mark."""
    done = run("explain", "balanced", cwd=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "?  " in done.stdout


@pytest.mark.parametrize("command", ["routes --json", "keys list", "chat gpt-4o-mini Hi"])
def test_a_reader_that_stops_reading(folder, command):
    done = run_unread(TOKENHUB, *shlex.split(command), cwd=folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
