"""The installed program in a network of its own: links that are cut, packets that are lost, names that move.

What needs the kernel's time, such as a dead peer that is given up after 20 s, runs side by side; everything
is asked of a gateway of one process and of one with two workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.relay.upstream.tcp_keepalive import DEAD_S
from tests.e2e import Gateway
from tests.e2e.netns import World, flow_of, names, why_not
from tests.e2e.one_provider import lines
from tests.support.fakes import DONE, Call, RawClient, ScriptedProvider, answers, chunk, until

pytestmark = pytest.mark.long

LIMIT_S = 60.0  # for what takes the kernel 20 s, on a machine that is busy
CLIENT = "10.9.2.1"
PROVIDER = """
[providers.{name}]
base_url = "http://{host}/v1"
auth = "none"
[models."{name}/m"]
"""
TEXT = """
[state]
path = "t.db"
[auth]
required = false
[simulator]
mode = "never"
[timeouts]
connect = "{connect}"
client_write = "20s"
"""
LARGE_BYTES = 8 << 20  # more than all buffers on the way hold
Answer = tuple[int, dict[bytes, bytes], bytes]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with World(tmp_path) as made:
        yield made


@pytest.fixture
def known(world: World) -> Iterator[dict[str, list[str] | None]]:
    with names(world.far) as server:
        yield server.known


class Far:
    """Providers, each at an address of its own, and what the gateways' configuration says of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.text = ""
        self._stack = contextlib.AsyncExitStack()
        self._hosts = (f"10.9.1.{number}" for number in itertools.count(1))

    async def stands_in(self, address: str, script: Any) -> ScriptedProvider:
        """Another one at an address that no provider has yet."""
        scripted = ScriptedProvider(sock=self.world.far.listener(address))
        scripted.script = script
        return await self._stack.enter_async_context(scripted)

    async def provider(self, name: str, script: Any, host: str = "") -> tuple[ScriptedProvider, str]:
        """Another one; with the address it has, and by which it is asked unless ``host`` is a name for it."""
        address = next(self._hosts)
        scripted = await self.stands_in(address, script)
        self.text += PROVIDER.format(name=name, host=host or address)
        return scripted, address

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def far(world: World) -> AsyncIterator[Far]:
    made = Far(world)
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def running(*gateways: Gateway) -> AsyncIterator[None]:
    """They start and end side by side."""
    await asyncio.gather(*(asyncio.to_thread(gateway.__enter__) for gateway in gateways))
    try:
        yield
    finally:
        ends = (asyncio.to_thread(gateway.__exit__) for gateway in gateways)
        failures = [end for end in await asyncio.gather(*ends, return_exceptions=True) if end]
    if failures:
        raise failures[0]


@contextlib.asynccontextmanager
async def both(world: World, far: Far, connect: str = "5s") -> AsyncIterator[list[Gateway]]:
    """A gateway of one process, and one of two workers. Afterwards nothing may be under way in them."""
    text = TEXT.format(connect=connect) + far.text
    made = [world.gateway(f"w{count}", text, "--workers", count) for count in "12"]
    async with running(*made):
        yield made
        for gateway in made:
            if gateway.process.poll() is None:
                await is_idle(world, gateway)


async def client(world: World, gateway: Gateway, source: str = CLIENT) -> RawClient:
    sock = await asyncio.to_thread(world.far.connect, gateway.host_and_port, source)
    return RawClient(*await asyncio.open_connection(sock=sock, limit=1 << 24))


async def told(asking: RawClient) -> Answer:
    """The answer to a request that was sent."""
    answer = await asyncio.wait_for(asking.response(), LIMIT_S)
    asking.close()
    return answer


