"""The official SDK against the installed program: what works, and which exception each error becomes."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import openai
import pytest

from tests.e2e import ROOT, Gateway, read_request

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
    async with openai.AsyncOpenAI(
        base_url=gateway.address + "/v1", api_key="any", max_retries=0, default_headers=QUICK
    ) as made:
        yield made


def sync_client(gateway: Gateway, **options) -> openai.OpenAI:
    options = {"max_retries": 0, "api_key": "any", "default_headers": QUICK, "timeout": 10} | options
    return openai.OpenAI(base_url=gateway.address + "/v1", **options)


# ---------------------------------------------------------------------- what works


def test_chat(client):
    answer = client.chat.completions.create(model="openai/gpt-4o", messages=HI)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_raw_answer_tells_its_route(client):
    raw = client.chat.completions.with_raw_response.create(model="openai/gpt-4o", messages=HI)
    assert raw.headers["X-Inferoute-Provider"] == "openai"
    assert raw.headers["X-Inferoute-Model"] == "openai/gpt-4o"
    assert raw.headers["X-Inferoute-Strategy"] == "pinned"
    assert raw.headers["X-Inferoute-Attempts"].startswith("openai:200:")
    assert raw.headers["X-Inferoute-Attempts"].endswith("ms")
    assert raw.headers["X-Inferoute-Request-Id"].startswith("req_")
    assert raw.headers["X-Inferoute-Simulated"] == "1"
    assert raw.parse().choices


def test_a_stream_with_its_usage(client):
    stream = client.chat.completions.create(
        model="openai/gpt-4o-mini",
        messages=HI,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-sim-chunks": "20"},
    )
    chunks = list(stream)
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


async def test_chat_async(aclient):
    answer = await aclient.chat.completions.create(model="openai/gpt-4o", messages=HI)
    assert answer.choices[0].message.content
    stream = await aclient.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
    text = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(text)


def test_completions(client):
    answer = client.completions.create(model="openai/gpt-4o-mini", prompt="Once", max_tokens=5)
    assert answer.choices[0].text
    assert answer.usage.completion_tokens <= 5
    parts = list(client.completions.create(model="openai/gpt-4o-mini", prompt="Once", stream=True))
    assert any(part.choices and part.choices[0].text for part in parts)


@pytest.mark.parametrize(("size", "dimensions"), [("small", 1536), ("large", 3072)])
@pytest.mark.parametrize("prefix", ["openai/", ""])
def test_embeddings(client, size, dimensions, prefix):
    answer = client.embeddings.create(model=f"{prefix}text-embedding-3-{size}", input=["a", "b"])
    assert [len(row.embedding) for row in answer.data] == [dimensions, dimensions]
    assert answer.usage.total_tokens > 0


async def test_embeddings_async(aclient):
    answer = await aclient.embeddings.create(model="text-embedding-3-small", input="a")
    assert len(answer.data[0].embedding) == 1536


def test_responses(client):
    answer = client.responses.create(model="openai/gpt-4o", input="Say hi.")
    assert answer.output_text
    assert answer.usage.output_tokens > 0
    events = list(client.responses.create(model="openai/gpt-4o", input="Say hi.", stream=True))
    assert events[-1].type == "response.completed"


def test_models(client):
    listed = {model.id: model for model in client.models.list()}
    assert {"openai/gpt-4o", "premium", "balanced", "economy", "long-context"} <= listed.keys()
    assert listed["premium"].owned_by == "tokenhub"
    one = client.models.retrieve("openai/gpt-4o")  # the SDK sends the slash as it is, or as %2F
    assert (one.id, one.owned_by, one.context_window) == ("openai/gpt-4o", "openai", 128_000)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("openai/gpt-5o")


async def test_models_async(aclient):
    assert "openai/gpt-4o" in [model.id async for model in aclient.models.list()]
    assert (await aclient.models.retrieve("openai/gpt-4o")).id == "openai/gpt-4o"


def served(client: openai.OpenAI, model: str, **headers: str) -> tuple[str, str]:
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=HI,
        extra_headers={name.replace("_", "-"): text for name, text in headers.items()},
    )
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
    for strategy in ("cost", "latency", "availability", "round-robin"):
        assert served(client, "auto", X_Inferoute_Strategy=strategy)[1] == strategy


def test_no_model_but_a_strategy(client):
    """The SDK insists on a model, so its plain call is used."""
    answer = client.post(
        "/chat/completions",
        body={"messages": HI},
        options={"headers": {"X-Inferoute-Strategy": "cost"}},
        cast_to=object,
    )
    assert answer["choices"]


def test_the_path_without_its_version(gateway):
    with sync_client(gateway).with_options(base_url=gateway.address) as client:
        assert client.chat.completions.create(model="balanced", messages=HI).choices


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


@pytest.mark.parametrize("model", ["auto", "premium"])
def test_embeddings_of_mixed_models(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=model, input="a")
    assert caught.value.param == "model"


def test_embeddings_of_a_chat_model(client):
    with pytest.raises(openai.BadRequestError, match="serves: chat") as caught:
        client.embeddings.create(model="openai/gpt-4o", input="a")
    check(caught.value, 400, "unsupported_endpoint")


@pytest.mark.parametrize(
    ("model", "nearest"), [("openai/gpt-4", "openai/gpt-4o"), ("Premium", "premium"), ("gpt4o", "gpt-4o")]
)
def test_an_unknown_model(client, model, nearest):
    with pytest.raises(openai.NotFoundError, match=f"Did you mean '{nearest}'") as caught:
        client.chat.completions.create(model=model, messages=HI)
    check(caught.value, 404, "model_not_found", "not_found_error")
    assert caught.value.param == "model"


async def test_an_unknown_model_async(aclient):
    with pytest.raises(openai.NotFoundError):
        await aclient.chat.completions.create(model="nobody/knows", messages=HI, stream=True)
    with pytest.raises(openai.BadRequestError):
        await aclient.embeddings.create(model="auto", input="a")


def test_an_unknown_path(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.list()
    check(caught.value, 404, "unknown_path", "not_found_error")
    with pytest.raises(openai.NotFoundError):
        client.images.edit(image=b"png", prompt="x", model="gpt-image-1")


def test_a_wrong_method(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.get("/chat/completions", cast_to=object)
    check(caught.value, 405, "method_not_allowed")
    assert caught.value.response.headers["Allow"] == "POST"


def test_a_body_too_large(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="openai/gpt-4o", messages=[{"role": "user", "content": "x" * 2_000_000}]
        )
    check(caught.value, 413, "body_too_large")


def test_a_head_too_large(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="openai/gpt-4o", messages=HI, extra_headers={"x-big": "y" * 40_000}
        )
    check(caught.value, 431, "bad_head" if caught.value.code else None)


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


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_a_providers_own_error_passes(client, status, kind):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(
            model="openai/gpt-4o",
            messages=HI,
            extra_headers={"x-sim-status": str(status), "x-sim-retry-after": "3"},
        )
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "3"
    assert caught.value.response.headers["X-Inferoute-Attempts"].startswith(f"openai:{status}:")
    assert "x-should-retry" not in caught.value.response.headers


def test_a_refused_operators_key_is_not_the_clients(client):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="openai/gpt-4o", messages=HI, extra_headers={"x-sim-status": "401"}
        )
    check(caught.value, 502, "provider_auth_failed", "provider_error")
    assert "Simulated" not in caught.value.message


class FaultyProvider(socketserver.ThreadingTCPServer):
    """A provider that does what the model is called."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FaultyCall)
        self.requests: list[str] = []
        self.over = threading.Event()


