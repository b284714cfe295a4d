"""What clients pay against the books of a provider that notes what it was made to do, for honest and for
hostile ones: see :mod:`tests.support.bookkeeper`."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.relay.exchange.charge import USUAL_PACE
from proxy.server.single import Server
from tests.support.bookkeeper import (
    BYTES_A_TOKEN,
    INPUT_PRICE,
    MOST_OUTPUT,
    OUTPUT_PRICE,
    Bookkeeper,
)
from tests.support.fakes import RawClient, ScriptedProvider, post, until
from tests.support.keys import admin, bearer, make, make_limited
from tests.support.two_providers import rows

# On one clock, so that no books are wrong for a busy machine; compiled modules can't be told another time.
pytestmark = [pytest.mark.virtual_time, pytest.mark.interpreted]

COUNT = 40
AT_ONCE = 20
ENDPOINTS = ["chat", "completions", "responses", "embeddings", "images", "speech"]

Send = Callable[[Server, bytes, random.Random], Awaitable[None]]


def config(provider: ScriptedProvider, more: str = "") -> str:
    tables = "".join(
        f'[providers.{name}]\nbase_url = "{provider.url}"\nauth = "none"\n{more}\n'
        f"endpoints = {json.dumps(ENDPOINTS)}\n"
        f'[models."{name}/m"]\ncapabilities = {json.dumps(ENDPOINTS)}\n'
        f"input_price = {INPUT_PRICE}\noutput_price = {OUTPUT_PRICE}\n"
        f"context_window = 100000\nmax_output_tokens = {MOST_OUTPUT}\n"
        f'[models."{name}/e"]\ninput_price = {INPUT_PRICE}\ncapabilities = ["embeddings"]\n'
        for name in "abc"
    )
    return f'{tables}[aliases]\nall = ["a/m", "b/m", "c/m"]\n[routing.eject]\nconsecutive_failures = 1000\n'


async def send(
    server: Server, secret: bytes, asked: dict[str, Any] | bytes, *lines: bytes,
    path: bytes = b"/v1/chat/completions", leaves_s: float | None = None,
) -> int:  # fmt: skip
    """One request; its status, 0 where the client left after ``leaves_s``."""
    client = await RawClient.connect(server)
    extra = bearer(secret) + b"".join(line + b"\r\n" for line in lines)
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    await client.send(post(body, path, extra))
    try:
        async with asyncio.timeout(leaves_s):
            return (await client.response())[0]
    except TimeoutError:
        return 0
    finally:
        client.writer.transport.abort()


def prompt(rng: random.Random, words: int = 400) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "some " * rng.randint(1, words)}]


def chat(rng: random.Random, user: str, **more: Any) -> dict[str, Any]:
    return {"model": "all", "user": user, "messages": prompt(rng), "max_tokens": rng.randint(1, 200), **more}


async def gives_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "gives_no_time", messages=prompt(rng, 20_000), max_tokens=MOST_OUTPUT)
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.05")


async def gives_no_time_to_many(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(
        rng, "gives_no_time_to_many", model="a/m", messages=prompt(rng, 20_000), max_tokens=MOST_OUTPUT
    )
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.05", b"X-Inferoute-Fallback: b/m, c/m")


async def leaves_before_the_answer(server: Server, secret: bytes, rng: random.Random) -> None:
    await send(server, secret, chat(rng, "leaves_before_the_answer"), leaves_s=0.02)


async def leaves_a_stream(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "leaves_a_stream", stream=True, max_tokens=MOST_OUTPUT)
    await send(server, secret, asked, leaves_s=rng.uniform(0.05, 0.2))


async def leaves_while_it_thinks(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "leaves_while_it_thinks", stream=True, max_tokens=MOST_OUTPUT, metadata={"think": 250})
    await send(server, secret, asked, leaves_s=0.2)


async def asks_behind_its_back(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {
        "model": "all",
        "user": "asks_behind_its_back",
        "background": True,
        "input": "a" * rng.randint(1, 2000),
    }
    if rng.random() < 0.5:
        asked["max_output_tokens"] = rng.randint(1, MOST_OUTPUT)
    await send(server, secret, asked, path=b"/v1/responses")


async def hides_its_usage(server: Server, secret: bytes, rng: random.Random) -> None:
    """A provider that is silent of what it used, and thinks."""
    asked = chat(
        rng, "hides_its_usage", metadata={"silent": True, "think": 100, "say": 20}, max_tokens=MOST_OUTPUT
    )
    await send(server, secret, asked)


async def wants_many_answers(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "wants_many_answers", n=rng.randint(1, 128), metadata={"say": 10})
    await send(server, secret, asked)


async def has_many_prompts(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "has_many_prompts", prompt=["a"] * rng.randint(1, 500), max_tokens=rng.randint(1, 20))
    del asked["messages"]
    await send(server, secret, asked, path=b"/v1/completions")


async def pads_with_spaces(server: Server, secret: bytes, rng: random.Random) -> None:
    """So that a byte of a prompt would seem to be no token; then no prompt is seen in a usage."""
    asked = chat(rng, "pads_with_spaces", max_tokens=1)
    client = await RawClient.connect(server)
    await client.send(post(json.dumps(asked).encode()[:-1] + b" " * 200_000 + b"}", extra=bearer(secret)))
    await client.response()
    client.writer.transport.abort()
    asked = chat(rng, "pads_with_spaces", messages=prompt(rng, 20_000), max_tokens=MOST_OUTPUT)
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.1")


async def gives_many_answers_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "gives_many_answers_no_time", n=rng.randint(2, 100), max_tokens=MOST_OUTPUT)
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.2")


async def gives_the_best_of_many_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "gives_the_best_of_many_no_time", best_of=20, prompt="a", max_tokens=MOST_OUTPUT)
    del asked["messages"]
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.2", path=b"/v1/completions")


async def gives_many_prompts_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    prompts = ["a"] * rng.randint(2, 100)
    asked = chat(rng, "gives_many_prompts_no_time", prompt=prompts, max_tokens=MOST_OUTPUT)
    del asked["messages"]
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.2", path=b"/v1/completions")


async def leaves_many_answers_thinking(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "leaves_many_answers_thinking", n=20, max_tokens=MOST_OUTPUT, metadata={"think": 290})
    await send(server, secret, asked | {"stream": True}, leaves_s=0.2)


async def teaches_a_slow_pace(server: Server, secret: bytes, rng: random.Random) -> None:
    """One token after a long prefill, many times; then it leaves streams that think."""
    user = "teaches_a_slow_pace_and_leaves"
    slow = chat(rng, user, max_tokens=1, stream=True, metadata={"prefill_ms": 300})
    await send(server, secret, slow | {"stream_options": {"include_usage": True}})
    asked = chat(rng, user, stream=True, max_tokens=MOST_OUTPUT, metadata={"think": 290})
    await send(server, secret, asked, leaves_s=0.2)


async def thinks_half_and_leaves_at_the_end(server: Server, secret: bytes, rng: random.Random) -> None:
    """At the finish_reason, before the usage."""
    own = {"think": 145, "say": 150, "pause_ms": 1000}
    asked = chat(rng, "thinks_half_and_leaves_at_the_end", max_tokens=MOST_OUTPUT, metadata=own)
    await read_until(server, secret, asked | {"stream": True} | WITH_USAGE, b'"stop"')


async def thinks_half_in_silence(server: Server, secret: bytes, rng: random.Random) -> None:
    own = {"think": 145, "say": 150, "silent": True}
    await send(server, secret, chat(rng, "thinks_half_in_silence", max_tokens=MOST_OUTPUT, metadata=own))


async def writes_two_wide_tokens_an_event(server: Server, secret: bytes, rng: random.Random) -> None:
    own = {"word": "\u6f22\u5b57", "per_event": 2}
    asked = chat(rng, "writes_two_wide_tokens_an_event", max_tokens=MOST_OUTPUT, metadata=own)
    await send(server, secret, asked | {"stream": True})


async def leaves_behind_the_usage(server: Server, secret: bytes, rng: random.Random) -> None:
    """Told it was, so it is exact, however long it stayed on."""
    asked = chat(rng, "leaves_behind_the_usage", metadata={"never_done": True, "say": 50}, max_tokens=300)
    await read_until(server, secret, asked | {"stream": True} | WITH_USAGE, b'"usage"', stays_s=0.3)


async def embeds_tokens_and_gives_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    ids = [rng.randint(0, 9) for _ in range(rng.randint(1000, 5000))]
    asked = {"model": "a/e", "user": "embeds_tokens_and_gives_no_time", "input": ids}
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.05", path=b"/v1/embeddings")


WITH_USAGE = {"stream_options": {"include_usage": True}}


async def read_until(
    server: Server, secret: bytes, asked: dict[str, Any], seen: bytes, stays_s: float = 0.0
) -> None:
    """One request whose client leaves once it has ``seen`` that, and ``stays_s`` more."""
    client = await RawClient.connect(server)
    await client.send(post(json.dumps(asked).encode(), extra=bearer(secret)))
    await client.reader.readuntil(seen)
    await asyncio.sleep(stays_s)
    client.writer.transport.abort()


async def draws_and_leaves(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {"model": "a/m", "user": "draws_and_leaves", "prompt": "a cat", "n": rng.randint(1, 10)}
    if rng.random() < 0.5:
        asked |= {"stream": True}
    await send(server, secret, asked, path=b"/v1/images/generations", leaves_s=0.1)


async def draws_in_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {"model": "a/m", "user": "draws_in_no_time", "prompt": "a cat", "n": 10, "stream": True}
    lines = (b"X-Inferoute-Timeout: 0.05",)
    await send(server, secret, asked, *lines, path=b"/v1/images/generations", leaves_s=0.1)


async def draws_silently(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {"model": "a/m", "user": "draws_silently", "prompt": "a cat", "metadata": {"silent": True}}
    await send(server, secret, asked, path=b"/v1/images/generations")


async def has_it_read_out(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {"model": "a/m", "user": "has_it_read_out", "voice": "x", "input": "a" * rng.randint(40, 160)}
    assert await send(server, secret, asked, path=b"/v1/audio/speech") == 200


async def hears_in_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {"model": "a/m", "user": "hears_in_no_time", "input": "a" * 160, "metadata": {"waits": 0.2}}
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.05", path=b"/v1/audio/speech")


async def dresses_text_in_no_time(server: Server, secret: bytes, rng: random.Random) -> None:
    """Base64 with the head of a picture of one pixel, where a model reads it as text."""
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1).to_bytes(4) * 2 + rng.randbytes(70_000)
    data = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png).decode()}
    tools = [{"function": {"parameters": {"content": [{"type": "image", "source": data}]}}}]
    asked = chat(rng, "dresses_text_in_no_time", model="a/m", tools=tools, max_tokens=10)
    await send(server, secret, asked, b"X-Inferoute-Timeout: 0.05")


async def asks_for_a_stream_behind_its_back(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = {"model": "all", "user": "asks_for_a_stream_behind_its_back", "stream": True, "background": True}
    body = json.dumps(asked | {"input": "a" * rng.randint(1, 2000)}).encode()
    body = body.replace(b'"background"', rng.choice([b'"background"', b'"backgr\\u006fund"']))
    await send(server, secret, body, path=b"/v1/responses", leaves_s=0.1)


async def goes_on_behind_its_back(server: Server, secret: bytes, rng: random.Random) -> None:
    """What its prompt is stands at the provider."""
    asked = {"model": "a/m", "user": "goes_on_behind_its_back", "background": True, "input": "go on"}
    body = json.dumps(asked | {"previous_response_id": "resp_1", "max_output_tokens": 10}).encode()
    body = body.replace(b"response_id", rng.choice([b"response_id", b"response\\u005fid"]))
    await send(server, secret, body, path=b"/v1/responses")


async def says_two_words_for_the_length(server: Server, secret: bytes, rng: random.Random) -> None:
    """The clear one of which no program's rule would pick."""
    asked = chat(rng, "says_two_words_for_the_length", stream=True, max_tokens=1)
    last = rng.choice([b'"200"', b"200.0", b"2e2", b'5,"max_completion_tokens":200'])
    body = json.dumps(asked).encode()[:-1] + b',"max_completion_tokens":%b}' % last
    await send(server, secret, body)


