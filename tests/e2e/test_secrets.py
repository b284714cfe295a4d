"""Secrets of the running program: in no log, file, page, argument or environment where they don't belong, in
no core of a process that crashes, and in no file that others can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import Gateway, run
from tests.e2e.test_installed import wait_for
from tests.e2e.test_workers import workers_of
from tests.support.fakes import Script, ScriptedProvider, answers

KEY_A, KEY_B, TOKEN, HOOK = "sk-alpha-0123456789", "sk-beta-9876543210", "s3cret-admin-token", "h00k-secret"
COLLECTOR, HEADER, COOKIE, PROMPT = "c0llector-token", "h3ader-secret", "c00kie", "PR0MPT"
USAGE = (
    b'{"choices":[{"message":{"content":"C0MPLETION"}}],"usage":{"prompt_tokens":9,"completion_tokens":5}}'
)
TEXT = """
[server]
workers = {workers}
[admin]
listen = "127.0.0.1:0"
token_env = "MY_TOKEN"
[state]
path = "t.db"
[alerts]
webhook_url = "{b}/{hook}"
[traces]
enabled = true
endpoint = "{collector}"
[log]
level = "debug"
[providers.a]
base_url = "{a}"
api_key_env = "A_SECRET"
headers = {{ "x-team" = "{header}" }}
[providers.b]
base_url = "{b}"
auth = "x-api-key"
api_key_file = "b.key"
[models."a/m"]
input_price = 1
output_price = 1
[models."b/m"]
input_price = 100
output_price = 100
[aliases]
two = {{ models = ["a/m", "b/m"], strategy = "cost" }}
"""
ENVIRONMENT = {
    "A_SECRET": KEY_A,
    "MY_TOKEN": TOKEN,
    "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector={COLLECTOR}",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
}


class Providers:
    """Some of them, in a thread; each notes what it gets."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.made: list[ScriptedProvider] = []

    def __enter__(self) -> list[ScriptedProvider]:
        self._started, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(20)
        return self.made

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for script in self._scripts:
                self.made.append(await stack.enter_async_context(ScriptedProvider()))
                self.made[-1].script = script
            self._started.set()
            await asyncio.to_thread(self._ended.wait)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20)


def gateway_of(folder: Path, workers: int, a: str, b: str, collector: str) -> Gateway:
    (folder / "b.key").write_text(KEY_B + "\n")
    (folder / "b.key").chmod(0o600)
    text = TEXT.format(workers=workers, a=a, b=b, collector=collector, hook=HOOK, header=HEADER)
    return Gateway(folder, text, **ENVIRONMENT)


