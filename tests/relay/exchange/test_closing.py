"""The end of a request: what its line in the ledger says, and what its key is charged."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.relay.exchange.charge import USUAL_PACE
from tests.support.fakes import (
    HELLO,
    Call,
    RawClient,
    ScriptedProvider,
    answers,
    hangs,
    post,
    streams,
    until,
)
from tests.support.keys import BODY, CONFIG, admin, ask, bearer, check_error, make
from tests.support.scripts import LAST, Plays, begun, says

USAGE = {
    "prompt_tokens": 40, "completion_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 10}, "completion_tokens_details": {"reasoning_tokens": 20},
}  # fmt: skip
ANSWER = json.dumps({"usage": USAGE}).encode()
EVENTS = [HELLO, b"data: %b\n\n" % ANSWER, b"data: [DONE]\n\n"]
NUSD = 40 * 1000 + 60 * 2000
STREAM = b'{"model":"mock/m","stream":true}'
BOTH = b'{"model":"both"}'
LONG = begun(*[b"data: %b\n\n" % (b"x" * 150)] * 10)  # and not at its end


class Gateway:
    """A gateway with two providers, and its ledger."""

    def __init__(self, start, tmp_path: Path, provider: ScriptedProvider, other_url: str) -> None:
        self._start = start
        self.provider = provider
        self.path = tmp_path / "t.db"
        self.text = CONFIG.format(url=provider.url, more="") + (
            f'[providers.b]\nbase_url = "{other_url}"\nauth = "none"\n'
            '[models."b/m"]\ninput_price = 3\noutput_price = 4\n'
        )

    async def begin(self, alias: str = "", more: str = "") -> RawClient:
        self.server = await self._start(
            f"{self.text}[aliases]\n"
            f'both = {{ models = ["mock/m", "b/m"], strategy = "round-robin"{alias} }}\n'
            f'[state]\npath = "{self.path}"\n{more}'
        )
        return await RawClient.connect(self.server)

    async def begin_with_key(self, **limits: Any) -> tuple[RawClient, bytes]:
        """A client, and the only key there is."""
        client = await self.begin()
        return client, (await make(self.server, **limits))[1]

    async def check_free(self, secret: bytes) -> None:
        """One more request of the key is served; then the sums are right."""
        self.provider.script = answers()
        assert (await ask(await RawClient.connect(self.server), secret))[0] == 200
        await self.total()

    def lines(self) -> list[dict[str, Any]]:
        files = sorted(Path(f"{self.path}-ledger").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]

    async def total(self) -> dict[str, Any]:
        """Of everything; as exact as its lines."""
        [row] = (await admin(self.server, "GET", "/usage"))[1]["data"]
        lines = self.lines()
        hedged = [extra for line in lines for extra in line.get("hedged", ())]
        assert row["requests"] == len(lines)
        assert row["errors"] == sum(line["status"] >= 400 for line in lines)
        for name, field in (("input_tokens", "input"), ("output_tokens", "output")):
            assert row[name] == sum(line.get(field, 0) for line in [*lines, *hedged])
        assert row["cached_tokens"] == sum(line.get("cached", 0) for line in lines)
        assert row["reasoning_tokens"] == sum(line.get("reasoning", 0) for line in lines)
        assert row["usd"] == sum(line.get("nusd") or 0 for line in [*lines, *hedged]) / 1e9
        estimated = sum(line.get("source") == "estimated" for line in lines) + len(hedged)
        assert row["estimated"] == estimated
        return row

    async def month(self) -> dict[str, Any]:
        """Of the only key."""
        [row] = (await admin(self.server, "GET", "/keys"))[1]["data"]
        return row["month"]

    def running(self) -> bool:
        return any(
            row.in_flight
            for deployment in self.server.gateway.catalog.deployments.values()
            for row in deployment.rows().values()
        )


@pytest.fixture
def gateway(start, tmp_path, provider, other) -> Gateway:
    return Gateway(start, tmp_path, provider, other.url)


async def test_a_plain_answer(gateway, provider):
    provider.script = answers(ANSWER)
    client = await gateway.begin()
    key_id, secret = await make(gateway.server)
    status, fields, _ = await ask(client, secret)
    assert status == 200
    [line] = gateway.lines()
    assert line.pop("id") == fields[b"x-inferoute-request-id"].decode()
    assert abs(line.pop("t") - time.time()) < 60
    assert 0 < line.pop("ttft_ms") <= line.pop("ms") < 60_000
    assert 0 <= line.pop("overhead_us") < 60e6
    assert line == {
        "key": key_id, "endpoint": "chat", "stream": False, "asked": "mock/m", "model": "mock/m",
        "provider": "mock", "status": 200, "attempts": 1, "input": 40, "output": 60, "cached": 10,
        "reasoning": 20, "nusd": NUSD, "source": "provider",
    }  # fmt: skip
    assert await gateway.month() == {"tokens": 100, "usd": NUSD / 1e9}
    assert (await gateway.total())["usd"] == NUSD / 1e9


async def test_tags_and_what_was_asked(gateway, provider):
    """From the header to the ledger's line, the totals and the latest requests; the provider sees none."""
    provider.script = answers(ANSWER)
    client = await gateway.begin(more="[usage]\ntags = { team = ['search'], app = [] }\n")
    key_id, secret = await make(gateway.server, tags="app=own")
    for key, tags in (
        (secret, b"team=search, app=x"),
        (secret, b""),
        (b"", b"team=ads,unlisted=x"),
        (b"", b""),
    ):
        extra = b"X-Inferoute-Tags: %b\r\n" % tags if tags else b""
        assert (await ask(client, key, BOTH, extra))[0] == (200 if key else 401)
    error = check_error(await ask(client, secret, BOTH, b"X-Inferoute-Tags: team\r\n"), 400,
                        "invalid_request_error", "invalid_tags", "X-Inferoute-Tags")  # fmt: skip
    assert "team=search" in error
    first, second = gateway.lines()
    assert (first["tags"], second["tags"]) == ({"app": "own", "team": "search"}, {"app": "own"})
    assert (first["alias"], first["asked"], first["key"]) == ("both", "both", key_id)
    assert provider.seen and not any(b"tags" in head.lower() for head, _ in provider.seen)
    rows = (await admin(gateway.server, "GET", "/usage?by=team,app,alias,endpoint&alias=both"))[1]["data"]
    assert [(row["team"], row["app"], row["alias"], row["endpoint"], row["requests"]) for row in rows] == [
        (None, "own", "both", "chat", 1), ("search", "own", "both", "chat", 1),
    ]  # fmt: skip
    query = f"/usage?key={key_id}&tag=team%3Dsearch"
    assert (await admin(gateway.server, "GET", query))[1]["data"][0]["requests"] == 1
    assert (await admin(gateway.server, "GET", "/tags"))[1]["data"] == [
        {"name": "team", "values": ["search"]}, {"name": "app", "values": ["own"]},
    ]  # fmt: skip
    [*_, latest] = (await admin(gateway.server, "GET", "/requests"))[1]["data"]
    assert (latest["tags"], latest["alias"]) == ({"app": "own", "team": "search"}, "both")


