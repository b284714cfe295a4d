"""The official SDK against the installed program: what works, and which exception each error becomes."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e import ROOT, Gateway, free_port
from tests.e2e.asking import NUMBERS
from tests.e2e.background import in_thread, scripted
from tests.support.fakes import DONE, EVENT_STREAM, Call, ScriptedProvider, chunk

QUICK = {"x-sim-latency-ms": "0", "x-sim-delay-ms": "0"}
HI = [{"role": "user", "content": "Say hi."}]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    """The repository's own routes.toml with the simulator behind it, and short limits."""
    text = (ROOT / "routes.toml").read_text()
    text = text.replace('mode = "auto"', 'mode = "always"')
    text = text.replace('# max_body = "64MiB"', 'max_body = "1MiB"')
    text = text.replace("# [timeouts]", '[timeouts]\nclient_body = "300ms"\nclient_head = "300ms"')
    with Gateway(tmp_path_factory.mktemp("gateway"), text) as running:
        yield running
    assert "SIMULATED" in running.log


@pytest.fixture
def client(gateway) -> Iterator[openai.OpenAI]:
    with sync_client(gateway) as made:
        yield made


@pytest.fixture
async def aclient(gateway):
    options = {"api_key": "any", "max_retries": 0, "default_headers": QUICK}
    async with openai.AsyncOpenAI(base_url=gateway.address + "/v1", **options) as made:
        yield made


def sync_client(gateway: Gateway, **options) -> openai.OpenAI:
    options = {"max_retries": 0, "api_key": "any", "default_headers": QUICK, "timeout": 10} | options
    return openai.OpenAI(base_url=gateway.address + "/v1", **options)


# ---------------------------------------------------------------------- what works


def test_the_raw_answer_tells_its_route(client):
    raw = client.chat.completions.with_raw_response.create(model="openai/gpt-4o", messages=HI)
    for name, text in (
        ("Provider", "openai"), ("Model", "openai/gpt-4o"), ("Strategy", "pinned"), ("Simulated", "1"),
    ):  # fmt: skip
        assert raw.headers[f"X-Inferoute-{name}"] == text
    assert re.fullmatch(r"openai:200:\d+ms", raw.headers["X-Inferoute-Attempts"])
    assert raw.headers["X-Inferoute-Request-Id"].startswith("req_")
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_with_its_usage(client):
    asked = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_headers": {"x-sim-chunks": "20"},
    }
    chunks = list(client.chat.completions.create(model="openai/gpt-4o-mini", messages=HI, **asked))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.completion_tokens == 20


def test_the_streaming_helper(client):
    with client.chat.completions.stream(model="economy", messages=HI) as stream:
        assert "".join(event.delta for event in stream if event.type == "content.delta")
        assert stream.get_final_completion().choices[0].message.content


def test_a_stream_left_early_is_fine(client):
    for _ in range(3):
        with client.chat.completions.create(model="openai/gpt-4o", messages=HI, stream=True) as stream:
            next(iter(stream))
    assert client.chat.completions.create(model="openai/gpt-4o", messages=HI).choices


async def test_async(aclient):
    answer = await aclient.chat.completions.create(model="openai/gpt-4o", messages=HI)
    assert answer.choices[0].message.content
    stream = await aclient.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    answer = await aclient.embeddings.create(model="text-embedding-3-small", input="a")
    assert len(answer.data[0].embedding) == 1536
    assert "openai/gpt-4o" in [model.id async for model in aclient.models.list()]
    assert (await aclient.models.retrieve("openai/gpt-4o")).id == "openai/gpt-4o"
    with pytest.raises(openai.NotFoundError):
        await aclient.chat.completions.create(model="nobody/knows", messages=HI, stream=True)
    with pytest.raises(openai.BadRequestError):
        await aclient.embeddings.create(model="auto", input="a")


def test_models(client):
    listed = {model.id: model for model in client.models.list()}
    assert {"openai/gpt-4o", "premium", "balanced", "economy", "long-context"} <= listed.keys()
    assert listed["premium"].owned_by == "tokenhub"
    one = client.models.retrieve("openai/gpt-4o")  # the SDK sends the slash as it is, or as %2F
    assert (one.id, one.owned_by, one.context_window) == ("openai/gpt-4o", "openai", 128_000)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("openai/gpt-5o")