async def says_a_word_that_is_not_known(server: Server, secret: bytes, rng: random.Random) -> None:
    asked = chat(rng, "says_a_word_that_is_not_known", stream=True, metadata={"knows_one_word": True})
    del asked["max_tokens"]
    await send(server, secret, asked | {"max_completion_tokens": 1})


ATTACKS: list[Send] = [
    dresses_text_in_no_time,
    draws_and_leaves, draws_in_no_time, draws_silently, has_it_read_out, hears_in_no_time,
    gives_no_time, gives_no_time_to_many, leaves_before_the_answer, leaves_a_stream, leaves_while_it_thinks,
    asks_behind_its_back, hides_its_usage, wants_many_answers, has_many_prompts, pads_with_spaces,
    gives_many_answers_no_time, gives_the_best_of_many_no_time, gives_many_prompts_no_time,
    leaves_many_answers_thinking, teaches_a_slow_pace, thinks_half_and_leaves_at_the_end,
    thinks_half_in_silence, writes_two_wide_tokens_an_event, leaves_behind_the_usage,
    embeds_tokens_and_gives_no_time, asks_for_a_stream_behind_its_back, goes_on_behind_its_back,
    says_two_words_for_the_length, says_a_word_that_is_not_known,
]  # fmt: skip
# How many answers they want at most, where it is not one, and how long a client waits for them at most.
ANSWERS = {
    "wants_many_answers": 128, "has_many_prompts": 500, "gives_many_answers_no_time": 100,
    "gives_the_best_of_many_no_time": 20, "gives_many_prompts_no_time": 100,
    "leaves_many_answers_thinking": 20,
}  # fmt: skip
# Here the provider's word is there in full.
EXACT = frozenset(("wants_many_answers", "has_many_prompts", "leaves_behind_the_usage"))