async def test_without_a_key_and_by_another_name(gateway, provider):
    provider.script = answers(ANSWER)
    client = await gateway.begin()
    assert (await ask(client, body=b'{"model":"m"}'))[0] == 200
    [line] = gateway.lines()
    assert (line["key"], line["asked"]) == (None, "m")
    assert line["model"] in ("mock/m", "b/m")


async def test_a_stream(gateway, provider):
    provider.script = streams(*EVENTS)
    client, secret = await gateway.begin_with_key()
    assert (await ask(client, secret, STREAM))[2] == b"".join(EVENTS)
    [line] = gateway.lines()
    assert (line["stream"], line["source"], line["nusd"], line["output"]) == (True, "provider", NUSD, 60)
    assert await gateway.month() == {"tokens": 100, "usd": NUSD / 1e9}
    await gateway.total()


@pytest.mark.interpreted
@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_the_line_is_there_before_the_end_of_the_answer(gateway, provider, body, monkeypatch):
    provider.script = streams(*EVENTS) if body is STREAM else answers(ANSWER)
    await gateway.begin()
    ledger, loop = gateway.server.gateway.ledger, asyncio.get_running_loop()
    listen = gateway.server.addresses[0]
    seen = []
    with socket.socket() as sock:
        sock.setblocking(False)

        def write(line: bytes) -> None:
            seen.append(line)
            try:  # what the client could have by now
                seen.append(sock.recv(1 << 20, socket.MSG_PEEK))
            except BlockingIOError:
                seen.append(b"")
            original(line)

        original = ledger.write
        monkeypatch.setattr(ledger, "write", write)
        await loop.sock_connect(sock, (listen.host, listen.port))
        await loop.sock_sendall(sock, post(body))
        end = b"data: [DONE]\n\n\r\n0\r\n\r\n" if body is STREAM else ANSWER
        whole = b""
        async with asyncio.timeout(5):
            while end not in whole:
                whole += await loop.sock_recv(sock, 65536)
    line, before = seen[:2]  # the first one opens a file, and begins again
    assert gateway.lines() == [json.loads(line)]
    assert not before.endswith(end[-20:])
    assert whole.startswith(before)