async def admin(world: World, gateway: Gateway, path: str) -> Any:
    host, _, port = gateway.admin.rpartition("//")[2].rpartition(":")
    sock = await asyncio.to_thread(world.here.connect, (host, int(port)))
    asking = RawClient(*await asyncio.open_connection(sock=sock, limit=1 << 24))
    await asking.send(b"GET %b HTTP/1.1\r\nHost: %b:%b\r\nConnection: close\r\n\r\n"
                      % (path.encode(), host.encode(), port.encode()))  # fmt: skip
    status, _, body = await asking.response()
    asking.close()
    assert status == 200, body
    return body.decode() if path == "/metrics" else json.loads(body)


async def is_idle(world: World, gateway: Gateway) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = (await admin(world, gateway, "/admin/v1/routes"))["data"]
            rows = [row["row"] for row in found if row["row"]]
            if not any(row["in_flight"] or row["awaiting"] for row in rows):
                return
            await asyncio.sleep(0.05)


def code_of(answer: Answer) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["error"]["code"]


def story_of(answer: Answer) -> list[str]:
    """The outcomes of the attempts."""
    return [part.split(":")[1] for part in answer[1][b"x-inferoute-attempts"].decode().split(", ")]


def last_of(gateway: Gateway, model: str) -> dict[str, Any]:
    found = [line for line in lines(gateway.config.parent) if line["model"] == model]
    return found[-1] if found else {}


# ---------------------------------------------------------------------- links that die


class Noted:
    """Runs a script for each request; ``flows``: the gateway's connections by which a ``user``'s came."""

    def __init__(self, script: Callable[[Call], Awaitable[None]]) -> None:
        self.flows: dict[str, list[tuple[str, int]]] = {}
        self.left: list[str] = []  # users whose connections have ended
        self._script = script

    async def __call__(self, call: Call) -> None:
        user = ""
        try:
            while True:
                _, body = await call.request()
                user = json.loads(body)["user"]
                self.flows.setdefault(user, []).append(flow_of(call.writer))
                await self._script(call)
        finally:
            self.left.append(user)


async def answers_once(call: Call) -> None:
    await call.answer(b'{"by":"it"}')


async def begins(call: Call) -> None:
    await call.stream(b"data: one\n\n", end=False)


async def is_silent(_: Call) -> None:
    pass


