"""Every fault of a provider, whatever the client does meanwhile: what comes of it, and what is left.

The cells are in :mod:`tests.support.faults`. Each is played on real sockets through a gateway of its own, for
a key that may have one request at a time. What has to come of it is worked out here from the contract: the
answer, with no byte of another's; the ledger's line; who is struck for it; connections and limits as before,
nothing left behind.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.access.grants import KeyTable
from proxy.relay.exchange.exchange import CLIENT_LEFT
from proxy.server.single import Server
from proxy.wire.framing import ChunkedBody, LengthBody
from tests.support.fakes import RawClient, post
from tests.support.faults import (
    ALL,
    ANSWERS,
    BREAKS,
    CELLS,
    FAILS,
    FAULTS,
    FOREIGN,
    PATIENCE_S,
    REFUSES,
    ROUTES,
    Cell,
    Scene,
    nonsense,
    soon,
)
from tests.support.keys import SECRET, accounts_of, bearer, key_of
from tests.support.two_providers import Reply, deployment

DRIP_BYTES = 4096
DISGUISED = "an error as first event"  # is not charged by an estimate, whatever its status says
# What a request leaves nothing of.
KINDS = ("Exchange", "Attempt", "ProviderConnection", "ClientConnection", "DetachedClient", "Answer")


class Got(NamedTuple):
    """An answer as far as it came."""

    reply: Reply
    is_whole: bool


async def read(client: RawClient) -> Got:
    """Read an answer in drips, to its end or the connection's."""
    head = await client.head()
    lines = head.split(b"\r\n")[1:-2]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    assert len(fields) == len(lines), head
    status = int(head.split(b" ")[1])
    is_chunked = fields.get(b"transfer-encoding") == b"chunked"
    length = 0 if status in (204, 304) else int(fields.get(b"content-length", b"0"))
    body = ChunkedBody() if is_chunked else LengthBody(length)
    pieces = body.payload = []
    while not body.done:
        data = await client.reader.read(DRIP_BYTES)
        if not data:  # what is cut shows by its framing, and no byte that came is lost to a reset
            break
        assert body.feed(data) == len(data), "bytes behind the answer"
    return Got(Reply(status, fields, b"".join(pieces)), body.done)


# ---------------------------------------------------------------------- what has to come of it


def outcome(cell: Cell) -> str:
    """Of an attempt at the fault."""
    if cell.mode == "peeked" and cell.fault.peeked:
        return "error" if cell.kind == REFUSES else "reset"
    if cell.kind == FAILS and cell.fault.kind == BREAKS:
        return "timeout" if cell.is_late else "reset"
    return cell.fault.outcome


def told(cell: Cell) -> list[str]:
    """The attempts, as ``X-Inferoute-Attempts`` tells them."""
    faulty, good, what = cell.faulty, "ab".replace(cell.faulty, ""), outcome(cell)
    if cell.is_hedged:
        if not cell.is_rescued:
            return [f"{good}:hedged", f"{faulty}:{what}"]
        return [f"{faulty}:{'hedged' if cell.is_late else what}", f"{good}:200"]
    if cell.route == "second":
        return [f"a:{what if cell.part('a') == 'fault' else '500'}", f"b:{what}"]
    return [f"a:{what}", *(["b:200"] if cell.is_rescued else [])]


def without_redials(cell: Cell, story: str) -> str:
    """The story without the kept connections that closed as they were used again. These are told before the
    attempt, unless that lost a hedge before its connection closed."""
    if not cell.fault.warm:
        return story
    assert cell.is_hedged or f"{cell.faulty}:redial, " in story, story
    return re.sub("[ab]:redial, ", "", story)


def own_error(cell: Cell) -> tuple[int, str, str] | None:
    """Status, type and code of the gateway's own answer; None: the client gets a provider's."""
    if not cell.is_followed or cell.is_rescued:
        return None
    if cell.route == "alone":
        return None if cell.kind == REFUSES else (cell.fault.status, "provider_error", cell.fault.code)
    if cell.fault.outcome in ("429", "503"):
        return 429, "rate_limit_error", "providers_cooling_down"
    return 504 if outcome(cell) == "timeout" else 503, "provider_error", "all_attempts_failed"