async def test_what_went_to_nobody_has_no_line(gateway, provider):
    client = await gateway.begin()
    _, secret = await make(gateway.server, models=["mock/m"], max_tokens=5, rpm=6)
    for body, status in (
        (b'{"model":"none"}', 404), (b'{"model":"b/m"}', 403), (b'{"model":"mock/m","max_tokens":9}', 422),
        (b"{}", 400), (b"nonsense", 400), (BODY, 200), (BODY, 429),
    ):  # fmt: skip
        assert (await ask(client, secret, body))[0] == status
    assert (await ask(client))[0] == 401
    assert len(gateway.lines()) == 1
    await gateway.total()


async def test_a_hedge(gateway, provider, other):
    provider.script, other.script = hangs, answers(ANSWER)
    client = await gateway.begin(', hedge = "20ms"')
    _, secret = await make(gateway.server, concurrency=1, tpm=100_000)
    text = b'{"model":"both","messages":"%b"}' % (b"x" * 1000)
    assert (await ask(client, secret, text))[0] == 200
    [line] = gateway.lines()
    assert (line["model"], line["attempts"], line["source"]) == ("b/m", 2, "provider")
    [loser] = line["hedged"]
    assert loser == {
        "model": "mock/m", "provider": "mock", "input": loser["input"], "output": loser["output"],
        "nusd": loser["input"] * 1000 + loser["output"] * 2000,
    }  # fmt: skip
    assert loser["output"] >= 2  # in 20 ms, at 100 a second
    assert loser["input"] == pytest.approx(len(text) / 4, rel=0.1)
    total = await gateway.total()
    assert total["input_tokens"] == 40 + loser["input"]
    assert await gateway.month() == {
        "tokens": 100 + loser["input"] + loser["output"],
        "usd": (40 * 3000 + 60 * 4000 + loser["nusd"]) / 1e9,
    }
    rows = (await admin(gateway.server, "GET", "/usage?by=model"))[1]["data"]
    assert {row["model"]: row["requests"] for row in rows} == {"mock/m": 0, "b/m": 1}
    assert (await ask(client, secret, text))[0] == 200  # it holds nothing any more


@pytest.mark.parametrize("limits", [{"concurrency": 1, "tpm": 100_000}, {}])
async def test_an_attempt_before_a_provider_that_would_misread_the_body_is_charged_once(
    gateway, provider, limits
):
    """The client gave the first no time, and the second one takes no second "Model"."""
    provider.script = hangs
    gateway.text = gateway.text.replace("[providers.b]", "[providers.b]\ncase_insensitive_keys = true")
    client = await gateway.begin()
    _, secret = await make(gateway.server, **limits)
    text = b'{"model":"both","Model":"x","max_tokens":50,"messages":"%b"}' % (b"x" * 1000)
    timeout = bearer(secret) + b"X-Inferoute-Timeout: 0.1\r\n"
    for _ in range(2):  # one of the two is asked at the first alone
        await client.post(text, extra=timeout)
        assert (await client.response())[0] == 400
    [line] = [line for line in gateway.lines() if line.get("hedged")]
    [charge] = line["hedged"]
    assert (line["attempts"], line["failed"].count("timeout"), "nusd" in line) == (1, 1, False)
    assert charge["model"] == "mock/m"
    await gateway.total()
    assert (await gateway.month())["usd"] == pytest.approx(charge["nusd"] / 1e9)
    await gateway.check_free(secret)


