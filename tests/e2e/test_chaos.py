"""The installed program on a machine where things go wrong: processes die, the database is locked or broken,
the disk is full, the clock is turned, no descriptors are left. Whoever is served then gets his own answer,
each finished answer has its line in the ledger, once, and all goes on by itself when the trouble is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import TOKENHUB, Gateway, environment, free_port, run
from tests.e2e.asking import is_running, processes, stat_of, wait_for, workers_of
from tests.e2e.clock import Machine
from tests.e2e.load import HOLD, SHUTTING_DOWN, Traffic, body_of, marked
from tests.e2e.one_provider import TEXT, asking, check, keys, lines, make_key, provider_of, statuses
from tests.support.fakes import Call

pytestmark = pytest.mark.long

LONG_S = 60.0  # for what may take its time on a busy machine


@pytest.fixture
def folder(tmp_path):
    with provider_of(marked) as url:
        (tmp_path / "gateway.toml").write_text(TEXT.format(url=url) + '[admin]\nlisten = "127.0.0.1:0"\n')
        yield tmp_path


def text_of(folder: Path) -> str:
    return (folder / "gateway.toml").read_text()


def have_more(traffic: Traffic, count: int = 20) -> None:
    """Wait until so many more answers have come."""
    before = len(traffic.finished)
    wait_for(lambda: len(traffic.finished) >= before + count, LONG_S)


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sorted(found)


# ---------------------------------------------------------------------- processes


def test_workers_killed_stopped_and_ended_at_random(folder):
    rng = random.Random(11)
    key = make_key(folder)
    acts = [signal.SIGSTOP] * 6 + [signal.SIGKILL] * 3 + [signal.SIGTERM]
    rng.shuffle(acts)
    with Gateway(folder, text_of(folder), "--workers", "3") as gateway:
        before = workers_of(gateway.process.pid)
        with Traffic(gateway.host_and_port, key) as traffic:
            have_more(traffic)
            opened = len(descriptors(gateway.process.pid))
            for act in acts:
                wait_for(lambda: len(workers_of(gateway.process.pid)) >= 2, LONG_S)
                victim = rng.choice(workers_of(gateway.process.pid))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, act)
                    time.sleep(rng.random() * 0.1)
                    if act == signal.SIGSTOP:
                        os.kill(victim, signal.SIGCONT)
                have_more(traffic, 10)
            wait_for(lambda: len(workers_of(gateway.process.pid)) == 3, LONG_S)
            wait_for(lambda: len(descriptors(gateway.process.pid)) <= opened, LONG_S)
            have_more(traffic)
        assert len(set(workers_of(gateway.process.pid)) & set(before)) < 3
        assert traffic.others.keys() <= {SHUTTING_DOWN}, traffic.others  # of the one that gets SIGTERM
        check(folder, traffic.finished)
        _nothing_is_held(gateway, key)
        wait_for(lambda: 'in_flight":0' in _routes(gateway), LONG_S)
    check(folder, traffic.finished)


def _routes(gateway: Gateway) -> str:
    done = run("routes", "--json", "--admin", gateway.admin, cwd=gateway.config.parent)
    return done.stdout.replace(" ", "")


def _nothing_is_held(gateway: Gateway, key: str) -> None:
    """Exactly as many requests at a time are let in as the key may have."""
    keys(gateway, "edit", "k", "--concurrency", "3")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(contextlib.closing(held(gateway, key)))
            assert connection.getresponse().status == 200
        assert statuses(gateway, key, 8) == {429: 8}
    wait_for(lambda: asking(gateway, key).status == 200, LONG_S)
    keys(gateway, "edit", "k", "--concurrency", "none")


def held(gateway: Gateway, key: str) -> http.client.HTTPConnection:
    """A stream without an end has been asked for."""
    connection = http.client.HTTPConnection(*gateway.host_and_port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", body_of(HOLD, stream=True), headers)
    return connection


def test_after_a_killed_supervisor_another_one_takes_over(folder):
    """Nothing is in its way: not its workers, nor a port, nor a lock."""
    key, finished = make_key(folder), []
    listen = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        gateway = Gateway(folder, text_of(folder), "--workers", "2", "--listen", listen).__enter__()
        workers = workers_of(gateway.process.pid)
        with Traffic(gateway.host_and_port, key) as traffic:
            have_more(traffic)
            gateway.process.kill()
            wait_for(lambda workers=workers: not any(map(is_running, workers)), LONG_S)
        assert gateway.kill() == -signal.SIGKILL
        assert traffic.others.keys() <= {SHUTTING_DOWN}, traffic.others
        finished += traffic.finished
    check(folder, finished)


# ---------------------------------------------------------------------- descriptors


def cpu_s(pid: int) -> float:
    return sum(map(int, stat_of(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def test_a_gateway_that_was_stopped_blames_nobody(tmp_path):
    """An answer that came meanwhile came in time, though the clock says otherwise when it goes on."""
    asked: list[bytes] = []
    may_answer = threading.Event()

    async def script(call: Call) -> None:
        asked.append((await call.request())[1])
        while not may_answer.is_set():
            await asyncio.sleep(0.01)
        await call.answer(b"{}")

    with provider_of(script) as url, contextlib.ExitStack() as stack:
        text = TEXT.format(url=url) + '[timeouts]\nfirst_byte = "4s"\ntotal = "4s"\n'
        gateway = stack.enter_context(Gateway(tmp_path, text, "--workers", "2"))
        serving = workers_of(gateway.process.pid)
        clients = [http.client.HTTPConnection(*gateway.host_and_port, timeout=LONG_S) for _ in range(8)]
        for client in clients:
            stack.callback(client.close)
            client.request("POST", "/v1/chat/completions", body_of("x"), {"Content-Type": "application/json"})
        wait_for(lambda: len(asked) == 8, 3)
        for pid in serving:
            os.kill(pid, signal.SIGSTOP)
        may_answer.set()
        time.sleep(5)
        for pid in serving:
            os.kill(pid, signal.SIGCONT)
        assert [client.getresponse().status for client in clients] == [200] * 8


def test_no_descriptors_are_left(folder):
    key = make_key(folder)
    with (
        Gateway(folder, text_of(folder), within=("prlimit", "--nofile=64")) as gateway,
        contextlib.ExitStack() as stack,
    ):
        # One that works all the while, on a connection that is there.
        old = stack.enter_context(contextlib.closing(held(gateway, key)))
        response = old.getresponse()
        assert response.status == 200
        with Traffic(gateway.host_and_port, key, 3) as traffic:
            have_more(traffic)
            flood = [stack.enter_context(socket.socket()) for _ in range(100)]
            for client in flood:
                client.connect_ex(gateway.host_and_port)
            have_more(traffic)
            wait_for(lambda: "can't be added up" in gateway.log, LONG_S)
            have_more(traffic)
        spent_s = cpu_s(gateway.process.pid)
        time.sleep(1.5)  # nobody asks for anything: a loop that goes round and round would take all of it
        assert cpu_s(gateway.process.pid) - spent_s < 0.75
        for client in flood:
            client.close()
        wait_for(lambda: asking(gateway, key).status == 200)
        assert statuses(gateway, key, 20) == {200: 20}
        assert not traffic.others, traffic.others
    check(folder, traffic.finished)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_standard_streams_that_are_closed_are_not_given_to_files(folder, workers):
    address = folder / "g.sock"
    command = [TOKENHUB, "serve", "--config", "gateway.toml", "--listen", f"unix:{address}"]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, "--workers", workers]
    process = subprocess.Popen(command, cwd=folder, env=environment())
    try:
        wait_for(lambda: address.exists() or process.poll() is not None, LONG_S)
        assert process.poll() is None
        for pid in (process.pid, *workers_of(process.pid)):
            assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {os.devnull}
    finally:
        process.terminate()
        assert process.wait(60) == 0


# ---------------------------------------------------------------------- the database


@contextlib.contextmanager
def locked(folder: Path, mode: str = "NORMAL") -> Iterator[None]:
    """Another process's transaction in the database; in mode EXCLUSIVE, nobody can even read."""
    code = (
        "import sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20);"
        f"d.execute('PRAGMA locking_mode = {mode}'); d.execute('BEGIN EXCLUSIVE');"
        "d.execute('DELETE FROM keys WHERE id = 0'); print(flush=True); sys.stdin.read()"
    )
    command, pipe = [sys.executable, "-c", code, str(folder / "t.db")], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline()
    try:
        yield
    finally:
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_start_beside_a_locked_database(folder):
    key = make_key(folder)
    with Gateway(folder, text_of(folder)) as gateway:
        assert asking(gateway, key).status == 200
    with locked(folder), Gateway(folder, text_of(folder)) as gateway:
        assert "restored the last run's live figures; models: 1" in gateway.log
        assert asking(gateway, key).status == 200
    with locked(folder, "EXCLUSIVE"):
        done = run("serve", "--config", "gateway.toml", "--listen", "127.0.0.1:0", cwd=folder)
        assert done.returncode == 1
        assert "t.db can't be used: database is locked" in done.stderr
        assert "remove" not in done.stderr
    assert len(lines(folder)) == 2


