"""The name that stands for none at an endpoint: what the file may say, and what requests get."""

from __future__ import annotations

import json

import openai
import pytest

from proxy.config.parse import parse
from proxy.config.tables import ConfigError
from tests.support.fakes import RawClient, answers, dead_url
from tests.support.keys import admin, bearer, make
from tests.support.keys import check_error as check_key_error

FILE = """
[routing]
default_models = {{ {entry} }}
[providers]
a = {{ base_url = "{url}", auth = "none", endpoints = ["chat", "responses", "embeddings", "moderations"] }}
b = {{ base_url = "{url}", auth = "none", endpoints = ["chat", "embeddings"] }}
[models]
"a/chat" = {{ capabilities = ["chat"] }}
"a/small" = {{ capabilities = ["embeddings"] }}
"b/small" = {{ capabilities = ["embeddings"] }}
"a/large" = {{ capabilities = ["embeddings"] }}
"a/guard" = {{ capabilities = ["moderations"] }}
[aliases]
vectors = ["a/small", "b/small"]
mixed = ["vectors", "a/large"]
with-chat = ["a/chat", "a/guard"]
"""


def file(entry: str, url: str = "http://127.0.0.1:1/v1") -> str:
    return FILE.format(entry=entry, url=url)


ENTRIES = {"embeddings": "vectors", "moderations": "with-chat", "chat": "auto", "responses": "chat"}


@pytest.mark.parametrize(
    ("entry", "column", "message"),
    [
        ('embeddings = "a/smal"', 33, "unknown model 'a/smal' for embeddings; did you mean 'a/small'?"),
        ('embeddings = "zzzz"', 33, "no model, alias or short name has this name"),
        ('embedings = "a/small"', 20, "embedings"),
        ('count_tokens = "a/chat"', 20, "count_tokens"),
        ('speech = "a/chat"', 29, "which it doesn't serve"),
        ('chat = "a/small"', 27, "which it doesn't serve"),
        ('messages = "auto"', 31, "which it doesn't serve"),
        ('embeddings = "mixed"', 33, "may stand for different models"),
        ('embeddings = "auto"', 33, "may stand for different models"),
        ("embeddings = 5", 33, "must be text"),
        ('embeddings = ""', 33, "must not be empty"),
    ],
)
def test_mistakes_are_told_with_their_place(entry, column, message):
    with pytest.raises(ConfigError) as caught:
        parse(file(entry))
    [mistake] = caught.value.mistakes
    assert (mistake.line, mistake.column) == (3, column)
    assert message in mistake.message


def test_what_may_be_said():
    entry = ", ".join(f'{endpoint} = "{name}"' for endpoint, name in ENTRIES.items())
    assert dict(parse(file(entry)).routing.default_models) == ENTRIES
    assert parse(file("")).routing.default_models == ()


def test_aliases_in_a_circle_are_told_once():
    text = file('chat = "x"').replace("[aliases]", '[aliases]\nx = ["y"]\ny = ["x"]')
    with pytest.raises(ConfigError, match="alias cycle") as caught:
        parse(text)
    assert any("names the unknown model 'x'" in one.message for one in caught.value.mistakes) <= 1


async def ask(server, path: str, body: bytes = b'{"input":"x"}', extra: bytes = b""):
    client = await RawClient.connect(server)
    await client.post(body, f"/v1/{path}".encode(), extra)
    return await client.response()


@pytest.mark.parametrize("sent", [b"{}", b'{"input":"x"}', b' { "input" : "x" , "model" : null } '])
async def test_the_model_is_put_in(provider, start, sent):
    server = await start(file(url=provider.url, entry='embeddings = "vectors", responses = "chat"'))
    status, fields, _ = await ask(server, "embeddings", sent)
    assert status == 200
    assert json.loads(provider.seen[0][1]) == json.loads(sent) | {"model": "small"}
    assert fields[b"x-inferoute-model"] in (b"a/small", b"b/small")
    for path in ("responses", "responses/compact", "responses/input_tokens"):
        assert (await ask(server, path, sent))[1][b"x-inferoute-model"] == b"a/chat"
    _, told = await admin(server, "GET", "/requests")
    assert told["data"][-1]["model_requested"] == "vectors"