class Scene:
    """A gateway that requests are sent to, and what may happen on their way."""

    def __init__(self, world: World, gateway: Gateway, user: str) -> None:
        self.world, self.gateway, self.user = world, gateway, user

    async def opened(self, model: str, streamed: bool = False) -> RawClient:
        """The client of a request that was sent."""
        asking = await client(self.world, self.gateway)
        await asking.post(json.dumps({"model": model, "stream": streamed, "user": self.user}).encode())
        return asking

    async def ask(self, model: str) -> Answer:
        return await told(await self.opened(model))

    async def answers(self, model: str) -> bytes:
        """The answer, as soon as there is one that is none of the gateway's."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                status, _, body = await self.ask(model)
                if status == 200:
                    return body

    def cut(self, flow: tuple[str, int]) -> None:
        self.world.wire.cut.add(flow)

    async def keeps(self, noted: Noted) -> None:
        """A kept connection that a NAT has forgotten: its request fails, as the provider may have got it; the
        next one has a new connection."""
        assert (await self.ask("kept/m"))[0] == 200
        self.cut(noted.flows[self.user][0])
        answer = await self.ask("kept/m")
        assert (answer[0], story_of(answer)) in ((502, ["reset"]), (200, ["200"]))  # by another worker
        assert await self.answers("kept/m")
        assert len({*noted.flows[self.user]}) in (2, 3)  # each of two workers has its own

    async def rests(self, noted: Noted) -> None:
        """One that nobody uses is gone before somebody does."""
        assert (await self.ask("idle/m"))[0] == 200
        self.cut(noted.flows[self.user][0])
        gone = 'tokenhub_provider_connections{provider="idle",state="open"} 0\n'
        async with asyncio.timeout(LIMIT_S):
            while gone not in await admin(self.world, self.gateway, "/metrics"):
                await asyncio.sleep(0.3)

    async def waits(self, noted: Noted, model: str) -> Answer:
        """A provider that vanishes before its answer begins."""
        asking = await self.opened(model)
        await until(lambda: self.user in noted.flows, LIMIT_S)
        self.cut(noted.flows[self.user][0])
        return await told(asking)

    async def fails(self, noted: Noted) -> None:
        answer = await self.waits(noted, "silent/m")
        assert (code_of(answer), story_of(answer)) == ((502, "provider_bad_answer"), ["reset"])

    async def can_fail_over(self, noted: Noted) -> None:
        answer = await self.waits(noted, "over")
        assert (answer[0], story_of(answer)) == (200, ["reset", "200"])

    async def breaks_off(self, noted: Noted) -> None:
        """A provider that vanishes in the middle of a stream."""
        asking = await self.opened("begun/m", streamed=True)
        await asking.reader.readuntil(b"one\n\n")
        self.cut(noted.flows[self.user][0])
        rest = await asyncio.wait_for(asking.reader.readuntil(b"\r\n0\r\n\r\n"), LIMIT_S)
        assert b"provider_broke_off" in rest

    async def goes_on(self, noted: Noted, comes_back: asyncio.Event) -> None:
        """A link that is there again in time: nobody notices."""
        asking = await self.opened("back/m", streamed=True)
        await asking.reader.readuntil(b"one\n\n")
        flow = noted.flows[self.user][0]
        self.cut(flow)
        comes_back.set()
        lost = self.world.wire.lost
        await until(lambda: self.world.wire.lost > lost + 10, LIMIT_S)
        self.world.wire.cut.discard(flow)
        rest = await asyncio.wait_for(asking.reader.readuntil(b"\r\n0\r\n\r\n"), LIMIT_S)
        assert b"data: two\n\n" in rest
        assert b"error" not in rest

    async def reads_late(self) -> None:
        """No peer that has vanished: its kernel says that it has no room for more."""
        asking = await client(self.world, self.gateway)
        await asking.post(json.dumps({"model": "late/m", "user": self.user, "x": "x" * LARGE_BYTES}).encode())
        assert (await told(asking))[0] == 200

    async def finds(self, model: str) -> None:
        """A name that has moved, while the old address says nothing any more.

        What was sent on a kept connection fails with it after so long, and is not sent again.
        """
        assert await self.answers(model) == b'{"by":"new"}'

    async def leaves(self, noted: Noted, model: str) -> None:
        """A client that vanishes, while it waits or reads: its request ends upstream."""
        asking = await self.opened(model, streamed=True)
        await until(lambda: self.user in noted.flows, LIMIT_S)
        if model == "read/m":
            await asking.reader.readuntil(b"one\n\n")
        self.cut(asking.writer.get_extra_info("sockname"))
        await until(lambda: self.user in noted.left, LIMIT_S)
        await until(lambda: last_of(self.gateway, model), LIMIT_S)
        assert last_of(self.gateway, model)["status"] == (200 if model == "read/m" else 499)


async def test_who_has_vanished_is_noticed(world, far, known):
    """Cut in every phase, without a word to anybody: it is found after 20 s, while the limits for those who
    are only slow are far longer."""
    comes_back = asyncio.Event()

    async def two(call: Call) -> None:
        await begins(call)
        await comes_back.wait()
        await call.send(b"b\r\ndata: two\n\n\r\n" + chunk(DONE) + b"0\r\n\r\n")

    async def drips(call: Call) -> None:
        await begins(call)
        while not call.reader.at_eof():
            await asyncio.sleep(0.2)
            await call.send(b"b\r\ndata: two\n\n\r\n")

    async def late(call: Call) -> None:
        head = await call.head()
        await asyncio.sleep(DEAD_S + 4)
        await call.body(head)
        await call.answer()

    await far.provider("late", late)
    _, old_at = await far.provider("moved", Noted(answers_once), "moved.test")
    known["moved.test"] = [old_at]
    new = await far.stands_in("10.9.1.99", answers(b'{"by":"new"}'))
    noted: dict[str, Noted] = {}
    for name, script in (
        ("kept", answers_once), ("idle", answers_once), ("silent", is_silent), ("mute", is_silent),
        ("begun", begins), ("back", two), ("left", is_silent), ("read", drips),
    ):  # fmt: skip
        noted[name] = Noted(script)
        await far.provider(name, noted[name])
    await far.provider("good", answers(b'{"by":"good"}'))
    far.text += '[aliases]\nover = { models = ["mute/m", "good/m"], strategy = "round-robin" }\n'
    async with both(world, far) as gateways:
        for_all = []
        for number, gateway in enumerate(gateways):
            scene = Scene(world, gateway, str(number))
            for_all += [
                scene.keeps(noted["kept"]), scene.rests(noted["idle"]), scene.fails(noted["silent"]),
                scene.can_fail_over(noted["mute"]),
                scene.breaks_off(noted["begun"]), scene.goes_on(noted["back"], comes_back),
                scene.reads_late(), scene.finds("moved/m"),
                scene.leaves(noted["left"], "left/m"), scene.leaves(noted["read"], "read/m"),
            ]  # fmt: skip
            assert (await scene.ask("moved/m"))[2] == b'{"by":"it"}'
        known["moved.test"] = ["10.9.1.99"]
        world.wire.cut.add(old_at)
        await asyncio.gather(*for_all)
        assert len(new.seen) == 2


# ---------------------------------------------------------------------- packets that are lost


async def test_lost_and_late_packets_change_nothing(world, far):
    """A tenth lost and a tenth overtaken, on both sides of the gateway: answers are whole to the byte."""

    async def script(call: Call) -> None:
        while True:
            _, body = await call.request()
            asked = json.loads(body)
            said = b"".join(b"data: %d %b\n\n" % (number, asked["user"].encode()) for number in range(20))
            if not asked["stream"]:
                await call.answer(said)
                continue
            await call.stream(end=False)
            for event in said.splitlines(keepends=True):
                await call.send(b"%x\r\n%b\r\n" % (len(event), event))
            await call.send(chunk(DONE) + b"0\r\n\r\n")

    await far.provider("p", script)
    async with both(world, far) as gateways:
        world.wire.loss = world.wire.late = 0.1

        async def one(number: int, gateway: Gateway) -> None:
            asking = await client(world, gateway)
            for turn in range(2):
                user = f"{number}-{turn}-" + "x" * 5000
                asked = {"model": "p/m", "stream": number % 2 == 0, "user": user}
                await asking.post(json.dumps(asked).encode())
                status, _, body = await asyncio.wait_for(asking.response(), LIMIT_S)
                expected = b"".join(b"data: %d %b\n\n" % (at, user.encode()) for at in range(20))
                expected += DONE if number % 2 == 0 else b""
                assert (status, body == expected) == (200, True)
            asking.close()

        await asyncio.gather(*(one(number, gateway) for number in range(8) for gateway in gateways))
        assert world.wire.lost > 50
        world.wire.loss = world.wire.late = 0.0
        for gateway in gateways:
            assert [line["status"] for line in lines(gateway.config.parent)] == [200] * 16


# ---------------------------------------------------------------------- links and names


async def test_a_link_that_is_down_and_up_again(world, far):
    """The gateway's own: what begins meanwhile fails at once, what runs goes on."""
    step = asyncio.Event()

    async def script(call: Call) -> None:
        await begins(call)
        await step.wait()
        await call.send(b"b\r\ndata: two\n\n\r\n0\r\n\r\n")

    noted = Noted(script)
    await far.provider("p", noted)
    async with both(world, far) as gateways:
        running = [await Scene(world, gateway, "u").opened("p/m", streamed=True) for gateway in gateways]
        for asking in running:
            await asking.reader.readuntil(b"one\n\n")
        near = []
        for gateway in gateways:
            sock = await asyncio.to_thread(world.here.connect, gateway.host_and_port)
            near.append(RawClient(*await asyncio.open_connection(sock=sock)))
        world.here.ip("link", "set", "wire", "down")
        for asking in near:
            await asking.post(b'{"model":"p/m"}')
            answer = await asyncio.wait_for(asking.response(), LIMIT_S)
            assert code_of(answer) == (503, "provider_unreachable")
        step.set()
        world.here.ip("link", "set", "wire", "up")
        world.lead()
        for asking in running:
            assert b"two" in await asyncio.wait_for(asking.reader.readuntil(b"\r\n0\r\n\r\n"), LIMIT_S)
        for gateway in gateways:
            assert (await Scene(world, gateway, "u").ask("p/m"))[0] == 200