# ---------------------------------------------------------------------- the disk

# The folder, on a disk of its own that is gone with the process.
_ON_A_DISK = """
mount -t tmpfs -o size=1m tmpfs /mnt && cp -a "$0/." /mnt/ && mount --bind /mnt "$0" && cd "$0" && exec "$@"
"""


def on_a_disk(folder: Path) -> tuple[str, ...]:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here")
    return "unshare", "--mount", "sh", "-c", _ON_A_DISK, str(folder)


def fill(disk: Path) -> Path:
    """Take all room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk(folder, tmp_path_factory, workers):
    key = make_key(folder)
    made = Gateway(folder, text_of(folder), "--workers", workers, within=on_a_disk(folder))
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(made)
        inside = os.open(f"/proc/{gateway.process.pid}/root{folder}", os.O_DIRECTORY)
        stack.callback(os.close, inside)
        disk = Path(f"/proc/self/fd/{inside}")
        with Traffic(gateway.host_and_port, key, 3) as traffic:
            have_more(traffic)
            ballast = fill(disk)
            wait_for(lambda: "lines wait in memory" in gateway.log, LONG_S)
            have_more(traffic)
            routes = (disk / "gateway.toml").read_bytes()
            done = run("keys", "create", "--name", "n", "--admin", gateway.admin, cwd=folder)
            assert done.returncode == 1
            assert "full" in done.stderr
            done = run("aliases", "--admin", gateway.admin, "set", "fast", "p/m", cwd=folder)
            assert done.returncode == 1
            assert "No space left on device" in done.stderr
            assert (disk / "gateway.toml").read_bytes() == routes
            assert [name for name in os.listdir(disk) if name.startswith(".")] == []
            have_more(traffic)
            fill(disk)
            have_more(traffic)
            ballast.unlink()
            waited = gateway.log.count("lines wait in memory")
            wait_for(lambda: gateway.log.count("can be written again") >= waited, LONG_S)
            have_more(traffic)
        assert not traffic.others, traffic.others
        assert not traffic.lost
        assert keys(gateway, "create", "--name", "n")
        keys(gateway, "revoke", "n")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        copy = tmp_path_factory.mktemp("copy") / "disk"

        shutil.copytree(disk, copy)
    with contextlib.closing(sqlite3.connect(copy / "t.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.execute('DELETE FROM keys WHERE settings LIKE \'%"name":"n"%\'')
        database.commit()
    check(copy, traffic.finished)


# ---------------------------------------------------------------------- the clock

HOUR = 3600.0
DAY = 24 * HOUR


def _is_sane(answer: http.client.HTTPResponse, unix_s: float) -> bool:
    """The minute goes by a clock that is not turned, and may be over. What is told as a date follows the
    other within a tenth of a second."""
    assert answer.status in (200, 429)
    assert 1 <= int(answer.headers.get("Retry-After", "1")) <= 60
    return abs(float(answer.headers["X-RateLimit-Reset-Requests"]) - unix_s) < 600


def test_the_clock_is_turned(folder):
    machine = Machine(folder)
    with Gateway(folder, text_of(folder), **machine.environ) as gateway:
        key = keys(gateway, "create", "--name", "k", "--rpm", "1000000000")
        minute = keys(gateway, "create", "--name", "minute", "--rpm", "5")
        month = keys(gateway, "create", "--name", "month", "--monthly-tokens", "600")
        brief = keys(gateway, "create", "--name", "brief", "--expires", "7d")
        real = time.time()
        assert [asking(gateway, month).status for _ in range(3)] == [200] * 3
        assert statuses(gateway, brief, 1) == {200: 1}
        assert statuses(gateway, minute, 7) == {200: 5, 429: 2}
        with contextlib.closing(held(gateway, key)) as old, Traffic(gateway.host_and_port, key, 3) as traffic:
            assert old.getresponse().status == 200
            machine.turn_clock(real + 40 * DAY)
            wait_for(lambda: _is_sane(asking(gateway, minute), real + 40 * DAY), LONG_S)
            assert asking(gateway, month).status == 200
            for by in (DAY, 0.0, -HOUR, 40 * DAY, 0.0, -40 * DAY, 0.0):
                machine.turn_clock(real + by)
                have_more(traffic, 10)
                wait_for(lambda by=by: _is_sane(asking(gateway, minute), real + by), LONG_S)
                wait_for(lambda by=by: asking(gateway, brief).status == (401 if by > 7 * DAY else 200))
            assert not traffic.others, traffic.others
            assert not traffic.lost
        # Three were had in this month, and one more reaches the limit: where the clock was is no gift.
        assert [asking(gateway, month).status for _ in range(3)] == [200, 402, 402]
    values = [value for line in lines(folder) for value in line.values()]
    assert all(value >= 0 for value in values if isinstance(value, (int, float)))


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_at_any_moment_of_the_start(folder, workers):
    rng = random.Random(12)
    for _ in range(6):
        process = subprocess.Popen(
            [TOKENHUB, "serve", "--config", "gateway.toml", "--listen", "127.0.0.1:0", "--workers", workers],
            cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        time.sleep(rng.random() * 2.0)
        for _ in range(rng.choice((1, 2))):
            process.terminate()
        said = process.communicate(timeout=60)[1]
        assert process.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in said
        wait_for(lambda process=process: not processes(3, process.pid), LONG_S)