def served(client: openai.OpenAI, model: str, **headers: str) -> tuple[str, str]:
    lines = {name.replace("_", "-"): text for name, text in headers.items()}
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HI, extra_headers=lines)
    return raw.headers["X-Inferoute-Model"], raw.headers["X-Inferoute-Strategy"]


@pytest.mark.parametrize(
    ("alias", "members"),
    [
        ("premium", {"openai/gpt-4o", "anthropic/claude-3-5-sonnet"}),
        ("balanced", {"openai/gpt-4o-mini", "anthropic/claude-3-haiku"}),
        ("economy", {"openai/gpt-4o-mini", "anthropic/claude-3-haiku", "google/gemini-flash"}),
        ("long-context", {"anthropic/claude-3-5-sonnet", "google/gemini-1.5-pro"}),
    ],
)
def test_the_four_tiers(client, alias, members):
    model, strategy = served(client, alias)
    assert model in members
    assert strategy == ("cost" if alias == "economy" else "latency")
    turns = {served(client, alias, X_Inferoute_Strategy="round-robin") for _ in members}
    assert turns == {(member, "round-robin") for member in members}


def test_short_names_and_auto(client):
    assert served(client, "gpt-4o")[0] == "openai/gpt-4o"
    assert served(client.with_options(base_url=str(client.base_url)[:-3]), "balanced")  # the path without v1
    for strategy in ("cost", "latency", "availability", "round-robin"):
        assert served(client, "auto", X_Inferoute_Strategy=strategy)[1] == strategy


def test_no_model_but_a_strategy(client):
    """The SDK insists on a model, so its plain call is used."""
    options = {"headers": {"X-Inferoute-Strategy": "cost"}}
    answer = client.post("/chat/completions", body={"messages": HI}, options=options, cast_to=object)
    assert answer["choices"]


# ---------------------------------------------------------------------- the client's mistakes


def check(
    error: openai.APIStatusError, status: int, code: str | None, type: str = "invalid_request_error"
) -> None:
    assert (error.status_code, error.type, error.code) == (status, type, code)
    assert error.request_id == error.response.headers["X-Inferoute-Request-Id"]
    assert error.response.headers["x-should-retry"] == (
        "true" if status in (408, 429) or status >= 500 else "false"
    )


def raw(client: openai.OpenAI, body: bytes, path: str = "/chat/completions", **headers: str) -> object:
    headers = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return client.post(path, content=body, options={"headers": headers}, cast_to=object)


@pytest.mark.parametrize(
    ("body", "headers", "code", "words"),
    [
        (b'{"messages":[]}', {}, "model_required", "X-Inferoute-Strategy"),
        (b'{"model":5,"messages":[]}', {}, None, "model"),
        (b'{"model":["a"]}', {}, None, "model"),
        (b'{"model":"openai/gpt-4o","model":"openai/gpt-4o"}', {}, None, "model"),
        (b'{"model":"openai/gpt-4o","mod\\u0065l":"x"}', {}, None, "model"),
        (b'{"model":"openai/gpt-4o"}', {"X_Inferoute_Strategy": "random"}, "invalid_strategy", "round-robin"),
        (b'{"model":"openai/gpt-4o"}', {"X_Inferoute_Timeout": "soon"}, "invalid_timeout", "seconds"),
        (b"hello", {}, None, "JSON"),
        (b"", {}, None, "JSON"),
        (b"[]", {}, None, "object"),
        (b'{"messages":[}', {"X_Inferoute_Strategy": "cost"}, None, "JSON"),
    ],
)
def test_bad_requests(client, body, headers, code, words):
    with pytest.raises(openai.BadRequestError) as caught:
        raw(client, body, **headers)
    check(caught.value, 400, code or caught.value.code)
    assert words in caught.value.message


def chat(client: openai.OpenAI, model: str = "openai/gpt-4o", **more: Any) -> Any:
    return client.chat.completions.create(model=model, **{"messages": HI} | more)


LONG = [{"role": "user", "content": "x" * 2_000_000}]


