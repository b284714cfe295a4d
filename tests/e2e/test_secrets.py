"""Secrets of the running program: in no log, file, page, argument or environment where they don't belong, in
no core of a process that crashes, and in no file that others can read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import Gateway, run
from tests.e2e.asking import CHAT, fetch, wait_for, workers_of
from tests.e2e.background import in_thread, scripted
from tests.support.fakes import answers

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
[providers]
a = {{ base_url = "{a}", api_key_env = "A_SECRET", headers = {{ "x-team" = "{header}" }} }}
b = {{ base_url = "{b}", auth = "x-api-key", api_key_file = "b.key" }}
[models]
"a/m" = {{ input_price = 1, output_price = 1 }}
"b/m" = {{ input_price = 100, output_price = 100 }}
[aliases]
two = {{ models = ["a/m", "b/m"], strategy = "cost" }}
"""
ENVIRONMENT = {
    "A_SECRET": KEY_A,
    "MY_TOKEN": TOKEN,
    "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector={COLLECTOR}",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
}


def gateway_of(
    folder: Path, workers: int, a: str, b: str, collector: str, *args: str, first: str = ":", **environ: str
) -> Gateway:
    """:param first: what the shell does that starts it."""
    (folder / "b.key").write_text(KEY_B + "\n")
    (folder / "b.key").chmod(0o600)
    text = TEXT.format(workers=workers, a=a, b=b, collector=collector, hook=HOOK, header=HEADER)
    within = ("sh", "-ec", f'{first}; exec "$@"', "sh")
    return Gateway(folder, text, *args, within=within, **ENVIRONMENT, **environ)


def shown(answer: http.client.HTTPResponse) -> tuple[int, str]:
    """The status, and all that can be read of it but the answer of the provider."""
    return answer.status, repr(answer.getheaders()) + answer.body.replace(USAGE, b"").decode()


def admin(gateway: Gateway, method: str, path: str, body: object = None, **more: str) -> tuple[int, str]:
    return shown(fetch(gateway, method, path, body, admin=True, Authorization=f"Bearer {TOKEN}", **more))


def ask(gateway: Gateway, key: str, model: str) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    return shown(fetch(gateway, "POST", CHAT, body, Authorization=f"Bearer {key}", Cookie=COOKIE))


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("workers", [1, 2])
def test_secrets_are_nowhere_but_where_they_belong(tmp_path, workers):
    """With everything on: failover, a ledger, traces, alerts, the log at its most talkative."""
    scripts = answers(b"{}", b"401 Look"), answers(USAGE), answers(b"")
    with contextlib.ExitStack() as stack:
        a, b, collector = (stack.enter_context(in_thread(scripted(script))) for script in scripts)
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
            told += [admin(gateway, "GET", "/admin/v1/usage?by=key", Accept="text/csv")]
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
        seen = {p: b"".join(map(b"".join, p.seen)).decode("latin-1") for p in (a, b, collector)}
    given = ("b.key", "gateway.toml")
    written = [path.read_text("latin-1") for path in files_below(tmp_path) if path.name not in given]
    everywhere = [gateway.log, *arguments, *inherited, *printed, *written, *(text for _, text in told)]
    assert len(gateway.log) > 1000 and len(written) >= 2
    for secret in (KEY_A, KEY_B, key, TOKEN, HOOK, HEADER, COOKIE, PROMPT, "C0MPLETION"):
        assert [text for text in everywhere if secret in text] == []
    own = {a: {KEY_A, HEADER, PROMPT}, b: {KEY_B, HOOK, PROMPT}, collector: {COLLECTOR}}
    for provider, text in seen.items():
        for secret in (KEY_A, KEY_B, key, TOKEN, HOOK, HEADER, COLLECTOR, COOKIE, PROMPT, "C0MPLETION"):
            assert (secret in text) == (secret in own[provider]), secret


def test_a_crash_tells_nothing(tmp_path):
    """Cores are allowed where it is started; PYTHONFAULTHANDLER is the most that Python says of a crash."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with in_thread(scripted(answers(USAGE))) as a:
        more = {"first": 'ulimit -S -c "$(ulimit -H -c)"', "PYTHONFAULTHANDLER": "1"}
        with gateway_of(tmp_path, 2, a.url, a.url, a.url, **more) as gateway:
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
    listen = ("--listen", f"unix:{tmp_path}/gateway.sock", "--listen", "127.0.0.1:0")
    with in_thread(scripted(answers(USAGE))) as a:
        made = gateway_of(tmp_path, 2, a.url, a.url, a.url, *listen, first=f"umask {mask:03o}")
        made.config.chmod(0o640)
        with made as gateway:
            assert admin(gateway, "PUT", "/admin/v1/aliases/one", {"models": ["a/m"]})[0] == 201
            wait_for(lambda: gateway.address.startswith("http"))
            _, told = admin(gateway, "POST", "/admin/v1/keys", {"name": "k"})
            key = json.loads(told[told.index("{") :])["key"]
            assert ask(gateway, key, "one")[0] == 200
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert "one =" in gateway.config.read_text()
    assert (modes.pop("gateway.toml"), modes.pop("gateway.sock")) == (0o640, 0o660)
    assert modes.keys() >= {"t.db", "t.db-wal", "t.db-shm", "t.db-ledger"} and len(modes) >= 6
    assert {mode & 0o077 for mode in modes.values()} == {0}, modes
