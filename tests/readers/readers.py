"""The readers: what each needs, how it is started, and what it read of what reached it.

A server is a provider of its own. A parser is a process that gets a body a line; a small server hands it what
came. A gateway of others sends on what it understood, and that is read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.config.settings import Listen
from tests.readers import install
from tests.readers.programs.reading import evil_in, reading
from tests.support.fakes import Call, RawClient, ScriptedProvider

PROGRAMS = Path(__file__).parent / "programs"
# LiteLLM takes half a minute to load on a busy machine.
START_S = 180
ANSWER_S = 60
Reading = dict[str, Any]


class Running(NamedTuple):
    """``url``: of the provider. ``readings``: takes what was read since it was last called. ``behind``: the
    provider of a gateway of others."""

    url: str
    readings: Callable[[], Any]
    behind: str = ""


class Reader(NamedTuple):
    """``needs``: programs, or files, without which it can't run. ``make``: installs the others, and returns
    the command.

    :param ports: 0: a parser; else a server with so many. :param port: which of them is asked.
    :param auth: of the provider. :param settings: further lines of it.
    :param is_gateway: it sends on what it understood.
    """

    name: str
    needs: tuple[str, ...]
    make: Callable[[], list[str]]
    path: str = ""
    ports: int = 0
    port: int = 0
    settings: str = ""
    auth: str = 'auth = "none"'
    is_gateway: bool = False
    takes_chunks: bool = True

    def missing(self) -> str:
        """What is not there, for people; "" if nothing."""
        found = (
            need for need in self.needs if not (Path(need).exists() if "/" in need else shutil.which(need))
        )
        return ", ".join(found)


def program(name: str, environment: Callable[[], Path], *words: str) -> Callable[[], list[str]]:
    """One of ours in Python, with packages of its own and without those of the tests."""

    def make() -> list[str]:
        path = f"PYTHONPATH={environment()}:{PROGRAMS}"
        return ["env", path, sys.executable, "-S", "-B", str(PROGRAMS / name), *words]

    return make


def python_server(name: str, package: str, path: str = "") -> Reader:
    return Reader(name, (), program(f"{package}_server.py", lambda: install.python(package)), path, ports=1)


def express(version: int, path: str) -> Reader:
    def make() -> list[str]:
        modules = install.npm(install.HERE / "express") / "node_modules"
        return ["env", f"NODE_PATH={modules}", "node", str(PROGRAMS / "express_server.js")]

    name = f"express {version} {path.strip('/')}"
    return Reader(name, ("node", "npm"), make, path, ports=2, port=5 - version)


def compiled(source: str, *command: str) -> Callable[[], str]:
    """A program of ours that is compiled first: where it is then."""
    name = source.partition("_")[0]
    return lambda: str(install.built(name, PROGRAMS / source, list(command)) / "reader")


def cjson(*words: str) -> Callable[[], list[str]]:
    build = compiled("cjson_reader.c", "gcc", "-O1", "-o", "{folder}/reader", "{source}", "-lcjson")
    return lambda: [build(), *words]


FOLDS = "case_insensitive_keys = true"
CJSON = ("gcc", "/usr/include/cjson/cJSON.h")
READERS = [
    python_server("aiohttp", "aiohttp"), python_server("fastapi model", "fastapi", "/model"),
    python_server("fastapi query", "fastapi", "/query"), python_server("fastapi json", "fastapi", "/json"),
    python_server("flask", "flask")._replace(ports=2),
    python_server("flask wsgiref", "flask")._replace(ports=2, port=1, takes_chunks=False),
    *(express(version, path) for version in (5, 4) for path in ("/usual", "/any", "/text")),
    Reader("parsers", (), program("parsers.py", lambda: install.python("parsers"))),
    Reader(
        "parsers folding", (), program("parsers.py", lambda: install.python("parsers"), "folding"),
        settings=FOLDS,
    ),
    Reader("ruby", ("ruby",), lambda: ["ruby", str(PROGRAMS / "ruby_reader.rb")]),
    Reader("cjson", CJSON, cjson()), Reader("cjson folding", CJSON, cjson("folding"), settings=FOLDS),
]  # fmt: skip


# ---------------------------------------------------------------------- run


@contextlib.asynccontextmanager
async def running(reader: Reader) -> AsyncIterator[Running]:
    """One that runs meanwhile."""
    command = await asyncio.to_thread(reader.make)
    if reader.is_gateway:
        async with gateway_of_others(reader, command) as made:
            yield made
    elif reader.ports:
        ports = free_ports(reader.ports)
        async with process([*command, *map(str, ports)]) as child:
            await listening(child, *ports)
            listen = Listen("127.0.0.1", ports[reader.port])

            async def readings() -> list[Reading]:
                client = await RawClient.to(listen)
                await client.send(b"GET /readings HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = await asyncio.wait_for(client.response(), ANSWER_S)
                client.close()
                RawClient.opened.remove(client)
                return list(json.loads(answer[2]))

            yield Running(f"http://127.0.0.1:{ports[reader.port]}{reader.path}/v1", readings)
    else:
        async with process(command, piped=True) as child, ScriptedProvider() as provider:
            parser = Parser(child)
            provider.script = parser.script
            yield Running(provider.url, parser.readings)


class Parser:
    """The small server before a parser."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._told: list[Reading] = []
        self._lock = asyncio.Lock()

    async def script(self, call: Call) -> None:
        while True:
            head, body = await call.request()
            told = await self.ask(fields_of(head), body)
            await call.answer(b"{}", b"200 OK" if told else b"400 Bad Request")

    async def ask(self, fields: list[tuple[str, str]], body: bytes) -> list[Reading]:
        line = base64.b64encode(body) + b"\n"
        async with self._lock:
            assert self._child.stdin is not None and self._child.stdout is not None
            self._child.stdin.write(line)
            await self._child.stdin.drain()
            answer = await asyncio.wait_for(self._child.stdout.readline(), 60)
        assert answer, f"the parser ended at {body[:200]!r}"
        told = [{**one, "evil": evil_in(fields)} for one in json.loads(answer)]
        self._told += told
        return told

    async def readings(self) -> list[Reading]:
        told, self._told = self._told, []
        return told


