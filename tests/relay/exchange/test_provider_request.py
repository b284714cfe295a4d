"""What changes of a body beside the model, as it reaches a provider."""

from __future__ import annotations

import json

import pytest

from tests.support.fakes import RawClient
from tests.support.keys import ask, make

CONFIG = """
[providers.p]
base_url = "{url}"
auth = "none"
endpoints = ["chat", "completions", "responses", "messages", "embeddings"]
{more}
[models."p/m"]
input_price = 1
output_price = 2
capabilities = ["chat", "completions", "responses", "messages", "embeddings"]
"""
USAGE = {"stream_options": {"include_usage": True}}


OLD, NEW = "max_tokens", "max_completion_tokens"
NEWER = f'output_limit_word = "{NEW}"'
CHAT = "chat/completions"


@pytest.mark.parametrize(
    ("path", "more", "asked", "sent"),
    [
        (CHAT, "", {}, {OLD: 90}),
        (CHAT, NEWER, {}, {NEW: 90}),
        (CHAT, "", {OLD: None}, {OLD: 90}),
        (CHAT, "", {"n": 4}, {"n": 4, OLD: 22}),
        # who knows only the older word gets the request's own limit in that, too
        (CHAT, "", {NEW: 9}, {NEW: 9, OLD: 9}),
        (CHAT, "", {OLD: None, NEW: 9, "n": 3}, {OLD: 9, NEW: 9, "n": 3}),
        (CHAT, "", {OLD: 9}, {OLD: 9}),
        (CHAT, "", {OLD: 5, NEW: 9}, {OLD: 5, NEW: 9}),
        # and who knows the newer one what was said: OpenAI refuses both together
        (CHAT, NEWER, {NEW: 9}, {NEW: 9}),
        (CHAT, NEWER, {OLD: 9}, {OLD: 9}),
        # no word limits an answer at these, and OpenAI's reference has none
        ("responses/compact", "", {"input": "a"}, {"input": "a"}),
        ("responses/compact", "", {"max_output_tokens": 9}, {"max_output_tokens": 9}),
        ("responses/input_tokens", "", {"input": "a"}, {"input": "a"}),
        ("messages/count_tokens", "", {"messages": []}, {"messages": []}),
        ("completions", "", {"prompt": ["a"] * 9}, {"prompt": ["a"] * 9, OLD: 10}),
        ("responses", "", {OLD: 5}, {OLD: 5, "max_output_tokens": 90}),
        ("messages", "", {"x": [1]}, {"x": [1], OLD: 90}),
        ("embeddings", "", {"input": "a"}, {"input": "a"}),
        (CHAT, "request_stream_usage = true", {"stream": True}, {**USAGE, "stream": True, OLD: 90}),
    ],
)
async def test_a_keys_limit_is_put_in(provider, start, path, more, asked, sent):
    server = await start(CONFIG.format(url=provider.url, more=more))
    _, secret = await make(server, max_tokens=90)
    client = await RawClient.connect(server)
    body = json.dumps({"model": "p/m", **asked}).encode()
    await client.post(body, b"/v1/" + path.encode(), b"Authorization: Bearer %b\r\n" % secret)
    assert (await client.response())[0] == 200
    assert json.loads(provider.seen[0][1]) == {"model": "m", **sent}
    assert (await ask(client, body=body))[0] == 401
    _, unlimited = await make(server, name="unlimited", rpm=5)
    await client.post(body, b"/v1/" + path.encode(), b"Authorization: Bearer %b\r\n" % unlimited)
    assert (await client.response())[0] == 200
    usage = USAGE if more.startswith("request") else {}
    assert json.loads(provider.seen[1][1]) == {"model": "m", **asked, **usage}  # nobody else's changes