def admin(
    gateway: Gateway, method: str, path: str, body: object = None, accept: str = "*/*"
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(gateway.admin.rpartition("//")[2], timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": accept}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    text = repr(response.getheaders()) + response.read().decode()
    connection.close()
    return response.status, text


def ask(gateway: Gateway, key: str, model: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*gateway.host_and_port, timeout=60)
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "Cookie": COOKIE}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    answer = response.read()
    text = repr(response.getheaders()) + ("" if answer == USAGE else answer.decode())
    connection.close()
    return response.status, text


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("workers", [1, 2])
def test_secrets_are_nowhere_but_where_they_belong(tmp_path, workers):
    """With everything on: failover, a ledger, traces, alerts, the log at its most talkative."""
    scripts = answers(b"{}", b"401 Look"), answers(USAGE), answers(b"")
    with Providers(*scripts) as (a, b, collector):
        with gateway_of(tmp_path, workers, a.url, b.url, collector.url.removesuffix("/v1")) as gateway:
            made = run(
                "keys", "create", "--name", "k", "--admin", gateway.admin, "--config", str(gateway.config),
                cwd=tmp_path, MY_TOKEN=TOKEN,
            )  # fmt: skip
            assert made.returncode == 0, made.stderr
            key = made.stdout.strip()
            told = [ask(gateway, key, model) for model in ("two", "two", "a/m", "a/m", "b/m", "nope")]
            told += [ask(gateway, wrong, "two") for wrong in ("th-" + "x" * 43, KEY_A, TOKEN)]
            assert {status for status, _ in told} == {200, 502, 404, 401}
            pages = [
                "routes",
                "aliases",
                "keys",
                "requests",
                "usage?by=key,model,provider,day",
                "openapi.json",
            ]
            told += [admin(gateway, "GET", f"/admin/v1/{page}") for page in pages]
            told += [admin(gateway, "GET", "/admin/v1/usage?by=key", accept="text/csv")]
            told += [admin(gateway, "GET", path) for path in ("/", "/metrics", "/healthz")]
            told += [admin(gateway, "POST", "/admin/v1/explain", {"body": {"model": "two"}})]
            told += [admin(gateway, "POST", "/admin/v1/reload", {})]
            assert {status for status, _ in told[9:]} == {200}
            wait_for(lambda: collector.seen and any(HOOK.encode() in head for head, _ in b.seen), 90)
            processes = [gateway.process.pid, *workers_of(gateway.process.pid)]
            assert len(processes) == (1 if workers == 1 else 3)
            arguments = [Path(f"/proc/{pid}/cmdline").read_text() for pid in processes]
            inherited = [Path(f"/proc/{pid}/environ").read_text() for pid in processes[1:]]
        printed = [
            run("usage", "--by", "key", *more, "--config", str(gateway.config), cwd=tmp_path).stdout
            for more in ((), ("--csv",))
        ]
        seen = {
            p: b"".join(head + body for head, body in p.seen).decode("latin-1") for p in (a, b, collector)
        }
    given = ("b.key", "gateway.toml")
    written = [
        path.read_bytes().decode("latin-1") for path in files_below(tmp_path) if path.name not in given
    ]
    everywhere = [gateway.log, *arguments, *inherited, *printed, *written, *(text for _, text in told)]
    assert len(gateway.log) > 1000 and len(written) >= 2
    for secret in (KEY_A, KEY_B, key, TOKEN, HOOK, HEADER, COOKIE, PROMPT, "C0MPLETION"):
        assert [text for text in everywhere if secret in text] == []
    own = {a: {KEY_A, HEADER, PROMPT}, b: {KEY_B, HOOK, PROMPT}, collector: {COLLECTOR}}
    for provider, text in seen.items():
        for secret in (KEY_A, KEY_B, key, TOKEN, HOOK, HEADER, COLLECTOR, COOKIE, PROMPT, "C0MPLETION"):
            assert (secret in text) == (secret in own[provider]), secret


@contextlib.contextmanager
def begun(gateway: Gateway, set_up: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """The gateway runs; what ``set_up`` changes of this process is its to inherit, and is then undone."""
    with contextlib.ExitStack() as stack:
        undo = set_up()
        try:
            stack.enter_context(gateway)
        finally:
            undo()
        yield


def allow_cores() -> Callable[[], object]:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_CORE, before)


def test_a_crash_tells_nothing(tmp_path):
    """Cores are allowed where it is started; PYTHONFAULTHANDLER is the most that Python says of a crash."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with Providers(answers(USAGE)) as (a,):
        gateway = gateway_of(tmp_path, 2, a.url, a.url, a.url)
        gateway._environ["PYTHONFAULTHANDLER"] = "1"
        with begun(gateway, allow_cores):
            workers = workers_of(gateway.process.pid)
            for pid in (gateway.process.pid, *workers):
                # With 0 a core would still be handed to a program, where the system is set so.
                assert resource.prlimit(pid, resource.RLIMIT_CORE) == (1 if hard else 0, hard)
            for pid, number in zip(workers, (signal.SIGSEGV, signal.SIGABRT), strict=True):
                os.kill(pid, number)
                wait_for(lambda name=number.name: f"was ended by {name}" in gateway.log, 90)
            wait_for(lambda: len(set(workers_of(gateway.process.pid)) - {*workers}) == 2, 90)
    assert gateway.log.count("Fatal Python error") == 2
    assert [path.name for path in files_below(tmp_path) if "core" in path.name] == []
    for secret in (KEY_A, KEY_B, TOKEN, HOOK, HEADER, COLLECTOR):
        assert secret not in gateway.log


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_what_is_written_is_for_its_owner(tmp_path, mask):
    """Whatever the umask: keys' hashes, who used what, and the configuration, which keeps the mode it has."""

    def set_mask() -> Callable[[], object]:
        before = os.umask(mask)
        return lambda: os.umask(before)

    address = tmp_path / "gateway.sock"
    with Providers(answers(USAGE)) as (a,):
        gateway = gateway_of(tmp_path, 2, a.url, a.url, a.url)
        gateway._command[2:2] = ["--listen", f"unix:{address}"]
        gateway.config.chmod(0o640)
        with begun(gateway, set_mask):
            assert admin(gateway, "PUT", "/admin/v1/aliases/one", {"models": ["a/m"]})[0] == 201
            wait_for(lambda: gateway.address.startswith("http"))
            _, made = admin(gateway, "POST", "/admin/v1/keys", {"name": "k"})
            key = json.loads(made[made.index("{") :])["key"]
            assert ask(gateway, key, "one")[0] == 200
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert "one =" in gateway.config.read_text()
    assert (modes.pop("gateway.toml"), modes.pop("gateway.sock")) == (0o640, 0o660)
    assert modes.keys() >= {"t.db", "t.db-wal", "t.db-shm", "t.db-ledger"} and len(modes) >= 6
    assert {mode & 0o077 for mode in modes.values()} == {0}, modes
