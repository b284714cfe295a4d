"""A worker, in the process that it is in life; the supervisor is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

import pytest

from proxy.access.accounts import memory_bytes as accounts_bytes
from proxy.access.key import Key, digest_of
from proxy.config.parse import parse
from proxy.config.settings import Listen
from proxy.control.key_store import Keyring
from proxy.deployments.worker_sync import memory_bytes
from proxy.server import messages
from proxy.server.listeners import listen_on
from proxy.server.messages import ApplyConfig, ApplyKeys, Channel, Drain, GetRecent, Reply, WorkerConfig
from tests.support.fakes import RawClient, stepped

TEXT = """
[server]
drain_timeout = "5s"
[providers.a]
base_url = "{url}"
[models."a/m"]
{more}
"""


SECRET = b"th-" + b"s" * 43
BROKEN = '[providers.b]\nbase_url = "https://b/v1"\nca_file = "/nowhere"\n[models."b/m"]'


class Life:
    """A worker's process, and the supervisor's end of its socket."""

    def __init__(self, url: str, **worker_config: object) -> None:
        self.worker_config = WorkerConfig(parse(TEXT.format(url=url, more="")), {"a": "secret"}, 0)
        self.url = url

    async def begin(self) -> None:
        ours, theirs = socket.socketpair()
        self.memory = os.memfd_create("test")
        os.ftruncate(self.memory, memory_bytes(1))
        self.accounts = os.memfd_create("accounts")
        os.ftruncate(self.accounts, accounts_bytes(1))
        [[self.sock]], self.address = await listen_on(Listen("127.0.0.1", 0), 0o600)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy.server.worker", str(theirs.fileno()),
            pass_fds=(theirs.fileno(), self.memory, self.accounts, self.sock.fileno()),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        self.channel = await Channel.open(ours)

    async def start(self, worker_config: WorkerConfig | None = None, keyring: Keyring = Keyring()) -> Reply:  # noqa: B008
        message = messages.Start(
            worker_config or self.worker_config, 0, 1, (self.sock.fileno(),), self.memory, self.accounts,
            None, keyring, 7, {}, (0,),
        )  # fmt: skip
        return await self.call(message)

    async def call(self, message: object) -> Reply:
        await self.channel.send(message)
        return await asyncio.wait_for(self.channel.receive(), 20)

    async def end(self) -> tuple[int, str]:
        """Its exit code and what it logged."""
        _, log = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode is not None
        return self.process.returncode, log.decode()

    def changed(self, more: str) -> WorkerConfig:
        return WorkerConfig(parse(TEXT.format(url=self.url, more=more)), {"a": "changed", "b": None}, 0)


@pytest.fixture
async def worker(provider):
    life = Life(provider.url)
    await life.begin()
    yield life
    life.channel.close()
    life.sock.close()
    os.close(life.memory)
    os.close(life.accounts)
    if life.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            life.process.kill()
        await life.process.communicate()


async def status(worker: Life, model: bytes = b"a/m", secret: bytes = b"none") -> int:
    client = await RawClient.to(worker.address)
    await client.post(b'{"model":"%b"}' % model, extra=b"Authorization: Bearer %b\r\n" % secret)
    found = (await client.response())[0]
    client.close()
    return found


async def test_it_serves_takes_on_tells_and_drains(worker, provider):
    assert await worker.start() == Reply()
    assert await status(worker) == 200
    assert b"Authorization: Bearer secret" in provider.seen[0][0]
    assert await status(worker, b"new") == 404
    assert await worker.call(ApplyConfig(worker.changed('[aliases]\nnew = ["a/m"]'))) == Reply()
    assert await status(worker, b"new") == 200
    assert b"Authorization: Bearer changed" in provider.seen[1][0]
    told = await worker.call(GetRecent({"limit": "2"}))
    assert [row["status"] for row in told.value] == [200, 404]
    for number in (signal.SIGINT, signal.SIGHUP):  # what a terminal sends is the supervisor's business
        worker.process.send_signal(number)
    assert await status(worker) == 200
    await worker.channel.send(Drain())
    code, log = await worker.end()
    assert (code, "Traceback" in log) == (0, False)


async def test_one_that_cant_start_says_why(worker):
    assert "ca_file of provider 'b'" in (await worker.start(worker.changed(BROKEN))).error
    assert (await worker.end())[0] == 1


async def test_without_an_order_it_ends(worker):
    worker.channel.close()
    assert (await worker.end())[0] == 1


@pytest.mark.parametrize("way", ["supervisor gone", "SIGTERM"])
async def test_what_runs_is_finished(worker, provider, way):
    step = asyncio.Event()
    provider.script = stepped(step)
    assert await worker.start() == Reply()
    client = await RawClient.to(worker.address)
    await client.post(b'{"model":"a/m","stream":true}')
    await client.head()
    if way == "SIGTERM":
        worker.process.send_signal(signal.SIGTERM)
    else:
        worker.channel.close()
    await asyncio.sleep(0.2)
    assert worker.process.returncode is None
    step.set()
    assert (await client.rest()).endswith(b"0\r\n\r\n")
    code, log = await worker.end()
    assert code == 0
    assert ("the supervisor has died" in log) == (way != "SIGTERM")


async def test_a_supervisor_that_dies_before_its_answer_is_gone_too(worker):
    assert await worker.start() == Reply()
    for _ in range(200):
        await worker.channel.send(GetRecent({}))
    worker.channel.close()
    code, log = await worker.end()
    assert (code, "Traceback" in log) == (0, False), log
    assert "the supervisor has died: draining" in log


async def test_keys_are_taken_on_for_the_next_request(worker):
    key = Key("key_1", "x", digest_of(SECRET), 1, rpm=1)
    assert await worker.start(keyring=Keyring(((key, 0),), is_open=False)) == Reply()
    assert [await status(worker, secret=SECRET) for _ in range(2)] == [200, 429]
    # A configuration that can't be used is answered; what becomes of it is the supervisor's business.
    refused = await worker.call(ApplyConfig(worker.changed(BROKEN)))
    assert "ca_file of provider 'b'" in refused.error
    assert await worker.call(ApplyKeys(Keyring((), is_open=False))) == Reply()
    assert await status(worker, secret=SECRET) == 401
    await worker.channel.send(Drain())
    code, log = await worker.end()
    assert (code, "Traceback" in log) == (0, False), log
