"""The soak: what it finds in made-up answers, lines and samples; and a short run of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest

from tests.e2e import ROOT, environment

sys.path.append(str(ROOT / "benchmarks"))

from soak import plans
from soak.books import Books, Expected, Sample, Slope, percentile, read_metrics, slope
from soak.client import Answer, Late, Wire, Wrong, judge, judge_refused
from soak.gateway import Governors
from soak.run import Soak, compare, is_explained
from soak.watch import Watch

SLOW_S = (10.0, 120.0)
LINE = {
    "id": "req_0123456789ab00000001", "t": 1.5, "key": None, "endpoint": "chat", "stream": False,
    "asked": "a/m",
    "model": "a/m", "provider": "a", "status": 200, "attempts": 1, "ms": 1.0, "input": 11, "output": 6,
    "nusd": 23, "source": "provider",
}  # fmt: skip
ID = LINE["id"].encode()
EXPECTED = Expected(1, 200, (11, 6), None)


# ---------------------------------------------------------------------- plans


def planned(number: int, kind: str, provider: str = "f", seed: int = 1) -> plans.Plan:
    return plans.plan(seed, number, provider, kind, SLOW_S)


def number_of(fate: str, kind: str) -> int:
    """A request that meets this fate."""
    return next(number for number in range(1, 5000) if planned(number, kind).fate == fate)


@pytest.mark.parametrize("kind", ["plain", "slow"])
def test_every_fate_is_met_and_by_the_same_number_each_time(kind):
    fates = {"good", *plans.BEFORE, *plans.WITHIN} | ({plans.TOLD} if kind == "slow" else set())
    drawn, again, other = ([planned(number, kind, seed=seed) for number in range(5000)] for seed in (1, 1, 2))
    assert {one.fate for one in drawn} == fates
    assert drawn == again != other


def test_slow_streams_are_as_long_as_they_are_to_be():
    drawn = [planned(number, "slow", "a") for number in range(500)]
    took_s = [one.events * one.gap_s for one in drawn]
    assert 8 < min(took_s) < 20
    assert 100 < max(took_s) <= 120


# ---------------------------------------------------------------------- the books


@pytest.fixture
def books(tmp_path) -> Books:
    return Books(tmp_path / "ledger")


def line(**more: object) -> bytes:
    return json.dumps(LINE | more).encode()


def answer(books: Books) -> None:
    books.expect(ID, EXPECTED)


def entry(books: Books) -> None:
    books.take(line())


def left(books: Books) -> None:
    books.expect_maybe(1)


def refused(books: Books) -> None:
    books.expect_none(ID)


# What comes, in its order; whether the provider read the request; lost and surplus lines, and doubled ones.
@pytest.mark.parametrize(
    ("acts", "was_read", "lost", "surplus", "doubled"),
    [
        ([answer, entry], True, 0, 0, 0),
        ([entry, answer], True, 0, 0, 0),
        ([answer], True, 1, 0, 0),
        ([answer, entry, entry], True, 0, 0, 1),
        ([entry, entry, answer], True, 0, 0, 1),
        ([entry], False, 0, 1, 0),  # nobody knows it
        ([left], False, 0, 0, 0),  # who left early may have a line,
        ([left, entry], False, 0, 0, 0),
        ([left], True, 1, 0, 0),  # and has one if the provider read the request
        ([left, entry], True, 0, 0, 0),
        ([refused], False, 0, 0, 0),
        ([refused, left, entry], False, 0, 1, 0),  # though leaving would explain it
    ],
)
def test_a_line_for_each_request(books, acts, was_read, lost, surplus, doubled):
    for act in acts:
        act(books)
    assert books.close({1} if was_read else set()) == (lost, surplus)
    assert books.doubled == doubled
    if [*map(acts.count, (answer, entry))] == [1, 1]:
        assert (books.fault_count, books.provided) == (0, [1, 11, 6])
    if lost and answer in acts:
        assert "no line" in books.faults[0]


@pytest.mark.parametrize(
    "wrong", [{"status": 500}, {"key": "key_1"}, {"input": 12}, {"output": 5}, {"source": "estimated"}]
)
def test_a_line_that_says_something_else(books, wrong):
    books.expect(ID, EXPECTED)
    books.take(line(**wrong))
    assert books.fault_count == 1
    books.take(line()[:-9])  # that is no line
    assert books.fault_count == 2


def test_files_are_read_on_from_where_they_were(books):
    books.directory.mkdir()
    file = books.directory / "0000000000001-000-000000.jsonl"
    whole = line() + b"\n"
    file.write_bytes(whole + whole[:10])
    books.read()
    books.read()
    assert books.lines == 1
    second = line(id="req_0123456789ab00000002") + b"\n"
    file.write_bytes(whole + second + b"half")
    books.pieces[file.name] = second[:10]
    books.read()
    assert (books.lines, books.doubled) == (2, 0)
    books.expect(ID, EXPECTED)
    books.expect(ID[:-1] + b"2", EXPECTED)
    assert books.close({1}) == (0, 0)
    assert "half a line" in books.faults[0]


def test_totals_are_the_sum_of_the_lines(books):
    hedged = [{"model": "b/m", "provider": "b", "input": 1, "output": 2, "nusd": 3}]
    books.take(line())
    books.take(line(id="req_0123456789ab00000002", hedged=hedged, status=502))
    row = {"key": "", "key_id": "", "model": "a/m", "provider": "a", "requests": 2, "errors": 1,
           "input_tokens": 22, "output_tokens": 12, "usd": 46e-9}  # fmt: skip
    lost = row | {"model": "b/m", "provider": "b", "requests": 0, "errors": 0, "input_tokens": 1,
                  "output_tokens": 2, "usd": 3e-9}  # fmt: skip
    assert compare([row, lost], books) == []
    assert len(compare([row], books)) == 3
    assert compare([row | {"requests": 3}, lost], books) == ["(None, 'a/m', 'a', 'requests'): 3 instead of 2"]
    assert compare([row, lost, row | {"model": "new"}], books) != []


# ---------------------------------------------------------------------- growth


def test_a_slope_with_its_error():
    rng = Random(1)
    noise = [(float(at), 100.0 + rng.gauss(0, 5)) for at in range(0, 1200, 2)]
    flat, growing = slope(noise), slope([(x, y + x / 60 * 10) for x, y in noise])
    assert flat is not None
    assert growing is not None
    assert abs(flat.per_min) < 3 * flat.error
    assert growing.per_min == pytest.approx(10, abs=3 * growing.error)
    assert 0 < growing.error < 1
    assert slope(noise[:5]) is None


def test_what_counts_as_flat():
    assert Slope(100, 60).is_flat(1)  # it can't be told from nothing
    assert Slope(0.9, 0.01).is_flat(1)  # it can, but does not matter
    assert Slope(-100, 1).is_flat(1)
    assert not Slope(100, 40).is_flat(1)


def test_percentiles_of_a_histogram():
    text = '# TYPE lag histogram\nlag_bucket{le="0.1"} 90\nlag_bucket{le="1"} 99\nlag_bucket{le="+Inf"} 100\n'
    buckets = read_metrics(text)["lag_bucket"]
    shares = (0.5, 0.9, 0.95, 0.995)
    assert [percentile(buckets, share) for share in shares] == [0.1, 0.1, 1.0, float("inf")]
    assert percentile({}, 0.5) == 0.0


Course = Callable[[float], float]


def growth(minutes: float, rss_kib: Course, fds: Course, *, tls: bool = False) -> list[str]:
    """Which bars a run fails whose two processes went like this, by the minute."""
    soak = Soak(argparse.Namespace(minutes=minutes, streams=100, workers=2, seed=1, tls=tls), Path())
    rng = Random(1)
    for step in range(601):
        at_s, shift = minutes * 60 * step / 600, 100 * step  # streams go over from one to the other
        both = fds(at_s / 60) / 2
        for pid, count in ((1, both + shift), (2, both - shift)):
            kib, files = rss_kib(at_s / 60) + rng.gauss(0, 300), int(count + rng.gauss(0, 20))
            soak.samples.setdefault(pid, []).append(Sample(at_s, kib, files, 0, 0.0))
    rows = soak._hold_growth()
    assert [row["process"] for row in rows] == ["governs", "serves 1"]
    return [re.sub(r" [+-]?[0-9.]+( ± [0-9.]+)?\b", "", bar) for bar in soak.failed]


def test_growth_of_a_long_run():
    assert growth(60, lambda _: 70_000, lambda _: 2000) == []
    assert growth(60, lambda at: 70_000 + 60_000 * min(at / 15, 1), lambda _: 2000) == []  # while it warms up
    too_much = ["growth: governs: KiB a minute", "growth: serves: KiB a minute"]
    assert growth(60, lambda at: 70_000 + 60 * at, lambda _: 2000) == too_much
    assert growth(60, lambda at: 70_000 + 60 * at, lambda _: 2000, tls=True) == []
    assert growth(60, lambda _: 70_000, lambda at: 2000 + 3 * at) == ["growth: descriptors a minute"]


def test_growth_of_a_short_time_is_none_but_a_flood():
    assert growth(1, lambda at: 70_000 + 30_000 * at, lambda at: 100 + 2000 * at) == []
    flood = ["growth: governs: MiB", "growth: serves: MiB"]
    assert growth(1, lambda at: 70_000 + 470_000 * at, lambda _: 2000) == flood
    assert growth(1, lambda at: 70_000 + 470_000 * at, lambda _: 2000, tls=True) == []
    assert growth(1, lambda at: 70_000 + 500_000 * at, lambda _: 2000, tls=True) == flood


# ---------------------------------------------------------------------- answers


def came(data: bytes, number: int, provider: str = "f", *, whole: bool = True) -> Answer:
    """What a client has of this answer. ``whole``: else the connection is closed behind it."""

    async def receive() -> Answer:
        ours, theirs = socket.socketpair()
        with theirs:
            _, wire = await asyncio.get_running_loop().create_connection(Wire, sock=ours)
            answer = wire.begin({provider: plans.marker(number, provider).encode()})
            theirs.sendall(data)
            if not whole:
                theirs.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(20):
                await answer.ended
            wire.transport.abort()
            await asyncio.sleep(0)
        return answer

    return asyncio.run(receive())


def head(status: bytes, kind: bytes, framing: bytes, *, ours: bool = False) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: " + kind, b"X-Inferoute-Request-Id: " + ID, framing]
    lines += [b"X-Inferoute-Provider: f", b"X-Inferoute-Attempts: f:200:1ms"]
    if ours:
        lines.append(b"x-should-retry: true")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def plain(body: bytes, status: bytes = b"200 OK", *, ours: bool = False) -> bytes:
    return head(status, b"application/json", b"Content-Length: %d" % len(body), ours=ours) + body


def events(pieces: list[bytes], *, end: bool = True) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    begin = head(b"200 OK", b"text/event-stream", b"Transfer-Encoding: chunked")
    return begin + chunks + (b"0\r\n\r\n" if end else b"")


def verdict(data: bytes, number: int, kind: str, *, pinned: bool = True, whole: bool = True) -> str:
    """The judgement; "wrong: …" where it is that."""
    answer = came(data, number, whole=whole)
    try:
        return judge(answer, number, kind, planned(number, kind), pinned=pinned)
    except Wrong as fault:
        return f"wrong: {fault}"


def stream_of(number: int, count: int) -> list[bytes]:
    return [plans.event(number, "f", at, "quick", False) for at in range(count)]


def test_whole_answers():
    number = number_of("good", "plain")
    body = plans.answer(number, "f", "plain", planned(number, "plain"))
    assert verdict(plain(body), number, "plain") == "whole"
    assert "cut, though" in verdict(plain(body)[:-1], number, "plain", whole=False)
    assert "status 500" in verdict(plain(body, b"500 Oops"), number, "plain")
    assert "no request id" in verdict(plain(body).replace(ID, b"x"), number, "plain")
    other = body.replace(plans.marker(number, "f").encode(), plans.marker(number + 1, "f").encode())
    assert "an answer to another request" in verdict(plain(other), number, "plain")


def test_whole_streams():
    number = number_of("good", "quick")
    plan = planned(number, "quick")
    numbered, last = stream_of(number, plan.events), [plans.last_events(number, plan), plans.DONE]
    assert verdict(events([*numbered, *last]), number, "quick") == "whole"
    for sent, why in (
        ([*numbered[1:], *last], "is missing or out of order"),
        ([*numbered[:-1], *last], "events"),
        ([*last, *numbered], "behind the last"),
        ([*numbered, last[0]], "ends with"),
        ([*numbered, last[1]], "usage"),
        ([*numbered, *stream_of(number + 1, 1), *last], "of another request"),
    ):
        assert why in verdict(events(sent), number, "quick")
    assert "cut, though" in verdict(events([*numbered, *last], end=False), number, "quick", whole=False)


def test_streams_that_break_off():
    number = number_of("cut_within", "quick")
    numbered = stream_of(number, planned(number, "quick").at)
    told = b'data: {"error":{"code":"provider_broke_off"}}\n\n'
    assert verdict(events(numbered, end=False), number, "quick", whole=False) == "cut"
    assert verdict(events([*numbered, told]), number, "quick") == "told within"
    assert "looks whole" in verdict(events([*numbered, plans.DONE]), number, "quick")
    assert "looks whole" in verdict(events(numbered), number, "quick")
    assert "behind" in verdict(events([told, *stream_of(number, 1)]), number, "quick")


def test_errors_of_providers():
    number = number_of("e500", "plain")
    body = plans.error(number, "f", 500)
    assert verdict(plain(body, b"500 Oops"), number, "plain") == "passed 500"
    assert "fate was e500" in verdict(plain(body), number, "plain")
    assert "fate was e500" in verdict(plain(plans.error(number + 1, "f", 500), b"500 Oops"), number, "plain")


def ours(status: int, code: str) -> bytes:
    return plain(json.dumps({"error": {"code": code}}).encode(), b"%d X" % status, ours=True)


def test_errors_of_the_gateway():
    reset, good = number_of("reset", "plain"), number_of("good", "plain")
    assert verdict(ours(502, "provider_bad_answer"), reset, "plain") == "told 502"
    assert verdict(ours(503, "overloaded"), good, "plain") == "shed"
    assert verdict(ours(502, "provider_bad_answer"), good, "plain").startswith("wrong")
    assert verdict(ours(500, ""), good, "plain", pinned=False).startswith("wrong")
    assert verdict(ours(503, "all_attempts_failed"), good, "plain", pinned=False) == "told 503"
    assert verdict(ours(503, "all_attempts_failed"), reset, "plain").startswith("wrong")


def test_a_provider_that_was_starved_explains_what_is_late():
    number = number_of("good", "plain")
    answer = came(ours(504, "provider_timeout"), number)
    with pytest.raises(Late):
        judge(answer, number, "plain", planned(number, "plain"), pinned=True)
    assert is_explained(100.0, [(80.0, 93.0)])
    assert is_explained(100.0, [(1.0, 2.0), (95.0, 101.0)])
    assert not is_explained(100.0, [(80.0, 87.0), (101.0, 110.0)])
    assert not is_explained(100.0, [])


def test_refusals():
    answer = came(ours(401, "invalid_api_key"), 1)
    with pytest.raises(Wrong):  # a provider was asked
        judge_refused(answer, {(401, "invalid_api_key")})
    del answer.fields[b"x-inferoute-attempts"]
    assert judge_refused(answer, {(401, "invalid_api_key")}) == "refused 401"
    answer.status = 429
    with pytest.raises(Wrong, match="until when"):
        judge_refused(answer, {(429, "invalid_api_key")})
    answer.fields[b"retry-after"] = b"1"
    assert judge_refused(answer, {(429, "invalid_api_key")}) == "refused 429"
    with pytest.raises(Wrong):
        judge_refused(answer, {(403, "invalid_api_key")})


# ---------------------------------------------------------------------- ends


def test_who_governs_ends_though_a_fault_comes_in_place_of_the_end():
    """With the fault the cancelling is forgotten, and nobody cancels twice."""
    soak = Mock()

    async def run() -> None:
        governors = Governors(None, soak, 1, 0.0, 1.0)
        begun = asyncio.Event()

        async def meets_a_fault() -> None:
            is_first = not begun.is_set()
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                if is_first:
                    raise Wrong("as it ended")

        governors.tasks = [asyncio.ensure_future(governors._every(0.0, meets_a_fault))]
        async with asyncio.timeout(20):
            await begun.wait()
            await governors.stop()
        assert [task.done() for task in governors.tasks] == [True]

    asyncio.run(run())
    [(_, wrong)] = [call.args for call in soak.note_wrong.call_args_list]
    assert wrong == "meets_a_fault: Wrong('as it ended')"


def test_a_watcher_that_is_cancelled_as_the_head_comes_ends():
    """As one that is cancelled at any other moment."""

    async def run() -> None:
        loop = asyncio.get_running_loop()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            # The head is in the reader's buffer, and whoever waits for it goes on in a next turn.
            await seen.wait()
            writer.close()

        seen, waits = asyncio.Event(), asyncio.StreamReader._wait_for_data

        async def wait_for_data(self: asyncio.StreamReader, name: str) -> None:
            await waits(self, name)
            if name == "readuntil" and self._buffer.startswith(b"HTTP"):
                loop.call_soon(watching.cancel)
                seen.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        gateway = Mock(admin_port=server.sockets[0].getsockname()[1])
        watching = asyncio.ensure_future(Governors(gateway, None, 1, 1000.0, 1.0).watch())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "_wait_for_data", wait_for_data)
            async with asyncio.timeout(20):
                await asyncio.wait([watching])
        assert watching.cancelled()
        server.close()

    asyncio.run(run())


def test_what_hangs_says_where():
    told: list[str] = []
    has_told = threading.Event()

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        tasks = [asyncio.ensure_future(waits_for_ever()) for _ in range(3)]
        watch.begin("nothing of interest", 60.0)
        await asyncio.sleep(0)
        watch.begin("the end of the world", 0.0)
        assert await asyncio.to_thread(has_told.wait, 20)
        for task in tasks:
            task.cancel()

    async def in_time() -> None:
        patient.begin("the end", 60.0)

    patient = Watch(told.append)
    with patient.running():
        asyncio.run(in_time())
    assert told == []
    watch = Watch(lambda text: (told.append(text), has_told.set()))
    with watch.running():
        asyncio.run(run())
    [text] = told
    assert text.startswith("waited 0 s for the end of the world\n  main thread: ")
    assert re.search(r"\n  3 tasks: .*waits_for_ever:\d+ > Event.wait:\d+(\n|$)", text)


def test_a_soak_that_hangs_ends_with_all_that_it_has_started(tmp_path):
    """The processes hold the pipe: it is at its end when all of them have gone."""
    code = (
        "import asyncio, subprocess, sys; from soak.watch import Watch, end_all; watch = Watch(end_all)\n"
        "async def hang():\n"
        "    subprocess.Popen(['sleep', '1000'])\n"
        "    watch.begin('good luck', 0.0)\n"
        "    while True: pass\n"
        "with watch.running(): asyncio.run(hang())"
    )
    environ = environment(PYTHONPATH=str(ROOT / "benchmarks"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED hangs: waited 0 s for good luck\n  main thread: hang:5\n")


# ---------------------------------------------------------------------- a run


@pytest.mark.parametrize(("streams", "seconds", "workers", "tls"), [(2000, 30, 2, False), (100, 5, 1, True)])
@pytest.mark.long
def test_a_short_run(tmp_path, streams, seconds, workers, tls):
    """Of growth only a flood is a bar here: in so short a time all memory is new. All other bars hold."""
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks/soak"), "--json", str(report), "--seed", "3"]
    command += ["--minutes", str(seconds / 60), "--streams", str(streams), "--workers", str(workers)]
    command += ["--tls"] if tls else []
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert (told["failed"], told["wrong"]) == ([], {})
    ledger = told["ledger"]
    assert [ledger[name] for name in ("lost", "doubled", "surplus", "faults")] == [0, 0, 0, []]
    assert ledger["lines"] > 200
    assert told["became"]["whole"] > 100
    processes = told["processes"]
    assert len(processes) == (1 if workers == 1 else workers + 1)
    figures = {"rss_kib_per_min", "rss_kib_error", "fds_per_min", "fds_error"}
    assert all(figures <= set(one) for one in processes)
    assert set(told["lag_ms"]) == {"p50", "p99", "p99.9"}
    assert f"{told['requests']:,} requests" in done.stdout


def test_too_few_descriptors_are_said_before_anything_starts(tmp_path):
    command = f"ulimit -n 1000 && exec {sys.executable} {ROOT / 'benchmarks/soak'} --streams 2000"
    command = ["bash", "-c", command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "2000 streams need 4600 descriptors: say ulimit -Hn 4600, or fewer --streams\n"
