"""What a response is held for, and what is wrong with one that says 200."""

from __future__ import annotations

import pytest

from tests.support.fakes import DONE, EVENT_STREAM, HELLO, RawClient, answers, chunk, streams, until
from tests.support.scripts import LAST, Plays, head, in_pieces, says
from tests.support.two_providers import ask, body, config, deployment, rows, strikes

STREAM = b',"stream":true'
WHOLE = b'{"choices":[{"message":{"content":"hi"}}]}'
HTML = head(b"Content-Type: text/html; charset=utf-8", b"Content-Length: 6") + b"<html>"
JSON = head(b"Content-Type: application/json", b"Content-Length: %d" % len(WHOLE)) + WHOLE
ERROR = b'{"error":{"message":"overloaded"}}'


@pytest.fixture(name="server")
async def _server(provider, other, start):
    other.script = answers(WHOLE)
    return await start(config(provider, other))


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (Plays(HTML), "web-page"), (answers(b""), "empty"), (answers(b" {} \n"), "empty"),
        (answers(b"null"), "empty"), (answers(ERROR), "error"),
        (answers(b'{"status":"failed","error":{"code":"server_error"}}'), "error"),
        (answers(WHOLE[:-9]), "reset"), (says(head(b"Content-Length: 90") + WHOLE), "reset"),
        (says(head(b"Transfer-Encoding: chunked") + chunk(WHOLE)), "reset"),
        (Plays(head(b"Transfer-Encoding: chunked") + chunk(WHOLE) + b"no size\r\n"), "reset"),
    ],
)  # fmt: skip
async def test_a_plain_200_that_is_no_answer(provider, server, script, outcome):
    """It is followed by another, and blamed; where it passes it is blamed too, and teaches no speed."""
    provider.script = script
    reply = await ask(server)
    assert (reply.body, reply.story) == (WHOLE, f"a:{outcome}, b:200")
    assert strikes(server) == [1, 0]
    if outcome != "reset":
        assert (await ask(server, "a/m")).story == "a:200"
        assert strikes(server) == [2, 0]
        assert rows(server)[-1]["input_tokens"] is None
    assert deployment(server).row("chat", False).speed.typical_s() is None


@pytest.mark.parametrize(("script", "outcome"), [(Plays(HTML), "web-page"), (Plays(JSON), "not-a-stream")])
async def test_a_200_that_is_no_stream(provider, other, server, script, outcome):
    provider.script, other.script = script, streams(HELLO, DONE)
    reply = await ask(server, more=STREAM)
    assert (reply.body, reply.story) == (HELLO + DONE, f"a:{outcome}, b:200")
    reply = await ask(server, "a/m", more=STREAM)
    assert (reply.status, reply.story) == (200, "a:200")
    assert strikes(server) == [2, 0]
    # An answer is one all the same, if not the one that was asked for.
    assert (rows(server)[-1]["input_tokens"] is not None) == (outcome == "not-a-stream")


async def test_a_page_that_passes_is_no_proof_that_its_member_works_again(provider, server):
    provider.script = says(HTML)
    for number in range(7):
        await ask(server, "a/m", more=b',"n":%d' % number)
    assert strikes(server, "a/m") == [7]
    assert deployment(server).breaker.is_open


async def test_a_plain_answer_that_is_large_goes_out_as_it_comes(provider, server, client):
    pieces = [chunk(b"x" * 300_000)] * 4
    provider.script = Plays(head(b"Transfer-Encoding: chunked"), *in_pieces(*pieces))
    await client.post(body("two"))
    await client.head()
    assert len(await client.reader.readexactly(1_200_000)) == 1_200_000
    assert server.gateway.buffered_bytes == 0


async def test_what_is_held_counts(provider, server, client):
    provider.script = Plays(head(b"Transfer-Encoding: chunked") + chunk(b"x" * 300_000))
    await client.post(body("two"))
    await until(lambda: server.gateway.buffered_bytes >= 300_000)
    client.close()
    await until(lambda: not server.gateway.connections)
    assert server.gateway.buffered_bytes == 0


@pytest.mark.parametrize(
    ("status", "error", "story"),
    [
        (b"402 Pay", b"{}", "a:402, b:200"), (b"403 No", b"{}", "a:403, b:200"),
        (b"404 None", b"{}", "a:404, b:200"), (b"405 No", b"{}", "a:405, b:200"),
        (b"410 Gone", b"{}", "a:410, b:200"), (b"302 There", b"{}", "a:302, b:200"),
        (b"400 Bad", b'{"error":{"code":"model_not_found"}}', "a:400, b:200"),
        (b"400 Bad", b'{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}', "a:400, b:200"),
        (b"403 No", b'{"error":{"code":"content_policy_violation"}}', "a:403"),
        (b"404 None", b'{"error":{"code":"file_not_found"}}', "a:404"),
        (b"400 Bad", b'{"error":{"code":"invalid_value"}}', "a:400"), (b"422 No", b"{}", "a:422"),
    ],
)  # fmt: skip
async def test_a_refusal_by_its_status_and_its_code(provider, server, status, error, story):
    provider.script = answers(error, status)
    reply = await ask(server)
    assert reply.story == story
    if story.endswith("200"):
        assert (await ask(server, "a/m")).status == int(status[:3])  # it passes, as nothing follows
        assert deployment(server).breaker.failures == 2
    else:
        assert (reply.status, reply.body, strikes(server)) == (int(status[:3]), error, [0, 0])


