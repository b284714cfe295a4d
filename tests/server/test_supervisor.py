"""Several workers: real processes, real signals; the supervisor runs in the test's own loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from itertools import count

import pytest

from proxy.server import supervisor as supervisor_module
from tests.support.fakes import Call, RawClient, answers, stepped, until
from tests.support.keys import ask as ask_with_key
from tests.support.keys import bearer, make
from tests.support.supervised import Running, children

NUMBERS = count()  # what fails only for one body is not blamed on the provider


async def ask(client: RawClient, model: bytes = b"two", stream: bool = False) -> tuple[int, bytes]:
    """Status, and who answered."""
    wish = b',"stream":true' if stream else b""
    await client.post(b'{"model":"%b","user":"%d"%b}' % (model, next(NUMBERS), wish))
    status, fields, _ = await client.response()
    return status, fields.get(b"x-inferoute-provider", b"")


async def is_whole(client: RawClient) -> bool:
    """Whether the answer that is under way comes to its end."""
    try:
        return bool(await client.reader.readuntil(b"\r\n0\r\n\r\n"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False


async def streaming(running: Running) -> list[RawClient]:
    """A client at each worker whose stream has begun."""
    clients = await running.one_each()
    for client in clients:
        await client.post(b'{"model":"a/m","stream":true}')
        await client.head()
    return clients


async def replaced(running: Running, *pids: int) -> None:
    await until(lambda: len(running.pids) == 2 and not {*pids} & {*running.pids}, 20)


def paced(seconds: dict[str, float]):
    """A provider that takes the time of ``seconds["now"]`` for every answer."""

    async def script(call: Call) -> None:
        while True:
            await call.request()
            await asyncio.sleep(seconds["now"])
            await call.answer()

    return script


async def test_a_key_may_ask_any_worker_about_itself(running):
    id, secret = await make(running, name="a")
    clients = await running.one_each(secret)
    ids = []
    for client in clients:
        status, fields, _ = await ask_with_key(client, secret, b'{"model":"a/m"}')
        assert status == 200
        ids.append(fields[b"x-inferoute-request-id"].decode())
    for client in clients:
        for path, names in (
            ("key", ["id"]),
            ("usage", ["data", 0, "requests"]),
            *((f"requests/{one}", ["id"]) for one in ids),
        ):
            await client.send(f"GET /v1/{path} HTTP/1.1\r\nHost: g\r\n".encode() + bearer(secret) + b"\r\n")
            status, _, body = await client.response()
            found = json.loads(body)
            assert status == 200, found
            for name in names:
                found = found[name]
            assert (status, found) == (200, {"key": id, "usage": 2}.get(path, path.partition("/")[2]))


async def test_the_children_are_exactly_the_workers_and_connections_are_spread(running):
    assert children() == set(running.pids)
    for client in await running.one_each():
        assert (await ask(client, b"a/m"))[0] == 200
    await until(lambda: running.row("a").snapshot(0.0)["finished"] == 2)
    rows = await running.supervisor.requests({})
    assert Counter(row["status"] for row in rows)[200] == 2
    assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)
    assert len(await running.supervisor.requests({"limit": "1"})) == 1
    with pytest.raises(ValueError, match="'limit' must be"):
        await running.supervisor.requests({"limit": "many"})
    clients = [await RawClient.connect(running) for _ in range(200)]
    whose: Counter[bytes] = Counter()
    for client in clients:
        await client.post(b'{"model":"none"}')
        whose[(await client.response())[1][b"x-inferoute-request-id"][:-8]] += 1
    assert len(whose) == 2
    assert min(whose.values()) >= 65  # a hash decides: 20 % off once in 200 times, 35 % never


async def test_a_slow_down_seen_by_one_worker_moves_the_other_within_100_ms(running, provider, other):
    times = {"now": 0.02}
    provider.script, other.script = paced(times), paced({"now": 0.05})
    one, two = await running.one_each()
    for client in (one, two) * 20:
        assert (await ask(client))[0] == 200
    assert (await ask(two))[1] == b"a"
    times["now"] = 0.3
    found = [await ask(one) for _ in range(3)]
    assert (200, b"a") in found
    while found[-1][1] == b"a":  # until this one has left
        found.append(await ask(one))
        assert len(found) < 10
    await asyncio.sleep(0.1)
    assert (await ask(two))[1] == b"b"  # which has not seen any of it


async def test_failures_at_both_workers_eject_and_the_supervisor_says_so(running, provider, caplog):
    provider.script = answers(status=b"500 No")
    one, two = await running.one_each()
    for client in (one, two, one, two, one):
        assert (await ask(client, b"a/m"))[0] == 500
    await until(lambda: "a/m is ejected for" in caplog.text)
    assert "answered 500" in caplog.text
    await asyncio.sleep(0.1)
    assert {(await ask(client))[1] for client in (one, two)} == {b"b"}


async def test_a_change_reaches_every_worker_before_it_is_told(running):
    clients = await running.one_each()
    for number in range(5):
        text = running.path.read_text()
        running.path.write_text(text + f'n{number} = ["a/m"]\n')
        changes = await running.supervisor._control.reloader.reload()
        assert changes.changed == [f"alias n{number} added"]
        for client in clients:
            assert (await ask(client, b"n%d" % number))[0] == 200
    running.path.write_text("nonsense")
    await running.supervisor.reload("SIGHUP")
    assert {(await ask(client, b"n4"))[0] for client in clients} == {200}


async def test_a_killed_worker_loses_its_own_requests_only_and_is_replaced(running, provider, caplog):
    step = asyncio.Event()
    provider.script = stepped(step)
    clients = await streaming(running)
    await until(lambda: running.row("a", True).snapshot(0.0)["in_flight"] == 2)
    before = running.pids
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: running.row("a", True).snapshot(0.0)["in_flight"] == 1)  # what it had is cleared
    await replaced(running, before[0])
    step.set()
    ends = [await is_whole(client) for client in clients]
    assert sorted(ends) == [False, True]
    await until(lambda: children() == set(running.pids), 15)
    assert f"worker 0 (process {before[0]}) was ended by SIGKILL" in caplog.text
    for client in await running.one_each():  # both serve
        assert (await ask(client, b"b/m"))[0] == 200


async def test_what_comes_for_a_dead_worker_waits_for_the_next(running):
    os.kill(running.pids[0], signal.SIGKILL)
    clients = [await RawClient.connect(running) for _ in range(20)]
    answers = await asyncio.wait_for(asyncio.gather(*(ask(client, b"a/m") for client in clients)), 20)
    # Those it had accepted before it was gone are lost; none is refused, and none hangs.
    assert {status for status, _ in answers} == {200}


async def test_a_new_worker_knows_what_the_others_do(running, provider, other):
    provider.script, other.script = paced({"now": 0.01}), paced({"now": 0.2})
    one, two = await running.one_each()
    for client in (one, two) * 5:
        await ask(client)
    old = running.pids
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    await replaced(running, *old)
    one, two = await running.one_each()
    assert [(await ask(client))[1] for client in (one, two)] == [b"a", b"a"]
    assert running.row("b").snapshot(0.0)["finished"] <= 3  # not asked anew by each


async def test_drain_lets_streams_finish_and_then_ends_all(running, provider):
    step = asyncio.Event()
    provider.script = stepped(step)
    clients = await streaming(running)
    drain = asyncio.get_running_loop().create_task(running.supervisor.drain())

    async def refused() -> bool:
        try:
            (await RawClient.connect(running)).close()
        except ConnectionRefusedError:
            return True
        return False

    async with asyncio.timeout(5):
        while not await refused():
            await asyncio.sleep(0.01)
    assert not drain.done()
    step.set()
    for client in clients:
        assert (await client.rest()).endswith(b"0\r\n\r\n")
    await asyncio.wait_for(drain, 10)
    await until(lambda: not children())


async def test_a_worker_that_doesnt_reply_is_killed_and_replaced(running, monkeypatch, caplog):
    monkeypatch.setattr(supervisor_module, "REPLY_S", 0.2)
    old = running.pids[0]
    os.kill(old, signal.SIGSTOP)
    running.path.write_text(running.path.read_text() + 'late = ["a/m"]\n')
    await running.supervisor._control.reloader.reload()
    assert "worker 0 can't apply the new configuration (no reply" in caplog.text
    await replaced(running, old)
    for client in await running.one_each():
        assert (await ask(client, b"late"))[0] == 200


async def test_a_restart_is_warm_and_what_was_learned_last_is_kept(running, tmp_path, provider, other):
    for client in await running.one_each():
        await ask(client, b"a/m")
    # A worker tells of a time at once, of the end within 20 ms, and what ends at once tells no more.
    await until(lambda: running.row("a").snapshot(0.0)["finished"] == 2)
    await running.supervisor.close()
    second, third = (Running(tmp_path, provider.url, other.url) for _ in range(2))
    await second.supervisor.start()
    assert second.row("a").speed.count == 2.0
    await ask((await second.one_each())[0], b"a/m")
    await second.supervisor.drain()
    await second.supervisor.close()
    await third.supervisor.start()
    assert third.row("a").snapshot(0.0)["finished"] == 3
    await third.supervisor.close()


async def test_counts_of_all_workers_outlive_them(running):
    """What workers have counted adds up, and a worker's death takes nothing of it back."""
    supervisor = running.supervisor
    for client in await running.one_each():
        await client.post(b'{"model":"a/m"}')
        assert (await client.response())[0] == 200

    async def served() -> int:
        totals = (await supervisor.count()).totals
        return sum(n[0] for labels, n in totals.items() if labels[:3] == ("used", "a", "a/m"))

    assert await served() == 2
    counted = await supervisor.count(True)
    assert counted.levels["workers",] == (2,)
    before = counted.totals["all",][0]
    assert before >= 4  # those that told which worker is which are counted as well
    pids = running.pids
    os.kill(pids[0], signal.SIGKILL)
    await replaced(running, pids[0])
    assert await served() == 2
    assert (await supervisor.count(True)).totals["all",][0] == before