@pytest.mark.parametrize(
    ("ask", "status", "code", "words"),
    [
        (lambda c: chat(c, "openai/gpt-4"), 404, "model_not_found", "Did you mean 'openai/gpt-4o'"),
        (lambda c: chat(c, "Premium"), 404, "model_not_found", "Did you mean 'premium'"),
        (lambda c: chat(c, "gpt4o"), 404, "model_not_found", "Did you mean 'gpt-4o'"),
        (lambda c: c.embeddings.create(model="openai/gpt-4o", input="a"), 400, "unsupported_endpoint",
         "serves: chat"),
        (lambda c: c.embeddings.create(model="auto", input="a"), 400, "", ""),
        (lambda c: c.embeddings.create(model="premium", input="a"), 400, "", ""),
        (lambda c: c.files.list(), 404, "unknown_path", ""),
        (lambda c: c.images.edit(image=b"png", prompt="x", model="gpt-image-1"), 404, "unknown_path", ""),
        (lambda c: c.get("/chat/completions", cast_to=object), 405, "method_not_allowed", ""),
        (lambda c: chat(c, messages=LONG), 413, "body_too_large", ""),
        (lambda c: chat(c, extra_headers={"x-big": "y" * 40_000}), 431, "bad_head", ""),
    ],
)  # fmt: skip
def test_mistakes_of_the_client(client, ask: Callable[[openai.OpenAI], Any], status, code, words):
    kinds = {400: openai.BadRequestError, 404: openai.NotFoundError}
    with pytest.raises(kinds.get(status, openai.APIStatusError), match=words or None) as caught:
        ask(client)
    error = caught.value
    type = "not_found_error" if status == 404 else "invalid_request_error"
    check(error, status, code if code and error.code else error.code, type)
    if code in ("model_not_found", ""):
        assert error.param == "model"
    assert error.response.headers.get("Allow") == ("POST" if status == 405 else None)


def test_a_body_that_is_too_slow(client):
    def pieces() -> Iterator[bytes]:
        yield b'{"model":'
        time.sleep(0.6)
        yield b'"openai/gpt-4o"}'

    with pytest.raises(openai.APIStatusError) as caught:
        client.post("/chat/completions", content=pieces(), cast_to=object)
    check(caught.value, 408, None)


def test_a_body_without_its_length(gateway):
    """No SDK can be brought to this."""
    with socket.create_connection(gateway.host_and_port, 5) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 411 Length Required\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


# ---------------------------------------------------------------------- the provider's faults


DELTA = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"hi"}}]}\n\n'
)
ANSWER = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}]}'
)
OVERLOADED = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
# What a provider says before it closes the connection; "silent" says nothing, and waits.
FAULTS = {
    "silent": b"",
    "closes": b"",
    "garbage": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "short": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
    "limited": b"HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}",
    "fails": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
    "disguised": EVENT_STREAM + chunk(OVERLOADED) + b"0\r\n\r\n",
}


async def faulty_script(call: Call) -> None:
    """Does what the model is called."""
    _, body = await call.request()
    asked = json.loads(body)
    if asked["model"] != "good":
        await call.send(FAULTS[asked["model"]])
    elif asked.get("stream"):
        await call.stream(DELTA, DONE)
    else:
        await call.answer(ANSWER)
    if asked["model"] == "silent":
        await call.gone()


@pytest.fixture(scope="module")
def faulty() -> Iterator[ScriptedProvider]:
    with in_thread(scripted(faulty_script)) as made:
        yield made