def check_answer(cell: Cell, scene: Scene, got: Got) -> None:
    """What a client gets that stays."""
    reply = got.reply
    assert without_redials(cell, reply.story) == ", ".join(told(cell))
    assert reply.fields[b"x-inferoute-provider"] == told(cell)[-1][:1].encode()
    assert FOREIGN not in reply.body
    error = own_error(cell)
    if error is not None:
        assert got.is_whole
        assert scene.marker not in reply.body
        assert reply.kind == error
        assert (b"retry-after" in reply.fields) == (error[0] == 429)
        return
    said = scene.said[cell.last]
    assert b"x-should-retry" not in reply.fields
    assert reply.status == (200 if cell.is_rescued else cell.fault.status)
    if cell.fault.outcome in ("503", "429") and not cell.is_rescued:
        assert reply.fields[b"retry-after"] == b"30"
    if cell.kind != BREAKS:
        assert (reply.body, got.is_whole) == (said, True)
        return
    event = b'\n\ndata: {"error":{"message":"The provider \'%b\' ' % cell.last.encode()
    passed, is_event, error_text = (b"\n\n" + reply.body).rpartition(event)
    passed = passed[2:] + b"\n\n" if len(passed) > 2 else b""
    is_lossy = cell.fault.is_lossy and cell.client == "slow"
    assert got.is_whole == bool(is_event)
    if not is_event:
        passed = reply.body
    else:
        assert error_text.endswith(b'"type":"provider_error","code":"provider_broke_off","param":null}}\n\n')
    assert said.startswith(passed)
    assert b"[DONE]" not in reply.body
    if not is_lossy:
        assert passed == said
        assert bool(is_event) == (cell.fault.ends == "event")


def check_line(cell: Cell, line: dict[str, Any]) -> None:
    """The request's line in the ledger."""
    parts, status = told(cell), 0
    failed = parts if own_error(cell) is not None else parts[:-1]
    charge = "none"
    if cell.phase:
        status, parts, failed, charge = of_one_that_left(cell)
    elif own_error(cell) is not None:
        status = own_error(cell)[0]
        charge = "estimated" if cell.fault.is_work else "none"
    else:
        status = 200 if cell.is_rescued else cell.fault.status
        if status == 200:
            charge = "provider" if cell.is_rescued or cell.kind == ANSWERS else "estimated"
            charge = "none" if passes_error(cell) else charge
    assert line["status"] == status
    assert line["attempts"] == len(parts)
    told_failed = re.sub(r":\d+ms", "", line.get("failed", ""))
    if cell.fault.warm:
        told_failed = re.sub("[ab]:redial, ", "", told_failed)
    assert told_failed == ", ".join(failed)
    assert line["stream"] == (cell.mode != "plain")
    assert line["asked"] == {"alone": "a/m"}.get(cell.route, "hedged" if cell.is_hedged else "two")
    assert line["key"] == "key_1"
    if charge == "none":
        assert "input" not in line and "source" not in line
    elif charge == "provider":
        assert (line["input"], line["output"], line["source"]) == (7, 3, "provider")
    else:
        assert line["source"] == "estimated"
        assert line["input"] > 0
    assert [one["provider"] for one in line.get("hedged", [])] == losers(cell)


def losers(cell: Cell) -> list[str]:
    """Who is charged beside the answer: who had the request, and was closed for no fault of its own, or whose
    answer was refused for what its client may have done."""
    if cell.fault.is_work and (cell.is_rescued or cell.route == "second"):
        return ["a"] if cell.route == "second" else [cell.faulty]
    if not cell.is_hedged or cell.phase == "connecting":
        return []
    if cell.phase == "waiting":
        return [] if cell.fault.reads == "nothing" else ["a"]
    name, _, what = told(cell)[0].partition(":")
    return [name] if what == "hedged" and not (cell.fault.url and name == cell.faulty) else []


