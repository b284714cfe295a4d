"""The installed program with several workers: signals, deaths and changes under load."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e import TOKENHUB, Gateway, run
from tests.e2e.test_installed import close, request, stream, text, wait_for

WORKERS = ("--workers", "2")


def workers_of(pid: int) -> list[int]:
    """The child processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(folder.name))
    return sorted(found)


def status(gateway: Gateway, method: str, path: str, body: object = None, **headers: str) -> int:
    """Of an answer, on a connection of its own."""
    response = request(gateway, method, path, body, **headers)
    response.read()
    close(response)
    return response.status


def ask(gateway: Gateway, model: str = "p/m") -> int:
    """The status of a small request."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return status(gateway, "POST", "/v1/chat/completions", body, x_sim_latency_ms="0", x_sim_delay_ms="0")


def is_whole(response: http.client.HTTPResponse) -> bool:
    """Whether a stream comes to its end."""
    whole = response.read().endswith(b"data: [DONE]\n\n")
    close(response)
    return whole


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Load:
    """Clients that ask one request after the other, each on its connection, until they are told to stop.

    ``outcomes``: statuses, and "lost" for a connection that broke with a request in it.
    """

    def __init__(self, gateway: Gateway, clients: int = 8, model: str = "p/m") -> None:
        self.outcomes: Counter[object] = Counter()
        self._stop = threading.Event()
        self._address = gateway.host_and_port
        self._model = model
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def _ask(self) -> None:
        body = json.dumps({"model": self._model, "messages": [{"role": "user", "content": "hi"}]})
        headers = {"Content-Type": "application/json", "x-sim-latency-ms": "5", "x-sim-delay-ms": "0"}
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(*self._address, timeout=10)
                connection.request("POST", "/v1/chat/completions", body, headers)
                response = connection.getresponse()
                response.read()
                self.outcomes[response.status] += 1
            except (OSError, http.client.HTTPException):
                self.outcomes["lost"] += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.01)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.outcomes[200] > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()


@pytest.fixture
def gateway(tmp_path):
    with Gateway(tmp_path, text(), *WORKERS) as running:
        yield running


def test_a_killed_worker_loses_only_what_was_open_there(gateway):
    with Load(gateway) as load:
        before = workers_of(gateway.process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(workers_of(gateway.process.pid)) - set(before)) == 1)
        at_that_time = load.outcomes[200]
        wait_for(lambda: load.outcomes[200] > at_that_time + 200)
    assert load.outcomes["lost"] <= 8  # one for each client at the most
    assert set(load.outcomes) <= {200, "lost"}


def test_a_change_under_load_is_atomic_and_drops_nothing(gateway):
    gateway.config.write_text(gateway.config.read_text() + '[aliases]\nswitch = ["p/m"]\n')
    wait_for(lambda: status(gateway, "GET", "/v1/models/switch") == 200)
    with Load(gateway, model="switch") as load:
        for number in range(20):
            written = gateway.config.read_text().split("[aliases]")[0]
            gateway.config.write_text(f'{written}[aliases]\nswitch = ["p/m"]\nn{number} = ["p/m"]\n')
            gateway.signal(signal.SIGHUP)
            time.sleep(0.05)
        wait_for(lambda: status(gateway, "GET", "/v1/models/n19") == 200)
    assert set(load.outcomes) == {200}


def test_sigterm_under_load_finishes_what_runs_and_exits_with_0(tmp_path):
    with Gateway(tmp_path, text('lame_duck = "500ms"'), *WORKERS) as gateway:
        running = [stream(gateway, 50, 20) for _ in range(6)]
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: status(gateway, "GET", "/readyz") == 503)
        for response in running:
            assert is_whole(response)
        assert gateway.wait() == 0
    assert workers_of(gateway.process.pid) == []


def test_a_second_signal_ends_at_once(tmp_path):
    with Gateway(tmp_path, text(), *WORKERS) as gateway:
        workers = workers_of(gateway.process.pid)
        response = stream(gateway, 1000, 60)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: "draining" in gateway.log)
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert time.monotonic() - begun < 5.0
        close(response)
        assert not any(map(is_running, workers))


def test_ctrl_c_at_a_terminal_goes_to_all_and_drains(tmp_path):
    with Gateway(tmp_path, text(), *WORKERS) as gateway:
        response = stream(gateway, 50, 10)
        for pid in [*workers_of(gateway.process.pid), gateway.process.pid]:
            os.kill(pid, signal.SIGINT)
        assert is_whole(response)
        assert gateway.wait() == 0


@pytest.fixture
def provider():
    """The simulator in a process of its own: the built-in one ends with the supervisor. Its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen([TOKENHUB, "simulate", "--port", str(port)], stdout=subprocess.DEVNULL)

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return False
        return True

    wait_for(listens)
    yield f"http://127.0.0.1:{port}/p/v1"
    process.terminate()
    process.wait(10)


def test_workers_outlive_a_killed_supervisor_for_what_runs(tmp_path, provider):
    config = text(mode="never").replace("https://api.example.com/v1", provider)
    gateway = Gateway(tmp_path, config, *WORKERS, P_API_KEY="k")
    gateway.__enter__()
    workers = workers_of(gateway.process.pid)
    running = [stream(gateway, 50, 20) for _ in range(4)]
    gateway.process.kill()
    for response in running:
        assert is_whole(response)
    wait_for(lambda: not any(map(is_running, workers)))
    assert gateway.wait() == -signal.SIGKILL
    assert gateway.log.count("the supervisor has died: draining") == 2
    assert gateway.process.stderr is not None
    gateway.process.stderr.close()


def test_the_admin_api_speaks_for_all_workers(gateway, tmp_path):
    for _ in range(6):  # each on a connection of its own
        assert ask(gateway) == 200
    admin = ("--admin", gateway.admin)
    wait_for(lambda: " 6 " in run("routes", *admin, cwd=tmp_path).stdout)
    done = run("aliases", *admin, "set", "fast", "p/m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {ask(gateway, "fast") for _ in range(12)} == {200}
    assert "fast" in gateway.config.read_text()
    assert "p/m" in run("explain", "fast", *admin, cwd=tmp_path).stdout


def test_a_port_is_not_shared_with_a_gateway_started_twice(gateway, tmp_path):
    address = gateway.address.removeprefix("http://")
    for count in ("1", "2"):
        done = run(
            "serve", "--config", str(gateway.config), "--listen", address, "--workers", count, cwd=tmp_path
        )
        assert done.returncode == 1
        assert f"Can't listen on http://{address}" in done.stderr


@pytest.mark.parametrize("count", ["1", "2"])
def test_systemd_is_told(tmp_path, count):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with Gateway(tmp_path, text(), "--workers", count, **told) as gateway:
            assert systemd.recv(100) == b"READY=1"
            gateway.signal(signal.SIGHUP)
            assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"STOPPING=1"


def test_what_was_learned_is_there_after_a_restart(tmp_path, provider):
    config = text(mode="never").replace("https://api.example.com/v1", provider)

    def rows() -> str:
        return run("routes", "--admin", gateway.admin, cwd=tmp_path).stdout

    for attempt, count in enumerate(("2", "1", "2")):
        with Gateway(tmp_path, config, "--workers", count, P_API_KEY="k") as gateway:
            if attempt == 0:
                assert ask(gateway) == 200
            wait_for(lambda: "100.0%" in rows() and " 1 " in rows())