class FaultyCall(socketserver.StreamRequestHandler):
    server: FaultyProvider

    def handle(self) -> None:
        found = read_request(self.rfile)
        if found is None:
            return
        what = found["model"]
        self.server.requests.append(what)
        answers = {
            "closes": b"",
            "garbage": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            "short": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
            "between": EVENTS + chunk(DELTA),
            "within": EVENTS + chunk(DELTA) + chunk(DELTA[:20]),
            "torn": EVENTS + chunk(DELTA) + chunk(DELTA)[:30],
            "limited": b"HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}",
        }
        if what == "silent":
            self.server.over.wait(10)
        else:
            self.wfile.write(answers[what])


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DELTA = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'  # noqa: E501


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyProvider]:
    with FaultyProvider() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def broken_gateway(faulty, tmp_path_factory) -> Iterator[Gateway]:
    names = ("closes", "garbage", "short", "between", "within", "torn", "limited", "silent")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead_port = taken.getsockname()[1]
    text = (
        f'[providers.faulty]\nbase_url = "http://127.0.0.1:{faulty.server_address[1]}/v1"\nauth = "none"\n'
        f'[providers.down]\nbase_url = "http://127.0.0.1:{dead_port}/v1"\nauth = "none"\n'
        '[providers.keyless]\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "NO_SUCH_KEY"\n'
        '[models."down/m"]\n[models."keyless/m"]\n' + "".join(f'[models."faulty/{name}"]\n' for name in names)
    )
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


@pytest.mark.parametrize("model", ["between", "within", "torn"])
def test_a_stream_that_breaks_off_raises(broken_gateway, model):
    got = []
    with sync_client(broken_gateway) as client:
        stream = client.chat.completions.create(model=f"faulty/{model}", messages=HI, stream=True)
        with pytest.raises(Exception) as caught:
            got.extend(event.choices[0].delta.content for event in stream)
    assert got == ["hi"]
    if model == "between":
        assert isinstance(caught.value, openai.APIError)
        assert (caught.value.type, caught.value.code) == ("provider_error", "provider_broke_off")
    else:  # the transport's own, whichever httpx the SDK comes with
        assert (
            isinstance(caught.value, openai.APIError) or type(caught.value).__name__ == "RemoteProtocolError"
        )


def test_an_answer_that_breaks_off_raises(broken_gateway):
    with sync_client(broken_gateway) as client, pytest.raises(Exception) as caught:
        client.chat.completions.create(model="faulty/short", messages=HI)
    assert isinstance(caught.value, openai.APIError) or type(caught.value).__name__ == "RemoteProtocolError"


@pytest.mark.parametrize(("model", "requests"), [("limited", 2), ("closes", 2)])
def test_the_sdk_retries_what_may_succeed(broken_gateway, faulty, model, requests):
    faulty.requests.clear()
    with sync_client(broken_gateway, max_retries=1) as client, pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model=f"faulty/{model}", messages=HI)
    assert len(faulty.requests) == requests


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
