"""The installed program: start, signals, exit codes, and its commands against a running gateway."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy import __version__
from tests.e2e import ROOT, TOKENHUB, Gateway, environment, run, run_unread

TEXT = """
[server]
{server}
[providers.p]
base_url = "https://api.example.com/v1"
api_key_env = "P_API_KEY"
[models."p/m"]
input_price = 1
output_price = 1
[simulator]
mode = "{mode}"
"""


def text(server: str = "", mode: str = "always") -> str:
    return TEXT.format(server=server, mode=mode)


def request(
    gateway: Gateway, method: str, path: str, body: object = None, **headers: str
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*gateway.host_and_port, timeout=10)
    sent = json.dumps(body) if body is not None else None
    connection.request(method, path, sent, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    response.connection = connection  # lives as long as its response
    return response


def stream(gateway: Gateway, delay_ms: int, chunks: int) -> http.client.HTTPResponse:
    body = {"model": "p/m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    controls = {"x_sim_latency_ms": "0", "x_sim_delay_ms": str(delay_ms), "x_sim_chunks": str(chunks)}
    response = request(gateway, "POST", "/v1/chat/completions", body, **controls)
    assert response.status == 200
    assert response.readline().startswith(b"data: ")
    return response


def wait_for(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def close(*responses: http.client.HTTPResponse) -> None:
    for response in responses:
        response.connection.close()
        response.close()


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_stream_finish(tmp_path, number):
    with Gateway(tmp_path, text()) as gateway:
        response = stream(gateway, 20, 30)
        gateway.signal(number)
        wait_for(lambda: f"{number.name}: draining" in gateway.log)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(gateway.host_and_port, 5)
        rest = response.read()
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert rest.count(b"data: ") > 20
        close(response)
        assert gateway.wait() == 0
    assert gateway.log.rstrip().endswith("stopped")


def test_the_second_signal_ends_at_once(tmp_path):
    with Gateway(tmp_path, text()) as gateway:
        response = stream(gateway, 1000, 100)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: "draining" in gateway.log)
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert time.monotonic() - begun < 3
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
        close(response)


def test_drain_timeout_ends_what_does_not_end(tmp_path):
    with Gateway(tmp_path, text('drain_timeout = "200ms"')) as gateway:
        response = stream(gateway, 1000, 100)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        close(response)
    assert "drain_timeout is over: closing 1 connections" in gateway.log


def test_lame_duck_answers_503_at_readyz_and_serves(tmp_path):
    with Gateway(tmp_path, text('lame_duck = "500ms"')) as gateway:
        ready = request(gateway, "GET", "/readyz")
        assert ready.status == 200
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: "draining" in gateway.log)
        probe = request(gateway, "GET", "/readyz")
        assert probe.status == 503
        served = stream(gateway, 0, 3)
        assert b"[DONE]" in served.read()
        close(ready, probe, served)
        assert gateway.wait() == 0


def edit(gateway: Gateway, old: str, new: str) -> None:
    gateway.config.write_text(gateway.config.read_text().replace(old, new, 1))


def status(gateway: Gateway, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    response = request(gateway, "POST", "/v1/chat/completions", body, x_sim_latency_ms="0")
    response.read()
    close(response)
    return response.status


def test_sighup_reloads_and_ends_nothing(tmp_path):
    with Gateway(tmp_path, text() + '[aliases]\na = ["p/m"]\n') as gateway:
        running = stream(gateway, 20, 40)
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "SIGHUP: nothing to change" in gateway.log)
        edit(gateway, 'a = ["p/m"]', 'b = ["p/m"]  # new')
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "changed: alias b added, alias a removed" in gateway.log)
        assert (status(gateway, "b"), status(gateway, "a")) == (200, 404)
        assert running.read().rstrip().endswith(b"data: [DONE]")
        close(running)


def test_an_edited_file_is_taken_on_and_a_broken_one_is_not(tmp_path):
    with Gateway(tmp_path, text() + '[aliases]\na = ["p/m"]\n') as gateway:
        running = stream(gateway, 50, 60)
        edit(gateway, 'a = ["p/m"]', 'a = ["p/none"]\nb = 3')
        wait_for(lambda: "'b' must be" in gateway.log)
        assert "the configuration stays as it was" in gateway.log
        assert re.search(r"gateway\.toml:\d+:6: unknown model 'p/none'", gateway.log)
        assert status(gateway, "a") == 200
        edit(gateway, 'a = ["p/none"]\nb = 3', 'b = ["p/m"]')
        wait_for(lambda: "alias b added" in gateway.log)
        assert (status(gateway, "b"), status(gateway, "a")) == (200, 404)
        assert running.read().rstrip().endswith(b"data: [DONE]")
        close(running)


def test_an_idle_connection_does_not_hold_the_end_up(tmp_path):
    with Gateway(tmp_path, text()) as gateway, socket.create_connection(gateway.host_and_port, 5) as idle:
        alive = request(gateway, "GET", "/healthz")
        close(alive)
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert time.monotonic() - begun < 3
        assert idle.recv(1) == b""


# ---------------------------------------------------------------------- the admin API and its commands


def test_commands_that_ask_the_running_gateway(tmp_path):
    with Gateway(tmp_path, text() + '[aliases]  # names\na = ["p/m"]  # the one\n') as gateway:

        def tokenhub(*args: str) -> str:
            done = run(args[0], "--admin", gateway.admin, *args[1:], cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        before = gateway.config.read_text()
        assert status(gateway, "b") == 404
        assert tokenhub("aliases", "set", "b", "p/m", "--strategy", "cost") == "b: p/m\n"
        assert status(gateway, "b") == 200
        line = 'b = {models = ["p/m"], strategy = "cost"}\n'
        assert sorted(gateway.config.read_text().splitlines()) == sorted((before + line).splitlines())
        listed = tokenhub("aliases", "list").splitlines()
        assert [entry.split()[:3] for entry in listed[1:]] == [["a", "-", "p/m"], ["b", "cost", "p/m"]]
        assert tokenhub("explain", "b").splitlines()[2].startswith("→  p/m")
        assert tokenhub("routes").splitlines()[1].startswith("p/m")
        assert tokenhub("aliases", "remove", "b") == "b removed\n"
        assert gateway.config.read_text() == before
        assert status(gateway, "b") == 404
        failed = run("aliases", "--admin", gateway.admin, "remove", "none", cwd=tmp_path)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr == "tokenhub: 404: There is no alias 'none'.\n"


def test_watching_the_routes_ends_with_ctrl_c(tmp_path):
    with (
        Gateway(tmp_path, text()) as gateway,
        subprocess.Popen(
            [TOKENHUB, "routes", "--watch", "--admin", gateway.admin],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("MODEL")
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=10)
        assert (watching.returncode, err) == (0, "")


def test_an_admin_token_comes_from_the_configured_variable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = text() + f'[admin]\nlisten = "127.0.0.1:{port}"\ntoken_env = "MY_TOKEN"\n'
    with Gateway(tmp_path, config, MY_TOKEN="s3cret") as gateway:
        asked = ("routes", "--config", str(gateway.config))
        assert run(*asked, cwd=tmp_path, MY_TOKEN="s3cret").returncode == 0
        refused = run(*asked, cwd=tmp_path, MY_TOKEN="wrong")
        assert refused.returncode == 1
        assert refused.stderr.startswith("tokenhub: 401: the admin API at ")
        assert refused.stderr.endswith(" refuses the token of $MY_TOKEN: set $MY_TOKEN to the gateway's\n")
        assert "s3cret" not in gateway.log


# ---------------------------------------------------------------------- starts that fail


def fails(folder, config: str, *args: str, **environ: str) -> str:
    """Runs ``serve``, which has to fail; returns the last line of its stderr, which says why."""
    (folder / "x.toml").write_text(config)
    done = run("serve", "--config", "x.toml", *args, cwd=folder, **environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


def test_an_address_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = fails(tmp_path, text(), "--listen", address)
    assert line.startswith(f"tokenhub: Can't listen on http://{address}: ")
    assert "in use" in line


def test_an_admin_address_in_use_names_the_way_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = tmp_path / "gateway.sock"
        config = text(f'listen = ["unix:{path}"]') + f'[admin]\nlisten = "{address}"\n'
        line = fails(tmp_path, config)
    assert line.startswith(f"tokenhub: Can't listen on http://{address}: ")
    assert "[admin] listen" in line
    assert not path.exists()  # what had been opened is gone again


def test_a_public_address_is_closed_until_there_is_a_key(tmp_path):
    with Gateway(tmp_path, text(), "--listen", "0.0.0.0:0") as gateway:
        assert gateway.address.startswith("http://0.0.0.0:")
        body = {"model": "p/m", "messages": [{"role": "user", "content": "hi"}]}
        refused = request(gateway, "POST", "/v1/chat/completions", body)
        assert refused.status == 401
        close(refused)
        assert "tokenhub keys create" in gateway.log
    with Gateway(tmp_path, text() + "[auth]\nrequired = false\n", "--listen", "0.0.0.0:0") as gateway:
        served = request(gateway, "POST", "/v1/chat/completions", body, x_sim_latency_ms="0")
        assert served.status == 200
        close(served)


def test_a_key_that_is_none(tmp_path):
    line = fails(tmp_path, text(mode="never"), "--listen", "127.0.0.1:0", P_API_KEY="two words")
    assert "provider 'p'" in line
    assert "two words" not in line


def test_mistakes_in_the_file(tmp_path):
    assert re.match(r"(tokenhub: )?x\.toml:\d+:\d+: ", fails(tmp_path, text("max_bodi = 1")))


# ---------------------------------------------------------------------- what its user sees


def test_without_keys_the_products_own_file_serves_and_says_that_it_simulates(tmp_path):
    with Gateway(tmp_path, (ROOT / "routes.toml").read_text()) as gateway:
        ready = request(gateway, "GET", "/readyz")
        assert ready.status == 200
        close(ready)
    assert "SIMULATED" in gateway.log


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
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    routes = (ROOT / "routes.toml").read_text()
    assert "127.0.0.1:8080" in routes and "\n[admin]" not in routes
    routes = routes.replace("127.0.0.1:8080", f"127.0.0.1:{ports[0]}")
    (tmp_path / "routes.toml").write_text(f'{routes}\n[admin]\nlisten = "127.0.0.1:{ports[1]}"\n')
    return tmp_path, ports[0]


def test_the_readmes_first_command_can_be_given_twice(clone):
    folder, port = clone
    first = first_command(folder)
    assert first.returncode == 0, first.stderr
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
    assert (folder / "gateway.log.old").read_text().rstrip().endswith('"stopped"}')
    assert not list(folder.rglob("*.pid"))


def test_the_readmes_first_command_says_that_something_else_has_the_port(clone):
    folder, port = clone
    with socket.create_server(("127.0.0.1", port)):
        done = first_command(folder)
    assert done.returncode == 1
    assert f"\ntokenhub: Can't listen on http://127.0.0.1:{port}: " in done.stderr


def test_a_provider_without_a_key_is_named_in_the_log_and_no_key_ever_is(tmp_path):
    config = (
        text(mode="never") + '[providers.q]\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "Q_API_KEY"\n'
    )
    with Gateway(tmp_path, config, P_API_KEY="sk-very-secret") as gateway:
        unknown = request(
            gateway, "POST", "/v1/chat/completions", {"model": "x"}, Authorization="Bearer sk-client"
        )
        assert unknown.status == 404
        close(unknown)
    assert "provider q has no key" in gateway.log
    assert "secret" not in gateway.log
    assert "sk-client" not in gateway.log


def test_a_unix_socket(tmp_path):
    path = tmp_path / "gateway.sock"
    with Gateway(tmp_path, text(), "--listen", f"unix:{path}") as gateway:
        assert gateway.address == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert not path.exists()


def test_chat_through_it(tmp_path):
    with Gateway(tmp_path, text()) as gateway:
        done = run("chat", "m", "Hi?", "--url", gateway.address, "--wait", "5", cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.strip()
        assert re.search(
            r"\[provider p; model p/m; strategy \w+; TTFT \d+ ms; total [\d.]+ s; tokens \d+ in, \d+ out; S",
            done.stderr,
        )
        failed = run("chat", "nobody", "Hi?", "--url", gateway.address, cwd=tmp_path)
        assert failed.returncode == 1
        assert failed.stderr.startswith("tokenhub: 404: The model 'nobody' does not exist")


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
        [sys.executable, "-m", "proxy", "--version"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"tokenhub {__version__}\n")


def test_a_reader_that_stops_reading_is_no_fault(tmp_path):
    """``tokenhub models | head -1``: what is left is for nobody, and no traceback either."""
    config = str(ROOT / "routes.toml")
    done = run_unread(sys.executable, "-m", "proxy", "models", "--config", config, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
