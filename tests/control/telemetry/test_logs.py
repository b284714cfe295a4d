"""How the log looks, where it goes, and what never gets there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config.settings import LOGGERS, LogConfig
from proxy.control.telemetry import logs
from proxy.control.telemetry.logs import MAX_CHARS, MAX_WAITING_BYTES, JsonLines, Output, TextLines, clean
from proxy.relay.exchange import exchange
from tests.support.fakes import Call, RawClient, answers, post, until
from tests.support.keys import bearer, make

PROXY = Path(logs.__file__).parents[2]
KEY = "th-" + "k" * 43


def record(text: str, *args: object, level: int = logging.WARNING, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("tokenhub.x", level, "", 0, text, args, more.pop("exc_info", None))
    made.created, made.msecs = 1_780_315_200.25, 250.0
    made.__dict__.update(more)
    return made


def failure(text: str) -> Any:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


# ---------------------------------------------------------------------- lines
def test_json_lines_with_a_traceback_as_one_text():
    line = json.loads(JsonLines(None).format(record("%s is %d", "a", 5)))
    assert line == {
        "time": "2026-06-01T12:00:00.250Z", "level": "warning", "logger": "tokenhub.x", "message": "a is 5",
    }  # fmt: skip
    line = json.loads(JsonLines(3).format(record("no", model="p/m", tries=2, share=0.5, of=None)))
    assert line["worker"] == 3
    assert (line["model"], line["tries"], line["share"], line["of"]) == ("p/m", 2, 0.5, None)
    [line] = JsonLines(None).format(record("fault", exc_info=failure("x"))).splitlines()
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert exception.endswith("ValueError: x")


def test_text_lines_with_a_traceback_set_in_whatever_it_says(monkeypatch):
    plain = TextLines(None, coloured=False)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.250 WARNING tokenhub\.x: hello", plain.format(record("hello"))
    )
    assert TextLines(1, coloured=False).format(record("hello")).endswith(" tokenhub.x: worker 1: hello")
    coloured = TextLines(None, coloured=True)
    assert "\033[33mWARNING\033[0m" in coloured.format(record("hello"))
    assert "\033[31mERROR  \033[0m" in coloured.format(record("hello", level=logging.ERROR))
    assert "\033" not in coloured.format(record("hello", level=logging.INFO))
    text = TextLines(None, coloured=False).format(record("fault", exc_info=failure("a\n2026 forged")))
    first, *more = text.split("\n")
    assert first.endswith("fault") and all(line.startswith("    ") for line in more)
    assert more[-1] == "    2026 forged"


@pytest.mark.parametrize(("text", "shown"), [
    ("a\nb", "a\\nb"), ("a\r\nb\tc", "a\\r\\nb\\tc"), ("\x1b[2J", "\\x1b[2J"),
    ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"), ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
    ("caf\xe9 \u6f22", "caf\xe9 \u6f22"), (b"\xff".decode("utf-8", "surrogateescape"), "\\udcff"),
])  # fmt: skip
def test_what_is_not_printable_is_escaped(text, shown):
    assert clean(text) == shown
    assert TextLines(None, coloured=False).format(record("%s", text)).endswith(shown)
    line = JsonLines(None).format(record("%s", text, name_=text))
    assert "\n" not in line
    assert json.loads(line).items() >= {"name_": shown, "message": shown}.items()


def test_what_looks_like_a_key_is_taken_out_and_a_message_has_a_limit():
    assert clean(f"a {KEY} b") == "a *** b"
    assert clean("Authorization: Bearer abc.def, x") == "Authorization: Bearer ***, x"
    assert clean("BEARER sk-123'") == "BEARER ***'"
    assert clean("th-short, and the bearer") == "th-short, and the bearer"
    cut = clean("x" * (MAX_CHARS - 10) + KEY)
    assert "k" not in cut
    assert clean("x" * 100_000) == "x" * MAX_CHARS + "…"


# ---------------------------------------------------------------------- where they go
@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger without what pytest has put there; as it was afterwards."""
    found = logging.getLogger()
    before, level = found.handlers[:], found.level
    found.handlers[:] = []
    yield found
    for handler in found.handlers:
        handler.close()
    found.handlers[:] = before
    found.setLevel(level)


