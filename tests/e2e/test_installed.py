"""The installed program: start, signals, exit codes, and its commands against a running gateway."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy import __version__
from tests.e2e import ROOT, TOKENHUB, Gateway, environment, free_port, run
from tests.e2e.asking import ask, close, fetch, is_running, is_whole, stream, text, wait_for, workers_of

# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_stream_finish(tmp_path, number):
    with Gateway(tmp_path, text()) as gateway, socket.create_connection(gateway.host_and_port, 5) as idle:
        response = stream(gateway, 20, 30)
        gateway.signal(number)
        wait_for(lambda: f"{number.name}: draining" in gateway.log)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(gateway.host_and_port, 5)
        assert is_whole(response)
        begun = time.monotonic()
        assert gateway.wait() == 0
        assert time.monotonic() - begun < 3  # what is idle does not hold the end up
        assert idle.recv(1) == b""
    assert gateway.log.rstrip().endswith("stopped")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_second_signal_ends_at_once(tmp_path, workers):
    with Gateway(tmp_path, text(), "--workers", workers) as gateway:
        serving = workers_of(gateway.process.pid)
        response = stream(gateway, 1000, 100)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: "draining" in gateway.log)
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert time.monotonic() - begun < 5
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
        close(response)
        assert not any(map(is_running, serving))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_lame_duck_answers_503_at_readyz_and_serves(tmp_path, workers):
    with Gateway(tmp_path, text('lame_duck = "2s"'), "--workers", workers) as gateway:
        assert fetch(gateway, "GET", "/readyz").status == 200
        running = [stream(gateway, 50, 20) for _ in range(6)]
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: fetch(gateway, "GET", "/readyz").status == 503)
        assert all(map(is_whole, [stream(gateway, 0, 3), *running]))
        assert gateway.wait() == 0
    assert workers_of(gateway.process.pid) == []


def edit(gateway: Gateway, old: str, new: str) -> None:
    gateway.config.write_text(gateway.config.read_text().replace(old, new, 1))


def test_an_edited_file_is_taken_on_by_itself_or_by_sighup_and_a_broken_one_is_not(tmp_path):
    with Gateway(tmp_path, text() + '[aliases]\na = ["p/m"]\n') as gateway:
        running = stream(gateway, 50, 100)
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "SIGHUP: nothing to change" in gateway.log)
        edit(gateway, 'a = ["p/m"]', 'a = ["p/none"]\nb = 3')
        wait_for(lambda: "'b' must be" in gateway.log)
        assert "the configuration stays as it was" in gateway.log
        assert re.search(r"gateway\.toml:\d+:6: unknown model 'p/none'", gateway.log)
        assert ask(gateway, "a") == 200
        edit(gateway, 'a = ["p/none"]\nb = 3', 'b = ["p/m"]')
        wait_for(lambda: "alias b added" in gateway.log)
        assert (ask(gateway, "b"), ask(gateway, "a")) == (200, 404)
        edit(gateway, 'b = ["p/m"]', 'c = ["p/m"]')
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "changed: alias c added, alias b removed" in gateway.log)
        assert is_whole(running)


# ---------------------------------------------------------------------- the admin API and its commands


@pytest.mark.parametrize("workers", ["1", "2"])
def test_commands_that_ask_the_running_gateway(tmp_path, workers):
    config = text() + '[aliases]  # names\na = ["p/m"]  # the one\n'
    with Gateway(tmp_path, config, "--workers", workers) as gateway:

        def tokenhub(*args: str) -> str:
            done = run(args[0], "--admin", gateway.admin, *args[1:], cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        before = gateway.config.read_text()
        assert ask(gateway, "b") == 404
        assert tokenhub("aliases", "set", "b", "p/m", "--strategy", "cost") == "b: p/m\n"
        assert {ask(gateway, "b") for _ in range(8)} == {200}  # by whatever worker
        line = 'b = {models = ["p/m"], strategy = "cost"}\n'
        assert sorted(gateway.config.read_text().splitlines()) == sorted((before + line).splitlines())
        listed = tokenhub("aliases", "list").splitlines()
        assert [entry.split()[:3] for entry in listed[1:]] == [["a", "-", "p/m"], ["b", "cost", "p/m"]]
        assert tokenhub("explain", "b").splitlines()[2].startswith("→  p/m")
        assert tokenhub("routes").splitlines()[1].startswith("p/m")
        assert tokenhub("aliases", "remove", "b") == "b removed\n"
        assert gateway.config.read_text() == before
        assert ask(gateway, "b") == 404
        failed = run("aliases", "--admin", gateway.admin, "remove", "none", cwd=tmp_path)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr == "tokenhub: 404: There is no alias 'none'.\n"


# ---------------------------------------------------------------------- starts that fail


def fails(folder, config: str, *args: str, **environ: str) -> str:
    """Runs ``serve``, which has to fail; returns the last line of its stderr, which says why."""
    (folder / "x.toml").write_text(config)
    done = run("serve", "--config", "x.toml", *args, cwd=folder, **environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_in_use_names_the_way_out(tmp_path, workers):
    """Though several workers share a port, two gateways do not."""
    path = tmp_path / "gateway.sock"
    with Gateway(tmp_path, text(), "--workers", workers) as gateway:
        for count in ("1", "2"):
            line = fails(tmp_path, text(), "--listen", gateway.address[7:], "--workers", count)
            assert line.startswith(f"tokenhub: Can't listen on {gateway.address}: ")
            assert "in use" in line
        config = text(f'listen = ["unix:{path}"]') + f'[admin]\nlisten = "{gateway.address[7:]}"\n'
        line = fails(tmp_path, config)
    assert line.startswith(f"tokenhub: Can't listen on {gateway.address}: ")
    assert "[admin] listen" in line
    assert not path.exists()  # what had been opened is gone again


def test_mistakes_in_a_key_and_in_the_file(tmp_path):
    line = fails(tmp_path, text(mode="never"), "--listen", "127.0.0.1:0", P_API_KEY="two words")
    assert "provider 'p'" in line
    assert "two words" not in line
    assert re.match(r"(tokenhub: )?x\.toml:\d+:\d+: ", fails(tmp_path, text("max_bodi = 1")))


# ---------------------------------------------------------------------- what its user sees


def first_command(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the README's first command does when all is installed."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- start command -->\n```sh\n(.*)\n```\n<!-- end -->", readme)
    assert found and found[1] == "python3 -m venv .venv && .venv/bin/pip install . && deploy/try.sh"
    return subprocess.run(
        ["deploy/try.sh"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture
def clone(tmp_path) -> tuple[Path, int]:
    """A folder with what the README's first command needs, and the port that its gateway is to have."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(TOKENHUB).parent)
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/try.sh", tmp_path / "deploy")
    ports = free_port(), free_port()
    routes = (ROOT / "routes.toml").read_text()
    assert "127.0.0.1:8080" in routes and "\n[admin]" not in routes
    routes = routes.replace("127.0.0.1:8080", f"127.0.0.1:{ports[0]}")
    (tmp_path / "routes.toml").write_text(f'{routes}\n[admin]\nlisten = "127.0.0.1:{ports[1]}"\n')
    return tmp_path, ports[0]