async def test_a_name_server_that_is_silent(world, far, known):
    """Names of which nothing is heard hold up neither other names, nor the operator, nor the end."""
    _, at = await far.provider("good", answers(b'{"by":"good"}'), "good.test")
    known["good.test"] = [at]
    for number in range(6):
        known[f"silent{number}.test"] = None
        far.text += PROVIDER.format(name=f"silent{number}", host=f"silent{number}.test")
    async with both(world, far, connect="2s") as gateways:
        scenes = [Scene(world, gateway, "u") for gateway in gateways]
        hanging = [
            asyncio.create_task(scene.ask(f"silent{number}/m"))
            for scene in scenes for number in range(6) for _ in range(4)
        ]  # fmt: skip
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in hanging)
        for scene in scenes:
            assert (await scene.ask("good/m"))[2] == b'{"by":"good"}'
            assert (await admin(world, scene.gateway, "/admin/v1/routes"))["data"]
        for answer in await asyncio.gather(*hanging):
            assert (code_of(answer), story_of(answer)) == ((503, "provider_unreachable"), ["connect"])
            assert b"no connection within 2 s" in answer[2]
        for gateway in gateways:  # while the threads still ask
            gateway.signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.wait, 5) == 0


# ---------------------------------------------------------------------- certificates


async def near(gateway: Gateway, model: str) -> Answer:
    """The answer of a gateway in this network."""
    asking = RawClient(*await asyncio.open_connection(*gateway.host_and_port))
    await asking.post(b'{"model":"%b"}' % model.encode())
    return await told(asking)