class Pipe:
    """A log at one end, its reader at the other."""

    def __init__(self, root: logging.Logger, worker: int | None = None) -> None:
        self.reader, self.writer = os.pipe()
        self.output = Output(self.writer, worker)
        root.addHandler(self.output)
        root.setLevel(logging.INFO)

    def read(self) -> list[dict[str, Any]]:
        """The lines until now."""
        self.output.flush()
        os.set_blocking(self.reader, False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += os.read(self.reader, 1 << 20)
        return [json.loads(line) for line in data.splitlines()]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.read()]

    def close(self) -> None:
        self.output.close()
        self.output._thread.join(10)
        for descriptor in (self.reader, self.writer):
            os.close(descriptor)


@pytest.fixture
def pipe(root) -> Iterator[Pipe]:
    made = Pipe(root)
    yield made
    made.close()


log = logging.getLogger("tokenhub.server")


def test_lines_keep_their_order(pipe):
    for number in range(100):
        log.info("%d", number)
    assert pipe.messages() == [str(number) for number in range(100)]


def test_a_reader_that_reads_nothing_stops_nobody(pipe):
    """As much as fits waits; the rest is lost, and counted."""
    size = 1000
    for _ in range(2 * MAX_WAITING_BYTES // size):
        log.info("x" * size)
    assert pipe.output._size <= MAX_WAITING_BYTES
    assert pipe.output._lost > MAX_WAITING_BYTES // size // 2
    data = b""
    while not data.endswith(b'the reader was too slow"}\n'):
        data += os.read(pipe.reader, 1 << 20)
    *lines, last = (json.loads(line) for line in data.splitlines())
    assert (last["level"], last["logger"]) == ("error", "tokenhub.server")
    lost = int(last["message"].split()[0])
    assert len(lines) + lost == 2 * MAX_WAITING_BYTES // size
    log.info("again")
    assert pipe.messages() == ["again"]


def test_a_reader_that_has_gone(root):
    made = Pipe(root)
    os.close(made.reader)
    log.info("nobody hears it")
    made.output.flush()
    assert made.output._is_idle
    made.reader = os.open(os.devnull, os.O_RDONLY)
    made.close()


def test_a_descriptor_that_does_not_block(pipe):
    os.set_blocking(pipe.writer, False)
    for number in range(500):
        log.info("%d %s", number, "x" * 1000)
    data = b""
    while not data.endswith(b"\n") or data.count(b"\n") < 500:
        data += os.read(pipe.reader, 1 << 16)
    assert len(data.splitlines()) == 500


def test_a_call_that_does_not_fit_its_text(pipe):
    for text in ("%d", "%s and %s"):
        pipe.output.handle(record(text, "secret"))
    assert pipe.messages() == ["a line of tokenhub.x could not be made: TypeError"] * 2


ERRORS = {"server error", "keys error"}
KEYS = {"keys debug", "keys info", "keys warning", "keys error"}
EVERY = KEYS | {text.replace("keys", "server") for text in KEYS}


def test_levels_of_all_and_of_some(pipe):
    keys = logging.getLogger("tokenhub.keys")
    two = ("tokenhub", "info"), ("tokenhub.keys", "warning")
    for settings, heard in (
        (LogConfig(), EVERY - {"server debug", "keys debug"}), (LogConfig(level="debug"), EVERY),
        (LogConfig(level="error"), ERRORS),
        (LogConfig(level="error", levels=(("tokenhub.keys", "debug"),)), KEYS | ERRORS),
        (LogConfig(level="error", levels=two), EVERY - {"server debug", "keys debug", "keys info"}),
        (LogConfig(level="error"), ERRORS),  # nothing is left of it
    ):  # fmt: skip
        logs.configure(settings)
        for logger in (log, keys):
            for level in ("debug", "info", "warning", "error"):
                getattr(logger, level)("%s %s", logger.name.split(".")[1], level)
        assert set(pipe.messages()) == heard


def test_the_format_changes_while_it_runs(pipe):
    logs.configure(LogConfig(format="text"))
    log.info("hello")
    pipe.output.flush()
    [line] = os.read(pipe.reader, 1 << 16).decode().splitlines()
    assert line.endswith("INFO    tokenhub.server: hello")
    logs.configure(LogConfig(format="json"))
    log.info("hello")
    assert pipe.messages() == ["hello"]


@pytest.mark.parametrize(("environ", "how", "is_coloured"), [
    ({}, "auto", True), ({"NO_COLOR": "1"}, "auto", False), ({"NO_COLOR": ""}, "text", True),
    ({"TERM": "dumb"}, "auto", False), ({}, "json", False),
])  # fmt: skip
def test_at_a_terminal_it_is_for_people(root, monkeypatch, environ, how, is_coloured):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    output = Output(slave)
    root.addHandler(output)
    output.use(LogConfig(format=how))
    log.warning("hello")
    output.flush()
    said = os.read(master, 1000).decode()
    assert said.startswith("{") == (how == "json")
    assert ("\033[33m" in said) == is_coloured
    output.close()
    output._thread.join(10)
    os.close(master)
    os.close(slave)


def run(code: str) -> subprocess.CompletedProcess[str]:
    text = "import logging; from proxy.control.telemetry.logs import *; "
    text += f"log = logging.getLogger('tokenhub.x'); {code}"
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)