async def test_a_model_that_is_gone_is_out_at_once(provider, server, caplog):
    provider.script = answers(b'{"error":{"code":"model_not_found"}}', b"404 None")
    await ask(server)
    assert "a/m is ejected" in caplog.text
    assert f"to POST {provider.url}/chat/completions: is base_url or upstream right?" in caplog.text
    assert (await ask(server)).story == "b:200"


async def test_a_prompt_that_is_too_long_goes_to_a_larger_model_and_blames_nobody(provider, other, start):
    provider.script = answers(b'{"error":{"code":"context_length_exceeded"}}', b"400 Bad")
    for window, story in (("1_000", "a:400"), ("3_000", "a:400, b:200")):
        other.script = answers(WHOLE)
        text = config(provider, other)
        text = text.replace('[models."a/m"]', '[models."a/m"]\ncontext_window = 2_000')
        server = await start(text.replace('[models."b/m"]', f'[models."b/m"]\ncontext_window = {window}'))
        assert (await ask(server)).story == story
        assert strikes(server) == [0, 0]


async def test_a_window_that_the_provider_names_is_kept_to(provider, other, start, caplog):
    """As long as no larger prompt is taken there."""
    said = b"This model's maximum context length is 100 tokens."
    provider.script = answers(b'{"error":{"message":"%b"}}' % said, b"400 Bad")
    other.script = answers(WHOLE)
    server = await start(config(provider, other, tables='[routing]\nstrategy = "order"'))
    long = b',"x":"%b"' % (b"word " * 200)
    assert (await ask(server, more=long)).story == "a:400, b:200"
    assert "a/m: its provider names a context window of 100 tokens" in caplog.text
    assert (await ask(server, more=long)).story == "b:200"
    provider.script = answers(b'{"id":"x","usage":{"prompt_tokens":250,"completion_tokens":1}}')
    assert (await ask(server)).story == "a:200"  # a short one, by our estimate
    assert (await ask(server, more=long)).story == "a:200"
    assert strikes(server) == [0, 0]


async def test_fail_on_is_the_operators(provider, other, start):
    other.script = answers(WHOLE)
    server = await start(
        config(provider, other, tables='[routing]\nfail_on = [418, "busy_now"]', alias='fail_on = ["5xx"]')
    )
    for status, error, short, alias in (
        (b"418 Tea", b"{}", "a:418, b:200", "a:418"),
        (b"400 Bad", b'{"error":{"type":"Busy_Now"}}', "a:400, b:200", "a:400"),
        (b"500 Oops", b"{}", "a:500", "a:500, b:200"),
    ):
        provider.script = answers(error, status, b"Connection: close\r\n")
        stories = [(await ask(server, name, "X-Inferoute-Strategy: order")).story for name in ("m", "two")]
        assert stories == [short, alias]


async def test_an_errors_body_is_read_to_a_limit(provider, server):
    """More of it says nothing: it passes as it comes."""
    provider.script = Plays(
        head(b"Transfer-Encoding: chunked", status=b"400 Bad") + chunk(b"x" * 70_000), chunk(b"y") + LAST
    )
    reply = await ask(server)
    assert (reply.status, len(reply.body), reply.story) == (400, 70_001, "a:400")


@pytest.mark.parametrize(
    ("status", "lines", "story"),
    [
        (b"500 Oops", b"", "a:500"), (b"503 Busy", b"", "a:503"), (b"408 Late", b"", "a:408"),
        (b"503 Busy", b"Retry-After: 9\r\n", "a:503, b:200"), (b"429 Slow", b"", "a:429, b:200"),
        (b"404 None", b"", "a:404, b:200"),
    ],
)  # fmt: skip
async def test_what_makes_things_is_sent_again_only_if_it_was_not_taken(
    provider, other, start, status, lines, story
):
    provider.script, other.script = answers(b"{}", status, lines), answers(b'{"data":[{"url":"u"}]}')
    text = '[aliases]\ntwo = { models = ["a/i", "b/i"], strategy = "order" }\n'
    for name, url in (("a", provider.url), ("b", other.url)):
        text += f'[providers.{name}]\nbase_url = "{url}"\nauth = "none"\nendpoints = ["images"]\n'
        text += f'[models."{name}/i"]\ncapabilities = ["images"]\n'
    server = await start(text)
    client = await RawClient.connect(server)
    await client.post(b'{"model":"two","prompt":"p"}', b"/v1/images/generations")
    told = (await client.head()).partition(b"X-Inferoute-Attempts: ")[2].partition(b"\r\n")[0].decode()
    assert [part.rpartition(":")[0] for part in told.split(", ")] == story.split(", ")
    client.close()


async def test_a_plain_answer_to_a_request_for_a_stream_is_charged_though_its_client_leaves(
    provider, server, client
):
    provider.script = Plays(JSON[:-9])
    await client.post(body("a/m", STREAM))
    await client.head()
    client.close()
    await until(lambda: rows(server))
    assert rows(server)[-1]["input_tokens"]


async def test_what_passes_as_an_error_and_breaks_off_is_one_failure(provider, server, client, caplog):
    event = b"data: %b\n\n" % ERROR
    provider.script = says(EVENT_STREAM + chunk(event) + b"5\r\nda")
    await client.post(body("a/m", STREAM))
    assert event in await client.rest()
    assert strikes(server) == [1, 0]
    assert caplog.text.count("provider a ") == 1
    assert rows(server)[-1]["input_tokens"] is None