@pytest.fixture(scope="module")
def broken_gateway(faulty, tmp_path_factory) -> Iterator[Gateway]:
    text = (
        "[routing.eject]\nconsecutive_failures = 1_000\nerror_rate = 1\n"  # each test finds them as they are
        f'[providers.faulty]\nbase_url = "{faulty.url}"\nauth = "none"\n'
        f'[providers.good]\nbase_url = "{faulty.url}"\nauth = "none"\n'
        f'[providers.down]\nbase_url = "http://127.0.0.1:{free_port()}/v1"\nauth = "none"\n'
        '[providers.keyless]\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "NO_SUCH_KEY"\n'
        '[models."down/m"]\n[models."keyless/m"]\n[models."good/good"]\n'
        + "".join(f'[models."faulty/{name}"]\n' for name in FAULTS)
        + '[aliases]\nnone = { models = ["faulty/fails", "faulty/closes"], strategy = "round-robin" }\n'
    )
    for name in FAULTS:
        members = f'["faulty/{name}", "good/good"]'
        text += f'after-{name} = {{ models = {members}, strategy = "round-robin", peek = true }}\n'
    with Gateway(tmp_path_factory.mktemp("broken"), text) as running:
        yield running


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("down/m", 503, "provider_unreachable"),
        ("faulty/closes", 502, "provider_bad_answer"),
        ("faulty/garbage", 502, "provider_bad_answer"),
        ("faulty/silent", 504, "provider_timeout"),
        ("keyless/m", 502, "provider_auth_failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_gives_no_answer(broken_gateway, model, status, code, stream):
    with sync_client(broken_gateway) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model=model, messages=HI, stream=stream, extra_headers={"X-Inferoute-Timeout": "0.3"}
        )
    check(caught.value, status, code, "provider_error")
    assert f"'{model.partition('/')[0]}'" in caught.value.message


def test_an_answer_that_breaks_off_raises(broken_gateway):
    with sync_client(broken_gateway) as client, pytest.raises(Exception) as caught:
        client.chat.completions.create(model="faulty/short", messages=HI)
    assert isinstance(caught.value, openai.APIError) or type(caught.value).__name__ == "RemoteProtocolError"


@pytest.mark.parametrize(("model", "requests"), [("limited", 2), ("closes", 4)])
def test_the_sdk_retries_what_may_succeed(broken_gateway, faulty, model, requests):
    """So does the gateway, where a connection closed before any answer."""
    faulty.seen.clear()
    with sync_client(broken_gateway, max_retries=1) as client, pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model=f"faulty/{model}", messages=HI)
    assert len(faulty.seen) == requests


def test_the_sdk_does_not_retry_what_can_not(gateway):
    ids = []

    class Counting(openai.OpenAI):
        def _should_retry(self, response) -> bool:
            ids.append(response.headers["x-request-id"])
            return super()._should_retry(response)

    counting = Counting(base_url=gateway.address + "/v1", api_key="any", max_retries=3)
    with counting, pytest.raises(openai.NotFoundError):
        counting.chat.completions.create(model="nobody/knows", messages=HI)
    assert len(ids) == 1


# ---------------------------------------------------------------------- what the gateway makes up for


def story(headers: Any) -> str:
    """The attempts, without their times and the kept connections that had closed."""
    return re.sub(r"\w+:redial:\d+ms, |:\d+ms", "", headers["X-Inferoute-Attempts"])


@pytest.mark.parametrize(
    ("model", "headers", "stream", "attempts"),
    [
        ("after-fails", {}, False, "faulty:500, good:200"),
        ("after-fails", {}, True, "faulty:500, good:200"),
        ("after-closes", {}, False, "faulty:reset, good:200"),
        ("after-disguised", {}, True, "faulty:error, good:200"),
        ("after-silent", {"X-Inferoute-Timeout": "0.2"}, False, "faulty:timeout, good:200"),
        ("down/m", {"X-Inferoute-Fallback": "good/good"}, False, "down:connect, good:200"),
    ],
)
async def test_another_member_answers(broken_gateway, model, headers, stream, attempts):
    url = broken_gateway.address + "/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        for _ in range(2):  # of two in turn, one begins with the faulty one
            raw = await client.chat.completions.with_raw_response.create(
                model=model, messages=HI, stream=stream, user=f"u{next(NUMBERS)}", extra_headers=headers
            )
            if story(raw.headers) != "good:200":
                break
        answer = raw.parse()
        parts = [part.choices[0].delta.content async for part in answer] if stream else None
    assert (story(raw.headers), raw.headers["X-Inferoute-Provider"]) == (attempts, "good")
    assert "".join(parts or [answer.choices[0].message.content]) == "hi"


def test_where_all_fail_the_sdk_is_told_of_each(broken_gateway):
    with sync_client(broken_gateway) as client, pytest.raises(openai.InternalServerError) as caught:
        chat(client, "none")
    check(caught.value, 503, "all_attempts_failed", "provider_error")
    assert set(story(caught.value.response.headers).split(", ")) == {"faulty:500", "faulty:reset"}