def test_a_process_that_ends_has_written_all_and_what_somebody_else_set_up_stays():
    done = run("set_up_logging(2); [log.warning('%d', n) for n in range(1000)]; log.debug('quiet')")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == [str(number) for number in range(1000)]
    assert {line["worker"] for line in lines} == {2}
    assert done.stdout == ""
    done = run("logging.basicConfig(format='mine: %(message)s'); set_up_logging(); log.warning('x'); flush()")
    assert done.stderr == "mine: x\n"


def test_a_process_ends_though_nobody_reads():
    reader, writer = os.pipe()
    code = (
        "import logging; from proxy.control.telemetry.logs import *\n"
        "set_up_logging(); logging.warning('x' * 16000)\n" * 20
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=writer)
    assert process.wait(20) == 0
    os.close(reader)
    os.close(writer)


def test_the_list_of_loggers_is_whole():
    found = set()
    for path in PROXY.rglob("*.py"):
        found |= set(re.findall(r'getLogger\("(tokenhub[^"]*)"\)', path.read_text()))
    assert set(LOGGERS) == found | {"tokenhub", "aiohttp", "asyncio", "opentelemetry"}


# ---------------------------------------------------------------------- what never gets there


SECRETS = "PR0MPT", "C0MPLETION", "0PERATORKEY"  # a prompt, an answer, a provider's key
CONFIG = """
[auth]
required = true
[providers.mock]
base_url = "{url}"
api_key_env = "MOCK_KEY"
headers = {{ "x-extra" = "0PERATORKEY" }}
[models."mock/m"]
[models."mock/n"]
[aliases]
both = ["mock/m", "mock/n"]
"""


async def garbage(call: Call) -> None:
    await call.request()
    await call.send(b"C0MPLETION 0PERATORKEY\r\nC0MPLETION\r\n\r\n")


async def breaks_off(call: Call) -> None:
    await call.request()
    await call.stream(b'data: {"C0MPLETION":\n\n', end=False)
    call.reset()


SCRIPTS = [
    answers(b'{"error":"C0MPLETION 0PERATORKEY"}', status)
    for status in (b"200 OK", b"400 C0MPLETION", b"401 0PERATORKEY", b"429 C0MPLETION", b"500 C0MPLETION")
]