def of_one_that_left(cell: Cell) -> tuple[int, list[str], list[str], str]:
    """Status, attempts, those that failed, and what is charged."""
    parts = told(cell)
    if cell.phase == "connecting":
        return CLIENT_LEFT, parts, parts[:-1], "none"
    if cell.phase == "waiting":
        charge = "none" if cell.fault.early == "half" else "estimated"
        is_alone = cell.is_hedged and not (cell.fault.reads == "nothing" and not cell.is_late)
        return CLIENT_LEFT, parts, [] if is_alone else parts[:-1], charge
    if cell.fault.peeked and cell.mode == "peeked":  # nothing has reached the client
        parts = parts[:1] if cell.route == "failover" else parts
        return CLIENT_LEFT, parts, parts[:-1], "estimated"
    status = 200 if cell.is_rescued else cell.fault.status
    is_good = status == 200 and cell.fault.name != DISGUISED
    return status, parts, parts[:-1], "estimated" if is_good else "none"


def passes_error(cell: Cell) -> bool:
    """The client gets an error with the status 200, which nobody held."""
    return cell.kind == ANSWERS and cell.fault.name == DISGUISED and cell.phase in ("", "body")


def blamed(cell: Cell) -> list[str]:
    """Who is struck: who failed before its client left, and neither asked for patience nor refused a key."""
    parts = told(cell)
    passes_failure = cell.kind == REFUSES and cell.route == "alone" and cell.phase in ("", "body")
    if cell.phase and not passes_failure:
        parts = of_one_that_left(cell)[2]
    elif own_error(cell) is None and not passes_failure:
        parts = parts if cell.kind == BREAKS else parts[:-1]
    harmless = {"hedged", "200", "401", "429", "503"}
    struck = [name for name, _, what in (part.partition(":") for part in parts) if what not in harmless]
    is_broken = cell.kind == BREAKS and not cell.phase
    return [*struck, *([cell.faulty] if is_broken or passes_error(cell) else [])]


def kept(cell: Cell, name: str) -> int:
    """Connections to a provider that are left for others."""
    asked = {part[0] for part in told(cell)}
    if cell.phase == "body" and cell.route == "failover":
        asked = {"a"}
    if name not in asked:
        return int(cell.fault.warm)
    is_whole = cell.is_rescued or (cell.kind != BREAKS and own_error(cell) is None)
    ends_well = is_whole and not cell.phase and name == cell.last
    return int(ends_well and (cell.is_rescued or cell.fault.keeps))


# ---------------------------------------------------------------------- how it is played