async def test_authorities_that_are_rotated(tmp_path):
    """The provider has a certificate of a new authority: its file is all that has to be changed."""
    old, new = trustme.CA(), trustme.CA()
    old.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    old.issue_cert("localhost").configure_cert(tls)
    async with ScriptedProvider(tls) as provider:
        provider.script = answers(b"{}", extra=b"Connection: close\r\n")
        text = TEXT.format(connect="5s") + PROVIDER.format(name="p", host=f"localhost:{provider.port}")
        text = text.replace("http:", "https:").replace("auth = ", 'ca_file = "../ca.pem"\nauth = ')
        gateways = []
        for count in "12":
            (tmp_path / count).mkdir()
            gateways.append(Gateway(tmp_path / count, text, "--workers", count))
        async with running(*gateways):
            for gateway in gateways:
                assert (await near(gateway, "p/m"))[0] == 200
            new.issue_cert("localhost").configure_cert(tls)
            for gateway in gateways:
                answer = await near(gateway, "p/m")
                assert code_of(answer) == (503, "provider_unreachable")
                assert b"TLS: unable to get local issuer certificate" in answer[2]
            new.cert_pem.write_to_path(tmp_path / "ca.pem")
            for gateway in gateways:
                said = "the authorities in ca_file of provider p changed"
                await until(lambda gateway=gateway, said=said: said in gateway.log, LIMIT_S)
                # Each on a connection of its own: they come to both workers.
                assert {(await near(gateway, "p/m"))[0] for _ in range(12)} == {200}
                assert gateway.log.count(said) == 1