async def honest(server: Server, secret: bytes, rng: random.Random) -> None:
    """Plain and streamed requests with the usage told; some leave."""
    asked = chat(rng, "honest")
    if rng.random() < 0.5:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    assert await send(server, secret, asked, leaves_s=0.03 if rng.random() < 0.03 else None) in (0, 200)


async def many(client: Send, server: Server, secret: bytes, count: int, seed: int) -> None:
    rng, left = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with left:
            await client(server, secret, rng)

    await asyncio.gather(*(one() for _ in range(count)))


async def billed_nusd(server: Server, id: str) -> int:
    """What a key was charged, once nothing of its runs."""
    await until(lambda: not server.gateway.connections, 20)
    _, row = await admin(server, "GET", f"/keys/{id}")
    return round(row["month"]["usd"] * 1e9)


async def test_everybody_pays_for_what_providers_did(provider, start):
    await check_bills(provider, start, COUNT, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_thousands_pay_for_what_providers_did(provider, start, seed):
    await check_bills(provider, start, 4 * COUNT, 1000 * seed)


async def check_bills(provider: ScriptedProvider, start: Any, count: int, seed: int) -> None:
    """Honest requests, then each kind of hostile ones, then honest ones again, which must not pay for what
    those taught."""
    books = Bookkeeper()
    provider.script = books.script
    server = await start(config(provider))
    print(f"\n{'who':34} {'requests':>8} {'books nUSD':>12} {'billed':>12} {'ratio':>6}")
    await check_honest(server, books, 5 * count, seed)
    for number, attack in enumerate(ATTACKS):
        user = "teaches_a_slow_pace_and_leaves" if attack is teaches_a_slow_pace else attack.__name__
        id, secret = await make(server, name=user, monthly_usd=1000)
        await many(attack, server, secret, count, seed + number)
        if user in EXACT or user == "thinks_half_and_leaves_at_the_end":  # none is left before it was heard
            await until(lambda user=user: books.requests[user] == count, 20)
        billed, nusd = await billed_nusd(server, id), books.nusd[user]
        print(_line(user, books.requests[user], nusd, billed))
        assert books.requests[user] >= count / 4  # some leave before they were heard
        if user in EXACT:
            assert billed == nusd
        assert billed >= 0.9 * nusd
        assert billed <= 1.1 * ceiling_nusd(user, max(count, books.requests[user]))
    await check_honest(server, books, count, seed + 1, "honest, at last")


async def check_honest(server: Server, books: Bookkeeper, count: int, seed: int, who: str = "honest") -> None:
    before, nusd = books.requests["honest"], books.nusd["honest"]
    id, secret = await make(server, name=who, monthly_usd=1000)
    await many(honest, server, secret, count, seed)
    await until(lambda: not server.gateway.connections and not books.running, 20)
    assert books.requests["honest"] >= before + 0.9 * count  # some leave before they were heard
    billed, nusd = await billed_nusd(server, id), books.nusd["honest"] - nusd
    print(_line(who, count, nusd, billed))
    assert billed == pytest.approx(nusd, rel=0.02)


def _line(name: str, requests: int, nusd: int, billed: int) -> str:
    return f"{name:34} {requests:8} {nusd:12} {billed:12} {billed / nusd:6.3f}"


def ceiling_nusd(name: str, requests: int) -> int:
    """What so many requests of a kind may cost at most: what is reserved for the largest there can be."""
    size = 100_500 if "time" in name or "spaces" in name else 2_500
    given = 100_000 if "goes_on" in name else size // BYTES_A_TOKEN
    output = MOST_OUTPUT * (10 if "draws" in name else ANSWERS.get(name, 1))
    return 1000 * requests * (INPUT_PRICE * given + OUTPUT_PRICE * output)


async def test_who_stops_reading_pays_for_what_is_written_meanwhile(provider, start):
    """Engines do not wait for a client: the time goes on, and so does the bill."""
    books = Bookkeeper()
    provider.script = books.script
    server = await start(config(provider))
    _, secret = await make(server, name="before", monthly_usd=1000)
    for _ in range(4):  # these teach its pace
        await send(
            server, secret, chat(random.Random(1), "x", model="a/m", max_tokens=300, stream=True) | WITH_USAGE
        )
    id, secret = await make(server, name="stops", monthly_usd=1000)
    client = await RawClient.slow(server)
    own = {"pad": 8000}
    asked = chat(random.Random(1), "stops", model="a/m", stream=True, max_tokens=20_000, metadata=own)
    await client.send(post(json.dumps(asked | WITH_USAGE).encode(), extra=bearer(secret)))
    await client.head()
    await asyncio.sleep(2.5)
    client.writer.transport.abort()
    await until(lambda: books.requests["stops"], 20)
    billed = await billed_nusd(server, id)
    print(f"\nstops reading: {books.nusd['stops']} nUSD, billed {billed}")
    assert 0.9 * books.nusd["stops"] <= billed <= 1.3 * books.nusd["stops"]


@pytest.mark.parametrize(
    ("more", "path", "code", "param"),
    [
        (b'"n":100,"max_completion_tokens":"100"', b"/v1/chat/completions", "invalid_max_tokens",
         "max_completion_tokens"),
        (b'"n":1000', b"/v1/chat/completions", "too_many_answers", "n"),
        (b'"max_tokens":100,"prompt":%b%b' % (b" " * 5000, b'["a"%b]' % (b',"a"' * 199)), b"/v1/completions",
         "max_tokens_exceeded", "max_tokens"),
    ],
)  # fmt: skip
async def test_what_would_write_more_than_a_key_may_is_not_sent(provider, start, more, path, code, param):
    server = await start(config(provider))
    _, secret = await make(server, max_tokens=300, monthly_usd=1)
    client = await RawClient.connect(server)
    await client.post(b'{"model":"a/m",%b}' % more, path, bearer(secret))
    status, _, answer = await client.response()
    error = json.loads(answer)["error"]
    assert (status, error["code"], error["param"]) == (422, code, param)
    assert not provider.seen


@pytest.mark.parametrize(("of", "limit"), [("key", "monthly_usd"), ("group", "daily_usd")])
async def test_a_month_ends_one_reservation_above_its_limit_at_most(provider, start, of, limit):
    """Whatever is asked at once, and however it is asked: long answers, many prompts, further attempts."""
    books = Bookkeeper()
    provider.script = books.script
    server = await start(config(provider))
    asked = {"model": "all", "user": "x", "messages": prompt(random.Random(1))}
    for name, more, path, lines in (
        ("long", {}, b"/v1/chat/completions", ()),
        ("many", {"prompt": ["a"] * 50, "max_tokens": 20}, b"/v1/completions", ()),
        ("several", {"n": 20, "max_tokens": 20}, b"/v1/chat/completions", ()),
        ("no time", {}, b"/v1/chat/completions", (b"X-Inferoute-Timeout: 0.05",)),
        ("pictures", {"n": 10, "prompt": "a cat"}, b"/v1/images/generations", ()),
        ("read out", {"input": "a" * 160}, b"/v1/audio/speech", ()),
    ):
        answers = {"many": 50, "several": 20, "pictures": 10 * MOST_OUTPUT // 20}.get(name, 1)
        most = MOST_OUTPUT if answers == 1 else 20 * answers
        reservation = 1000 * (INPUT_PRICE * 2_500 // BYTES_A_TOKEN + OUTPUT_PRICE * most)
        id, secret = await make_limited(server, of, name=name, **{limit: 0.005})
        many_at_once = [send(server, secret, asked | more, *lines, path=path) for _ in range(40)]
        statuses = set(await asyncio.gather(*many_at_once))
        billed = await billed_nusd(server, id)
        assert 0 < billed < 5_000_000 + reservation
        assert statuses & {402, 429}, name


@pytest.mark.parametrize(
    "options",
    [
        b'"stream_options":{"include_usage":false,"include_usage":true}',
        b'"stream_options":{"include_us\\u0061ge":true}',
        b'"stream_\\u006fptions":{"include_usage":false}',
        b'"Stream_Options":{"include_usage":false}',
        b'"stream_options":{"include_usage":1}',
        b'"stream_options":[]',
        b'"stream_options":{"continuous_usage_stats":true}',
        b'"stream_options":{},"stream_options":{}',
    ],
)
async def test_who_hides_the_usage_of_a_stream_is_refused(provider, start, options):
    server = await start(config(provider, "request_stream_usage = true"))
    _, secret = await make(server, name="limited", tpm=10**6)
    _, unlimited = await make(server, name="unlimited", rpm=10)
    client = await RawClient.connect(server)
    body = b'{"model":"a/m","stream":true,%b}' % options
    await client.post(body, extra=bearer(secret))
    status, _, answer = await client.response()
    error = json.loads(answer)["error"]
    assert (status, error["code"], error["param"]) == (400, "invalid_stream_options", "stream_options")
    await client.post(body, extra=bearer(unlimited))
    assert (await client.response())[0] == 200  # nobody is billed by it


SOUND = b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(12) + (48_000).to_bytes(4, "little") + bytes(30 * 48_000)


@pytest.mark.parametrize(
    ("part", "more", "nusd"),
    [
        # 30 s at ten tokens a second, at $40; half a second at the usual pace, at $80.
        (
            {
                "type": "input_audio",
                "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "wav"},
            },
            {"modalities": ["text", "audio"]},
            40_000 * 300 + 80_000 * USUAL_PACE / 2,
        ),
        # 50,000 tokens at $2, and what is written at $10.
        (
            {"type": "text", "text": "x" * 200_000, "cache_control": {"type": "ephemeral"}},
            {},
            2_000 * 50_000 + OUTPUT_PRICE * 1000 * USUAL_PACE / 2,
        ),
    ],
)
async def test_what_has_a_price_of_its_own_is_charged_at_that(provider, start, part, more, nusd):
    async def script(call: Any) -> None:
        await call.request()
        await call.gone()

    provider.script = script
    prices = "audio_input_price = 40\naudio_output_price = 80\ncache_write_price = 2\n"
    text = config(provider).replace('[models."b/m"]\n', f'[models."b/m"]\n{prices}')
    server = await start(text.replace(f"max_output_tokens = {MOST_OUTPUT}", "max_output_tokens = 2000"))
    id, secret = await make(server, monthly_usd=1)
    asked = {"model": "b/m", "messages": [{"role": "user", "content": [part]}], **more}
    assert await send(server, secret, asked, b"X-Inferoute-Timeout: 0.5") == 504
    assert await billed_nusd(server, id) == pytest.approx(nusd, rel=0.1)


async def test_an_answer_with_a_head_that_is_too_long_is_charged(provider, start):
    async def script(call: Any) -> None:
        head, _ = await call.request()
        assert b"x-request-id" not in head.lower()  # what is that long comes back to nobody
        await asyncio.sleep(0.2)
        await call.send(b"HTTP/1.1 200 OK\r\nX-Request-Id: %b\r\n\r\n" % (b"z" * 40_000))

    provider.script = script
    server = await start(config(provider))
    id, secret = await make(server, monthly_usd=1)
    asked = {"model": "a/m", "messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 100}
    assert await send(server, secret, asked, b"X-Request-Id: " + b"z" * 20_000) == 502
    nusd = 1000 * (INPUT_PRICE * 1000 + OUTPUT_PRICE * USUAL_PACE / 5)  # no pace was seen
    assert await billed_nusd(server, id) == pytest.approx(nusd, rel=0.2)


async def test_a_coding_that_can_not_be_read_is_not_asked_for(provider, start):
    server = await start(config(provider, 'compression = "pass"'))
    client = await RawClient.connect(server)
    for accepted, passed in (
        (b"br", b"identity"),
        (b"gzip, br;q=1.0, zstd, deflate;q=0.5", b"gzip, deflate;q=0.5"),
        (b"*", b"identity"),
        (b"GZIP", b"GZIP"),
    ):
        await client.post(b'{"model":"a/m"}', extra=b"Accept-Encoding: %b\r\n" % accepted)
        assert (await client.response())[0] == 200
        assert b"\r\nAccept-Encoding: %b\r\n" % passed in provider.seen[-1][0]


async def test_an_answer_that_can_not_be_read_costs_what_was_reserved(provider, start):
    async def script(call: Any) -> None:
        while True:
            await call.request()
            await call.answer(b"nonsense", extra=b"Content-Encoding: br\r\n")

    provider.script = script
    server = await start(config(provider))
    id, secret = await make(server, monthly_usd=1)
    body = {"model": "a/m", "messages": [], "max_tokens": 100}
    assert await send(server, secret, body) == 200
    assert await billed_nusd(server, id) == pytest.approx(100 * OUTPUT_PRICE * 1000, rel=0.02)


@pytest.mark.parametrize("limit", [None, 9])
async def test_an_estimate_is_never_above_what_was_asked_for(provider, start, limit):
    """Without a key too: 40 words came, and no usage."""
    events = b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n'

    async def script(call: Any) -> None:
        while True:
            await call.request()
            await call.stream(*[events] * 40, b"data: [DONE]\n\n")

    provider.script = script
    server = await start(config(provider))
    client = await RawClient.connect(server)
    more = b"" if limit is None else b',"max_tokens":%d' % limit
    await client.post(b'{"model":"a/m","stream":true%b}' % more)
    assert (await client.response())[0] == 200
    await until(lambda: server.gateway.completions.recent)
    [row] = rows(server)
    assert (row["output_tokens"], row["usage_source"]) == (limit or 40, "estimated")