class Stage:
    """A gateway with a key that may have one request at a time, and what there was before the request."""

    def __init__(self, server: Server, state: Path, *, reads_body: bool) -> None:
        """``reads_body``: the key's limits go by the body, which is held until it is complete."""
        self.server = server
        self._state = state
        accounts = accounts_of(memory=memoryview(bytearray(4096)))  # only the first is used
        # Who leaves has left: what is read on for the bill is test_detached_client.py's.
        limits: dict[str, Any] = {"concurrency": 1, "rpm": 100, "on_disconnect": "cancel"}
        if reads_body:
            limits |= {"tpm": 10**9, "monthly_nusd": 10**15}
        server.gateway.take_keys(KeyTable([(key_of(**limits), 0)], accounts, is_open=False))
        self.account = accounts.own_of(0)

    async def ask(self, client: RawClient, name: str) -> None:
        """One more request, which nothing is wrong with."""
        marker = secrets.token_hex(8).encode()
        await client.send(post(b'{"model":"%b/m","id":"%b"}' % (name.encode(), marker), extra=bearer(SECRET)))
        got = await read(client)
        assert (got.reply.status, got.reply.story, got.is_whole) == (200, f"{name}:200", True), got
        assert got.reply.body == b'{"model":"m","id":"%b"}' % marker

    def open(self) -> dict[str, int]:
        """Connections to each provider, open or being opened."""
        pools = {name: one.pool.snapshot() for name, one in self.server.gateway.providers.items()}
        return {name: pool["open"] + pool["dialling"] for name, pool in pools.items()}

    def is_at_rest(self) -> bool:
        gateway = self.server.gateway
        rows = [row for one in gateway.catalog.deployments.values() for row in one.rows().values()]
        counts = [count for row in rows for count in (row.in_flight, row.awaiting)]
        held = self.account.running, self.account.held, self.account.held_nusd
        return not any((*counts, *held, gateway.detached))

    def lines(self) -> list[dict[str, Any]]:
        """The ledger."""
        found = sorted(Path(f"{self._state}-ledger").glob("*.jsonl"))
        return [json.loads(line) for path in found for line in path.read_bytes().splitlines()]

    def check_books(self) -> None:
        """What the key has used is what its lines say."""
        lines = self.lines()
        charges = [one for line in lines for one in (line, *line.get("hedged", []))]
        assert self.account.month_tokens == sum(one.get("input", 0) + one.get("output", 0) for one in charges)
        assert self.account.month_nusd == sum(one.get("nusd") or 0 for one in charges)

    @asynccontextmanager
    async def nothing_left(self) -> AsyncIterator[None]:
        """What comes inside leaves no connection, task, object or file behind."""
        tasks, files = asyncio.all_tasks(), self._files()
        gc.freeze()  # only what is made from here on is looked at
        try:
            yield
            gateway = self.server.gateway
            for provider in gateway.providers.values():
                await provider.pool.close()
            await soon(lambda: not gateway.connections and self.open() == {"a": 0, "b": 0})
            await soon(lambda: asyncio.all_tasks() <= tasks)
            await soon(lambda: self._files() == files)
            assert self.is_at_rest()
            await soon(lambda: not self._objects())
        finally:
            gc.unfreeze()

    def _objects(self) -> list[object]:
        gc.collect()
        return [one for one in gc.get_objects() if type(one).__name__ in KINDS]

    def _files(self) -> int:
        """How many are open, but for those of the ledger and the database."""
        count = 0
        for number in os.listdir("/proc/self/fd"):
            try:
                path = os.readlink(f"/proc/self/fd/{number}")
            except FileNotFoundError:  # the directory's own
                continue
            count += not path.startswith(str(self._state.parent))
        return count


async def send(scene: Scene, client: RawClient) -> None:
    request = post(scene.body(), extra=bearer(SECRET))
    half = len(request) - 4
    client.writer.write(request[:half] if scene.cell.fault.early == "half" else request)


async def stay(scene: Scene, stage: Stage) -> RawClient | None:
    """The client reads to the end. Returns it, if its connection is still good."""
    cell, slow = scene.cell, scene.cell.client == "slow"
    client = await (RawClient.slow(stage.server) if slow else RawClient.connect(stage.server))
    await send(scene, client)
    if slow:
        await soon(lambda: scene.running() is not None and scene.running().client_full_at)
    got = await read(client)
    check_answer(cell, scene, got)
    if got.is_whole and got.reply.fields.get(b"connection") != b"close":
        assert cell.fault.early != "half"
        return client
    assert await client.rest() == b""
    assert not got.is_whole or cell.fault.early == "half"
    client.close()
    return None


async def leave(scene: Scene, stage: Stage) -> None:
    """The client leaves in the middle."""
    cell = scene.cell
    client = await RawClient.connect(stage.server)
    await send(scene, client)
    if cell.phase == "connecting":
        pool = stage.server.gateway.providers[cell.faulty].pool
        await soon(lambda: pool.snapshot()["dialling"])
    else:
        waited = {name for name in "ab" if cell.holds(name) and name in {part[0] for part in told(cell)}}
        if cell.fault.reads == "nothing":
            waited.discard(cell.faulty)
        await soon(lambda: scene.holding == waited)
    if cell.phase == "body" and not (cell.fault.peeked and cell.mode == "peeked"):
        head = await client.head()
        assert b"\r\nX-Inferoute-Attempts: " in head
    client.close()
    await soon(lambda: not stage.server.gateway.connections)
    # The provider is left at once, and not when it does something.
    await soon(lambda: stage.open() == {name: kept(cell, name) for name in "ab"})
    assert stage.is_at_rest()
    scene.left.set()