# Good, bad, and malformed in all ways.
BODIES = [
    b'{"model":"mock/m","messages":[{"content":"PR0MPT"}]}',
    b'{"model":"both","stream":true,"messages":[{"content":"PR0MPT"}]}',
    b'{"model":"none PR0MPT\\n","messages":"PR0MPT"}', b'{"model":"mock/m","model":"PR0MPT"}', b'{"PR0MPT":',
    b"PR0MPT", b'"PR0MPT"', b'{"model":"mock/m","messages":"PR0MPT\xff', b'{"model":5,"PR0MPT":1}',
]  # fmt: skip
# Requests that aiohttp gets, and heads that are none; %b is a line with a key.
HEADS = [
    b"GET /v1/models HTTP/1.1\r\nHost: g\r\n%b\r\n\r\n",
    b"GET /v1/models/%%0aPR0MPT?key=PR0MPT HTTP/1.1\r\nHost: g\r\n%b\r\n\r\n",
    b"BREW /v1/PR0MPT HTTP/1.1\r\nHost: g\r\n%b\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: g\r\nExpect: PR0MPT\r\n%b\r\n\r\n",
    b"PUT /v1/models HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n%b\r\n\r\nPR0MPT\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\n%b\x00\r\nPR0MPT\r\n\r\n", b"PR0MPT\r\n%b\r\n\r\n",
]  # fmt: skip


@pytest.fixture
def loud(pipe) -> Iterator[Callable[[], str]]:
    """Everything is logged, down to the event loop's own; what was, as one text."""
    logs.configure(LogConfig(level="debug"))
    seen: list[str] = []

    def text() -> str:
        seen.extend(json.dumps(line) for line in pipe.read())
        return "\n".join(seen)

    yield text
    logs.configure(LogConfig())


async def tell(server: Any, request: bytes, address: Any = None) -> None:
    """Send it, and take whatever comes back, until the gateway has answered or closed."""
    client = await RawClient.to(address or server.addresses[0])
    await client.send(request)
    try:
        async with asyncio.timeout(0.5):
            await client.response()
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        pass
    client.close()


@pytest.mark.parametrize("script", [*SCRIPTS, garbage, breaks_off])
async def test_no_prompt_no_completion_no_key(start, provider, loud, script):
    asyncio.get_running_loop().set_debug(True)
    provider.script = script
    server = await start(CONFIG.format(url=provider.url), MOCK_KEY="0PERATORKEY")
    _, key = await make(server)
    for body in BODIES:
        for credentials in (key, b"th-" + b"PR0MPT" * 7, b"PR0MPT"):
            await tell(server, post(body, extra=bearer(credentials)))
    for head in HEADS:
        for address in (server.addresses[0], server.admin_address):
            await tell(server, head % bearer(key).strip(), address)
    asyncio.get_running_loop().set_debug(False)
    said = loud()
    assert "tokenhub.provider" in said or script is SCRIPTS[0] or script is SCRIPTS[1]
    for secret in (*SECRETS, key.decode()):
        assert secret not in said


@pytest.mark.interpreted
async def test_a_fault_says_where_and_not_with_what(start, provider, loud, monkeypatch):
    """Tracebacks are without the values of variables."""
    server = await start(CONFIG.format(url=provider.url), MOCK_KEY="0PERATORKEY")
    _, key = await make(server)

    def fail(self: object, piece: bytes, done: bool) -> None:
        prompt = piece + key
        raise RuntimeError(f"a fault at {len(prompt)} bytes with {key.decode()}")

    monkeypatch.setattr(exchange.Exchange, "on_body", fail)
    for body in BODIES:
        await tell(server, post(body, extra=bearer(key)))
    await until(lambda: "internal error while handling a request" in loud())
    said = loud()
    assert "RuntimeError: a fault at" in said
    assert SECRETS[0] not in said and key.decode() not in said