async def test_a_failed_attempt_before_a_provider_that_would_misread_the_body_has_a_line(gateway, provider):
    """It costs nothing, and was sent to somebody all the same."""
    provider.script = answers(status=b"500 No")
    gateway.text = gateway.text.replace("[providers.b]", "[providers.b]\ncase_insensitive_keys = true")
    client = await gateway.begin()
    for _ in range(2):  # one of the two is asked at the second alone
        await client.post(b'{"model":"both","Model":"x"}')
        assert (await client.response())[0] == 400
    [line] = [line for line in gateway.lines() if line.get("failed")]
    assert (line["attempts"], line["failed"].split(":")[1], "nusd" in line) == (1, "500", False)
    await gateway.total()


async def test_a_client_that_leaves_while_it_waits(gateway, provider):
    provider.script = hangs
    client, secret = await gateway.begin_with_key(concurrency=1)
    text = b'{"model":"mock/m","messages":"%b"}' % (b"x" * 1000)
    await client.post(text, extra=bearer(secret))
    await until(lambda: provider.seen)
    waiting = await RawClient.connect(gateway.server)
    assert (await ask(waiting, secret))[0] == 429
    client.close()
    await until(gateway.lines)
    [line] = gateway.lines()
    assert (line["status"], line["source"], line["attempts"]) == (499, "estimated", 1)
    assert line["output"] <= USUAL_PACE * line["ms"] / 1000  # for all it knows, the model was thinking
    assert line["input"] == pytest.approx(len(text) / 4, rel=0.1)
    assert "ttft_ms" not in line or line["ttft_ms"] is None
    assert (await gateway.month())["tokens"] == line["input"] + line["output"]
    provider.script = answers()
    assert (await ask(waiting, secret))[0] == 200
    await gateway.total()


@pytest.mark.parametrize("is_early", [False, True])
async def test_a_client_that_leaves_within_a_stream(gateway, provider, is_early):
    """Also one whose provider answers before the request is complete, and whose last byte never comes."""
    provider.script = Plays(LONG, reads="head" if is_early else "request")
    client, secret = await gateway.begin_with_key(concurrency=1, **({} if is_early else {"tpm": 100_000}))
    await client.send(post(STREAM + b" ", extra=bearer(secret))[: -1 if is_early else None])
    await client.reader.readuntil(b"x\n\n")
    client.close()
    await until(gateway.lines)
    [line] = gateway.lines()
    assert (line["status"], line["source"], line["stream"]) == (200, "estimated", True)
    assert 1 <= line["output"] <= 20
    assert line["nusd"] == line["input"] * 1000 + line["output"] * 2000
    assert line["ttft_ms"] > 0
    assert (await gateway.month())["tokens"] == line["input"] + line["output"]
    await gateway.check_free(secret)


@pytest.mark.parametrize("rest", [b"", b"0\r\n"])
async def test_a_stream_that_is_whole_but_for_the_end_of_its_message(gateway, provider, rest):
    """It is charged as any, and blamed on nobody; for the client it ends as it should have, if it can."""

    provider.script = says(begun(*EVENTS), rest)
    client, secret = await gateway.begin_with_key(concurrency=1)
    await client.post(STREAM, extra=bearer(secret))
    await client.head()
    if rest:
        assert (await client.rest()).endswith(b"[DONE]\n\n\r\n0\r\n")
    else:
        assert await Call(client.reader, client.writer, 0).chunks() == b"".join(EVENTS)
    [line] = gateway.lines()
    assert (line["status"], line["source"], line["output"], line["nusd"]) == (200, "provider", 60, NUSD)
    assert (await gateway.month())["tokens"] == 100
    assert gateway.server.gateway.catalog.deployments["mock/m"].breaker.failures == 0
    await gateway.total()


async def test_without_usage_it_is_estimated(gateway, provider):
    provider.script = answers(b'{"choices":[{"message":{"content":"%b"}}]}' % (b"y" * 1000))
    client = await gateway.begin()
    assert (await ask(client))[0] == 200
    [line] = gateway.lines()
    assert (line["source"], line["input"]) == ("estimated", 5)
    assert line["output"] == pytest.approx(260, rel=0.1)
    assert line["nusd"] == 5 * 1000 + line["output"] * 2000
    await gateway.total()