# How many cells there are not, and why: so that none gets lost with a change of the rules.
LEFT_OUT = {
    "there is nothing that fills a buffer": 142,
    "nobody is dialled for long, or it is all the same who else there is": 598,
    "it happens before anybody can leave": 24,
    "there is no body": 131,
    "it is held to its end: as while it is waited for": 136,
    "from its head on, the good answer is like any that follows: as failover": 73,
    "both are waited for, and from the head on it is all the same whose it is: as hedge": 415,
    "the fault is none of such answers": 1000,
    "what was generated until 'total' was over is not asked for anew": 25,
    "its body is not for the client": 15,
    "nothing follows: as alone": 276,
    "what nothing can follow is not peeked at": 160,
    "only what may go elsewhere is held until it is complete; it is not kept, and nothing follows": 115,
}  # fmt: skip


def test_no_cell_is_lost():
    reasons = Counter(filter(None, map(nonsense, ALL)))
    assert reasons == LEFT_OUT
    assert (len(FAULTS), len(ALL), len(CELLS)) == (62, 4650, 1540)
    assert len({cell.id for cell in ALL}) == len(ALL)
    for fault in FAULTS:
        routes = {cell.route for cell in CELLS if cell.fault is fault and cell.client == "stays"}
        assert routes == (
            {"alone"} if fault.early == "half" else {"failover"} if fault.early else set(ROUTES)
        )


# Faults whose clients also leave, and whose streams are peeked at, in each run and not only in the long one.
USUAL = {"never picks up", "closes", "500", "interim first", DISGUISED, "early", "events, closes"}


def is_in_each_run(cell: Cell) -> bool:
    if cell.client == "stays" and cell.mode != "peeked":
        return True
    return cell.fault.name in USUAL and cell.client != "slow"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: a thousand of them take seconds."""
    return tmp_path_factory.mktemp("matrix")


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(
            cell,
            id=cell.id,
            marks=() if is_in_each_run(cell) else pytest.mark.long,
        )
        for cell in CELLS
    ],
)
async def test_whatever_fails(cell, provider, other, start, folder, caplog):
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    state = folder / f"{CELLS.index(cell)}.db"
    with ExitStack() as stack:
        scene = Scene(cell, {"a": provider, "b": other}, stack)
        server = scene.server = await start(scene.text(str(state)))
        if cell.client == "slow":
            for listener in server._plane._acceptors:
                listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        async with asyncio.timeout(2 * PATIENCE_S):
            await play(scene, Stage(server, state, reads_body=cell.fault.name != "early"))
    assert faults == []
    assert [one for one in caplog.records if one.exc_info or "a fault" in one.getMessage()] == []


async def play(scene: Scene, stage: Stage) -> None:
    cell, asked = scene.cell, 0
    async with stage.nothing_left():
        if cell.fault.warm:
            client = await RawClient.connect(stage.server)
            for name in "ab":
                await stage.ask(client, name)
                asked += 1
            client.close()
            await soon(lambda: not stage.server.gateway.connections)
            for provider in scene.providers.values():
                provider.seen.clear()
        scene.is_on = True
        left = await leave(scene, stage) if cell.phase else await stay(scene, stage)
        await soon(stage.is_at_rest)
        members = ((name, deployment(stage.server, f"{name}/m")) for name in "ab")
        struck = [name for name, one in members for _ in range(one.breaker.failures)]
        assert struck == sorted(blamed(cell))
        scene.is_on = False
        scene.exchange = None
        await soon(lambda: stage.open() == {name: kept(cell, name) for name in "ab"})
        await soon(stage.is_at_rest)
        seen = len(stage.lines())
        client = left or await RawClient.connect(stage.server)
        for name in scene.reachable():
            await stage.ask(client, name)
        client.close()
    lines = stage.lines()
    assert seen == asked + 1
    assert len(lines) == seen + len(scene.reachable())
    check_line(cell, lines[asked])
    stage.check_books()