def test_the_readmes_first_command_can_be_given_twice(clone):
    folder, port = clone
    first = first_command(folder)
    assert first.returncode == 0, first.stderr
    assert "SIMULATED" in (folder / "gateway.log").read_text()
    starting, *answer, running = first.stdout.splitlines()
    assert (starting, bool(answer)) == ("Starting the gateway; its log is gateway.log.", True)
    told = re.fullmatch(r"The gateway keeps running\. To stop it: kill (\d+)", running)
    assert told
    pid = int(told[1])
    try:
        second = first_command(folder)
        assert (second.returncode, second.stdout) == (1, starting + "\n")
        what, why, *ways_out = second.stderr.splitlines()
        assert (what, len(ways_out)) == ("It did not start:", 2)
        assert why.startswith(f"tokenhub: Can't listen on http://127.0.0.1:{port}: ")
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    log = folder / "gateway.log"  # the second start left the file of the gateway that ran
    assert log.read_text().rstrip().endswith('"stopped"}')
    assert list(folder.glob("gateway.log*")) == [log]
    assert not list(folder.rglob("*.pid"))


def test_the_readmes_first_command_says_that_something_else_has_the_port(clone):
    folder, port = clone
    with socket.create_server(("127.0.0.1", port)):
        done = first_command(folder)
    assert done.returncode == 1
    assert f"\ntokenhub: Can't listen on http://127.0.0.1:{port}: " in done.stderr


def test_the_other_commands(tmp_path):
    assert run("--version", cwd=tmp_path).stdout == f"tokenhub {__version__}\n"
    assert run("nonsense", cwd=tmp_path).returncode == 2
    assert run("models", cwd=tmp_path).returncode == 1  # no file here
    found = run("models", cwd=tmp_path, TOKENHUB_CONFIG=str(ROOT / "routes.toml"))
    assert (found.returncode, "openai/gpt-4o" in found.stdout) == (0, True)
    checked = run("check", str(ROOT / "routes.toml"), cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--version"], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"tokenhub {__version__}\n")