async def test_a_strategy_picks_among_the_members_of_the_default(provider, start):
    server = await start(file(url=provider.url, entry='embeddings = "vectors", chat = "chat"'))
    seen = set()
    for _ in range(2):
        _, fields, _ = await ask(server, "embeddings", extra=b"X-Inferoute-Strategy: round-robin\r\n")
        assert fields[b"x-inferoute-strategy"] == b"round-robin"
        seen.add(fields[b"x-inferoute-model"])
    assert seen == {b"a/small", b"b/small"}
    # Where models may mix, such a request asks for any of them, as ever.
    _, fields, _ = await ask(server, "chat/completions", extra=b"X-Inferoute-Strategy: cost\r\n")
    assert fields[b"x-inferoute-strategy"] == b"cost"
    _, fields, _ = await ask(server, "chat/completions")
    assert fields[b"x-inferoute-strategy"] == b"latency"


async def test_without_an_entry_the_only_model_of_an_endpoint_is_taken(provider, start):
    server = await start(file(url=provider.url, entry=""))
    assert (await ask(server, "moderations"))[1][b"x-inferoute-model"] == b"a/guard"
    required = (400, "invalid_request_error", "model_required", "model")
    assert "X-Inferoute-Strategy" not in check_key_error(await ask(server, "embeddings"), *required)
    answer = await ask(server, "chat/completions")  # one model, but a second one would be another
    assert "X-Inferoute-Strategy" in check_key_error(answer, *required)
    answer = await ask(server, "images/generations")
    check_key_error(answer, 400, "invalid_request_error", "unsupported_endpoint", "model")
    less = file(url=provider.url, entry="").replace('"a/large" = { capabilities = ["embeddings"] }\n', "")
    server = await start(less.replace(', "a/large"', ""))
    seen = {(await ask(server, "embeddings"))[1][b"x-inferoute-model"] for _ in range(8)}
    assert seen <= {b"a/small", b"b/small"}  # one model, at two providers


async def test_a_keys_list_binds_the_default_and_is_told_no_name(provider, start):
    server = await start(file(url=provider.url, entry='embeddings = "vectors"'))
    _, secret = await make(server, models=["a/large", "a/guard"])
    answer = await ask(server, "embeddings", extra=bearer(secret))
    message = check_key_error(answer, 403, "permission_error", "model_not_allowed", "model")
    assert "vectors" not in message and "small" not in message
    assert (await ask(server, "moderations", extra=bearer(secret)))[0] == 200
    _, secret = await make(server, name="half", models=["b/*"])
    _, fields, _ = await ask(server, "embeddings", extra=bearer(secret))
    assert fields[b"x-inferoute-model"] == b"b/small"


async def test_the_sdk_leaves_the_model_out(start, provider):
    provider.script = answers(b'{"id":"m","model":"guard","results":[]}')
    address = (await start(file(url=provider.url, entry=""))).addresses[0]
    url = f"http://{address.host}:{address.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        assert (await client.moderations.create(input="x")).model == "guard"
        assert json.loads(provider.seen[0][1])["model"] == "guard"
        with pytest.raises(openai.BadRequestError, match="names no model"):
            await client.responses.create(input="x")


async def test_explain_knows_it(start):
    server = await start(file('embeddings = "vectors"', dead_url()))
    for body, default in (
        ({"endpoint": "embeddings", "body": {"input": "x"}}, "vectors"),
        ({"endpoint": "moderations", "body": {"input": "x"}}, "a/guard"),
        ({"endpoint": "embeddings", "body": {"model": "small"}}, None),
        ({"strategy": "cost", "body": {}}, None),
    ):
        status, told = await admin(server, "POST", "/explain", body)
        assert (status, told["default_model"]) == (200, default)
        assert told["model"] == body["body"].get("model")