async def test_many_at_once(gateway, provider, other):
    """Of all kinds; none is missing, and none is there twice."""

    async def flaky(call: Call) -> None:
        for number in range(1000):
            await call.request()
            await asyncio.sleep(0)
            await (call.answer(b"{}", b"500 No") if number % 3 == 0 else call.answer(ANSWER))

    provider.script, other.script = flaky, answers(ANSWER)
    await gateway.begin()
    _, secret = await make(gateway.server, tpm=10**9, concurrency=10**6)
    clients = [await RawClient.connect(gateway.server) for _ in range(20)]

    async def run(client: RawClient) -> list[bytes]:
        ids = []
        for number in range(20):
            _, fields, _ = await ask(client, secret, BOTH if number % 2 else BODY)
            ids.append(fields[b"x-inferoute-request-id"])
        return ids

    ids = [id.decode() for each in await asyncio.gather(*map(run, clients)) for id in each]
    assert sorted(line["id"] for line in gateway.lines()) == sorted(ids)
    total = await gateway.total()
    assert total["requests"] == 400
    assert (await gateway.month())["tokens"] == total["input_tokens"] + total["output_tokens"]


async def test_a_failure_that_is_passed_on_costs_nothing(gateway, provider, other):
    """A stream whose first event is an error, where nobody else is left to be asked."""

    provider.script = says(begun(b'event: error\ndata: {"error":{"message":"no"}}\n\n') + LAST)
    other.script = answers(b'{"usage":{"prompt_tokens":5}}', b"500 Oh")
    client = await gateway.begin(", peek = true", more="[routing]\nmax_attempts = 1\n")
    statuses = set()
    for _ in range(2):  # each is asked once
        await client.post(b'{"model":"both","stream":true}')
        statuses.add((await client.response())[0])
    assert statuses == {200, 500}
    assert not any("nusd" in line for line in gateway.lines())


async def begin_with_all_endpoints(gateway) -> RawClient:
    endpoints = 'endpoints = ["chat", "completions", "responses", "messages"]'
    gateway.text = gateway.text.replace("[providers.mock]\n", f"[providers.mock]\n{endpoints}\n")
    return await gateway.begin()


async def test_a_client_that_closes_after_the_last_event_of_a_response(gateway, provider):
    """That event repeats the whole answer: its counts are the provider's last word, however long it is."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    event = {"type": "response.completed", "response": {"output": "x" * 6000, "usage": usage}}
    data = b"event: response.completed\ndata: %b\n\n" % json.dumps(event).encode()

    provider.script = Plays(begun(data))
    client = await begin_with_all_endpoints(gateway)
    await client.send(post(STREAM).replace(b"/chat/completions", b"/responses"))
    await client.reader.readuntil(b"}}\n\n")
    client.close()
    await until(gateway.lines)
    [line] = gateway.lines()
    assert (line["source"], line["input"], line["output"]) == ("provider", 10, 5)


async def test_a_message_whose_input_was_counted_out_of_reach(gateway, provider):
    """It is not taken for a prompt without tokens."""
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1000}}}\n\n'
    )
    delta = b'data: {"type":"content_block_delta","delta":{"text":"%b"}}\n\n' % (b"x" * 900)
    end = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":200}}\n\n'
    comments = (b": " + b"-" * 1000 + b"\n\n") * 3
    provider.script = streams(comments, start, *[delta] * 40, end, b'data: {"type":"message_stop"}\n\n')
    client = await begin_with_all_endpoints(gateway)
    await client.send(post(STREAM).replace(b"/chat/completions", b"/messages"))
    await client.response()
    [line] = gateway.lines()
    assert (line["source"], line["output"] >= 200, line["input"] > 0) == ("estimated", True, True)


@pytest.mark.parametrize(
    "script",
    [
        answers(b'{"error":{"message":"no"}}'),
        streams(b'data: {"error":{"message":"no"}}\n\n'),
        streams(b'event: error\ndata: {"message":"no"}\n\n', b"data: [DONE]\n\n"),
    ],
)
async def test_an_error_with_the_status_of_an_answer_costs_nothing(gateway, provider, script):
    provider.script = script
    client = await gateway.begin()
    await client.post(STREAM)
    assert (await client.response())[0] == 200
    [line] = gateway.lines()
    assert "nusd" not in line
    await gateway.total()