def fields_of(head: bytes) -> list[tuple[str, str]]:
    lines = (line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:-2])
    return [(name, value.strip()) for name, _, value in lines]


@contextlib.asynccontextmanager
async def gateway_of_others(reader: Reader, command: list[str]) -> AsyncIterator[Running]:
    """Another gateway, whose provider notes what it is asked to run."""
    told: list[Reading] = []

    async def script(call: Call) -> None:
        while True:
            head, body = await call.request()
            found = None
            with contextlib.suppress(ValueError):  # it was no JSON any more
                found = reading("sent on", json.loads(body))
            if found is not None:
                model = str(found["model"]).removeprefix("ran-")
                evil = [("its target", head.partition(b"\r\n")[0].decode("latin-1")), *fields_of(head)]
                told.append({**found, "model": model, "evil": evil_in(evil)})
            if found is not None and found["stream"]:
                await call.stream(EVENT, b"data: [DONE]\n\n")
            else:
                await call.answer(ANSWER)

    async def readings() -> list[Reading]:
        taken = told.copy()
        told.clear()
        return taken

    async with ScriptedProvider() as provider:
        provider.script = script
        (port,) = free_ports(1)
        words = [word.replace("{port}", str(port)).replace("{url}", provider.url) for word in command]
        async with process(words) as child:
            await listening(child, port)
            yield Running(f"http://127.0.0.1:{port}{reader.path}/v1", readings, provider.url)


ANSWER = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}).encode()  # fmt: skip
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in taken]


@contextlib.asynccontextmanager
async def process(command: list[str], piped: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child that is ended at the end. ``piped``: it is spoken to by its standard streams."""
    pipe = asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryFile() as said:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=said, env=environ, limit=1 << 26
        )
        try:
            yield child
        except BaseException as error:
            said.seek(0)
            error.add_note(f"{command[-3:]} said: {said.read()[-3000:].decode(errors='replace')}")
            raise
        finally:
            if child.returncode is None:
                child.kill()
            if child.stdin is not None:
                child.stdin.close()
            await child.wait()


async def listening(child: asyncio.subprocess.Process, *ports: int) -> None:
    """Until it takes connections at all of them."""
    async with asyncio.timeout(START_S):
        for port in ports:
            while True:
                assert child.returncode is None, f"the reader ended with {child.returncode}"
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)


def check_there(reader: Reader) -> None:
    """Skip where something is missing, but in CI, which installs what its readers need."""
    missing = reader.missing()
    if missing:
        (pytest.fail if os.environ.get("CI") and reader in READERS else pytest.skip)(f"needs {missing}")
