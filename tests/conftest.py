"""Fixtures: a gateway in the test's own loop, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import uvloop

from proxy.config.parse import parse
from proxy.relay.exchange import exchange
from proxy.relay.upstream.pool import ConnectionPool
from proxy.server.single import Server
from tests.support.fakes import RawClient, ScriptedProvider, until
from tests.support.receiver import pool_of
from tests.support.two_providers import config
from tests.support.virtual_time import VirtualTimeLoop, told_by

# No example is wrong for taking long, nor is making one: machines are busy, and tables are made at first use.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Everything runs on the loop that the product runs on, but for what has its own time."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames[:0] = ["_time", "_clients_leave"]  # no event loop for those that need none
    if exchange.__file__.endswith(".py"):
        return
    fixed = pytest.mark.skip(reason="replaces a part of what a compiled class keeps fixed")
    for item in items:
        if "interpreted" in item.keywords:
            item.add_marker(fixed)


@pytest.fixture(autouse=True)
def collected():
    """A gateway that takes on a configuration freezes what there is, which libraries of the tests look at."""
    gc.unfreeze()


@pytest.fixture
async def _time() -> AsyncIterator[None]:
    """Under the mark ``virtual_time`` all clocks tell the loop's."""
    loop = asyncio.get_running_loop()
    with told_by(loop) if isinstance(loop, VirtualTimeLoop) else contextlib.nullcontext():
        yield


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest.fixture
async def other() -> AsyncIterator[ScriptedProvider]:
    """A second one, for what fails over to it."""
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest.fixture
async def _clients_leave() -> AsyncIterator[None]:
    yield
    while RawClient.opened:
        client = RawClient.opened.pop()
        client.close()
        with contextlib.suppress(ConnectionError):
            await client.writer.wait_closed()


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """``await start(text, **environ)``: a running gateway; its address is ``server.addresses[0]``. Nothing is
    asked of the same member twice, unless the text has a ``retry_same``.

    Afterwards nothing may be left running: the counters of every row and pool are looked at.
    """
    servers: list[Server] = []

    async def make(text: str, **environ: str) -> Server:
        if "listen" not in text:
            text = '[server]\nlisten = ["127.0.0.1:0"]\n' + text
        if "[state]" not in text:
            text += '\n[state]\npath = ":memory:"\n'
        if "[admin]" not in text:
            text += '\n[admin]\nlisten = "127.0.0.1:0"\n'
        config = parse(text)
        if "retry_same" not in text:  # most tests count what one attempt at each member does
            config = replace(config, routing=replace(config.routing, retry_same=0))
        server = Server(config, environ)
        servers.append(server)
        await server.start()
        return server

    yield make
    for server in servers:
        if not hasattr(server._control, "gateway"):  # it did not start
            await server.close()
            continue
        gateway = server.gateway
        for connection in list(gateway.connections):
            connection.abort()
        await until(lambda gateway=gateway: not gateway.connections)
        for deployment in gateway.catalog.deployments.values():
            for row in deployment.rows().values():
                assert row.in_flight == 0, row
                assert row.awaiting == 0, row
        await server.close()


@pytest.fixture
async def server(provider: ScriptedProvider, other: ScriptedProvider, start: Start) -> Server:
    """A gateway with both providers behind one name, as :mod:`tests.support.two_providers` has it."""
    return await start(config(provider, other))


@pytest.fixture
async def client(server: Server) -> RawClient:
    """A client of the file's ``server``."""
    return await RawClient.connect(server)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing in it, where a command runs without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("TOKENHUB_CONFIG", "TOKENHUB_API_KEY", "TOKENHUB_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(folder: Path, text: str, name: str = "routes.toml") -> Path:
    """A file in it."""
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
async def pool(provider: ScriptedProvider) -> AsyncIterator[ConnectionPool]:
    """Connections to ``provider``, of which none may be left afterwards."""
    made = pool_of(provider.url)
    yield made
    await made.close()
    await until(lambda: made.snapshot() == {"open": 0, "idle": 0, "dialling": 0}, 1)
