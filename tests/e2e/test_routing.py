"""Routing by the installed program, as the official SDK sees it."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count

import openai
import pytest

from tests.e2e import Gateway, read_request

HI = [{"role": "user", "content": "Say hi."}]
PLAIN = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(text: str) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}}]
    event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return chunk(b"data: %b\n\n" % json.dumps(event).encode())


def answer(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


class Provider(socketserver.ThreadingTCPServer):
    """Does what the model of a request is called: a method of :class:`Call`, "-" read as "_"."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.name = name
        self.asked: list[str] = []  # models, in the order of their requests
        self.left: list[str] = []  # models whose requests the gateway closed
        self.over = threading.Event()

    def counts(self) -> Counter[str]:
        return Counter(self.asked)


class Call(socketserver.StreamRequestHandler):
    server: Provider

    def handle(self) -> None:
        found = read_request(self.rfile)
        if found is None:
            return
        self.request_body = found
        model = found["model"]
        self.server.asked.append(model)
        getattr(self, model.replace("-", "_"))()

    def good(self) -> None:
        if self.request_body.get("stream"):
            self.wfile.write(
                STREAM_HEAD + delta("h") + delta("i") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
            )
        else:
            self.wfile.write(answer(json.dumps(PLAIN | {"model": self.server.name}).encode()))

    def fails(self) -> None:
        self.wfile.write(answer(b'{"error":{"message":"theirs","type":"server_error"}}', "500 Oops"))

    def busy(self) -> None:
        self.wfile.write(answer(b"{}", "429 Too Many", "Retry-After: 1000"))

    def refuses(self) -> None:
        self.wfile.write(answer(b'{"error":{"message":"Incorrect API key sk-secret"}}', "401 Unauthorized"))

    def closes(self) -> None:
        pass

    def hangs(self) -> None:
        self.connection.settimeout(20)
        if not self.connection.recv(1):
            self.server.left.append(self.request_body["model"])

    def disguised(self) -> None:
        event = chunk(b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n')
        self.wfile.write(STREAM_HEAD + event + b"0\r\n\r\n")

    def breaks_off(self) -> None:
        self.wfile.write(STREAM_HEAD + delta("h"))


BEHAVIOURS = ("good", "fails", "busy", "refuses", "closes", "hangs", "disguised", "breaks-off")


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, Provider]]:
    made = {name: Provider(name) for name in ("a", "b", "c")}
    threads = []
    for provider in made.values():
        threads.append(threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.02}))
        threads[-1].start()
    yield made
    for provider in made.values():
        provider.shutdown()
        provider.server_close()
    for thread in threads:
        thread.join()


def pools() -> str:
    """For each behaviour a pool that asks a member with it first, and one that works after it."""
    lines = [
        f'after-{what} = {{ models = ["a/{what}", "b/good"], strategy = "cost", peek = true }}'
        for what in BEHAVIOURS
    ]
    lines += [
        'none = { models = ["a/fails", "b/closes"], strategy = "cost" }',
        'patient = { models = ["a/busy", "b/busy"], strategy = "cost" }',
        'hedged = { models = ["a/hangs", "b/good"], strategy = "cost", hedge = "30ms" }',
        'halves = { split = { "a/good" = 50, "b/good" = 50 }, sticky = "header:x-user" }',
    ]
    return "\n".join(lines)


def text(providers: dict[str, Provider], failures: int) -> str:
    """:param failures: so many in a row eject."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    parts = [
        f"[routing.eject]\nconsecutive_failures = {failures}\nerror_rate = 1.0",
        f'[providers.dead]\nbase_url = "http://127.0.0.1:{dead}/v1"\nauth = "none"',
        '[models."dead/m"]\ninput_price = 0\noutput_price = 0',
    ]
    # So far apart that the strategy has nothing to find out.
    for price, (name, provider) in zip((1, 100, 10_000), providers.items(), strict=False):
        url = f"http://127.0.0.1:{provider.server_address[1]}/v1"
        parts.append(f'[providers.{name}]\nbase_url = "{url}"\nauth = "none"')
        parts += [
            f'[models."{name}/{what}"]\ninput_price = {price}\noutput_price = {price}' for what in BEHAVIOURS
        ]
    parts.append(f'[aliases]\n{pools()}\nhalf-dead = {{ models = ["dead/m", "b/good"], strategy = "cost" }}')
    return "\n".join(parts)


@pytest.fixture(scope="module")
def gateway(providers, tmp_path_factory) -> Iterator[Gateway]:
    """One for the tests that leave no trace in it."""
    with Gateway(tmp_path_factory.mktemp("shared"), text(providers, 1000)) as running:
        yield running


@pytest.fixture
def fresh(providers, tmp_path) -> Iterator[Gateway]:
    """One for a test of what a gateway remembers."""
    with Gateway(tmp_path, text(providers, 5)) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_asked(providers) -> None:
    for provider in providers.values():
        provider.asked.clear()
        provider.left.clear()


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """Of the fresh gateway, where the test has one."""
    name = "fresh" if "fresh" in request.fixturenames else "gateway"
    address = request.getfixturevalue(name).address
    with openai.OpenAI(base_url=address + "/v1", api_key="any", max_retries=0, timeout=15) as made:
        yield made


NUMBERS = count()  # what fails only for one body is not blamed on the provider


def chat(client: openai.OpenAI, model: str, **headers: str) -> tuple[str, str]:
    """The story of a request and who answered it."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=HI,
        user=f"u{next(NUMBERS)}",
        extra_headers={k.replace("_", "-"): v for k, v in headers.items()},
    )
    assert raw.parse().choices[0].message.content == "hi"
    return told(raw.headers), raw.headers["X-Inferoute-Provider"]


def told(headers) -> str:
    return re.sub(r":\d+ms", "", headers["X-Inferoute-Attempts"])


def wait_for(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---------------------------------------------------------------------- failover


@pytest.mark.parametrize(
    ("pool", "story"),
    [
        ("after-fails", "a:500, b:200"),
        ("after-closes", "a:reset, b:200"),
        ("half-dead", "dead:connect, b:200"),
        ("after-good", "a:200"),
    ],
)
def test_a_pool_answers_as_long_as_one_member_does(client, pool, story):
    assert chat(client, pool) == (story, story.split(", ")[-1].partition(":")[0])


@pytest.mark.parametrize("pool", ["after-fails", "after-closes", "after-disguised"])
def test_a_stream_of_the_second_member(client, pool):
    stream = client.chat.completions.create(model=pool, messages=HI, stream=True)
    assert "".join(part.choices[0].delta.content for part in stream) == "hi"
    assert re.fullmatch("a:(500|reset|error), b:200", told(stream.response.headers))


async def test_async(gateway):
    async with openai.AsyncOpenAI(base_url=gateway.address + "/v1", api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(model="after-disguised", messages=HI, stream=True)
        assert [part.choices[0].delta.content async for part in stream] == ["h", "i"]
        assert told(stream.response.headers) == "a:error, b:200"


def test_a_silent_member(client, providers):
    assert chat(client, "after-hangs", X_Inferoute_Timeout="0.2") == ("a:timeout, b:200", "b")
    wait_for(lambda: providers["a"].left == ["hangs"])


def test_a_stream_is_never_continued_by_another(client, providers):
    got = []
    stream = client.chat.completions.create(model="after-breaks-off", messages=HI, stream=True)
    with pytest.raises(openai.APIError) as caught:
        got.extend(part.choices[0].delta.content for part in stream)
    assert got == ["h"]
    assert caught.value.code == "provider_broke_off"
    assert providers["b"].asked == []


def test_all_fail(client, providers):
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client, "none")
    error = caught.value
    assert (error.status_code, error.type, error.code) == (503, "provider_error", "all_attempts_failed")
    assert "a answered 500; b gave no valid answer" in error.message
    assert told(error.response.headers) == "a:500, b:reset"
    assert error.request_id == error.response.headers["X-Inferoute-Request-Id"]
    assert "theirs" not in error.message


def test_the_sdk_need_not_retry_what_the_gateway_did(gateway, providers):
    with openai.OpenAI(base_url=gateway.address + "/v1", api_key="any", max_retries=3) as client:
        assert chat(client, "after-fails")[0] == "a:500, b:200"
    assert providers["a"].asked == ["fails"]
    assert providers["b"].asked == ["good"]


# ---------------------------------------------------------------------- what is remembered


def test_patience_that_was_asked_for_is_had(client, providers, fresh):
    for story in ("a:429, b:429", None):
        with pytest.raises(openai.RateLimitError) as caught:
            chat(client, "patient")
        headers = caught.value.response.headers
        assert (caught.value.type, caught.value.code) == ("rate_limit_error", "providers_cooling_down")
        assert 900 < int(headers["retry-after"]) <= 1000
        assert headers.get("X-Inferoute-Attempts") is None if story is None else told(headers) == story
    assert chat(client, "after-busy")[0] == "b:200"
    assert providers["a"].counts() == {"busy": 1}
    assert providers["b"].counts() == {"busy": 1, "good": 1}


def test_a_member_that_keeps_failing_is_left_out(client, providers, fresh):
    stories = [chat(client, "after-fails")[0] for _ in range(8)]
    assert stories == ["a:500, b:200"] * 5 + ["b:200"] * 3
    assert "a/fails is ejected" in fresh.log
    assert providers["a"].counts() == {"fails": 5}


def test_a_key_that_is_refused_takes_the_whole_provider_out(client, providers, fresh):
    assert chat(client, "after-refuses")[0] == "a:401, b:200"
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as caught:
            chat(client, "a/refuses")
        assert (caught.value.status_code, caught.value.code) == (502, "provider_auth_failed")
        assert "secret" not in caught.value.message
    assert chat(client, "after-good")[0] == "b:200"  # a/good is at the same provider
    assert "secret" not in fresh.log
    assert "provider a refused the operator's key" in fresh.log


# ---------------------------------------------------------------------- fallbacks, hedges, splits


def test_named_fallbacks_in_their_order(client):
    names = "b/closes, none, c/good"
    assert chat(client, "dead/m", X_Inferoute_Fallback="b/good")[0] == "dead:connect, b:200"
    assert chat(client, "a/fails", X_Inferoute_Fallback=names) == ("a:500, b:reset, c:200", "c")
    assert chat(client, "a/good", X_Inferoute_Fallback=names)[0] == "a:200"


@pytest.mark.parametrize(
    ("names", "kind"), [("nobody/knows", openai.NotFoundError), ("b/good,", openai.BadRequestError)]
)
def test_a_fallback_that_can_not_be(client, providers, names, kind):
    with pytest.raises(kind):
        chat(client, "a/good", X_Inferoute_Fallback=names)
    assert providers["a"].asked == []


def test_a_pinned_name_gets_the_providers_own_error(client):
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client, "a/fails")
    assert (caught.value.status_code, caught.value.body["message"]) == (500, "theirs")


def test_a_hedge(client, providers):
    assert chat(client, "hedged") == ("a:hedged, b:200", "b")
    wait_for(lambda: providers["a"].left == ["hangs"])


def test_a_split_keeps_callers_where_they_are(client):
    homes = {user: {chat(client, "halves", X_User=f"u{user}")[1] for _ in range(2)} for user in range(20)}
    assert all(len(home) == 1 for home in homes.values())
    assert set.union(*homes.values()) == {"a", "b"}


def test_a_client_that_leaves_stops_the_provider(client, providers):
    leaving = client.with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        leaving.chat.completions.create(model="after-hangs", messages=HI)
    wait_for(lambda: providers["a"].left == ["hangs"])
    assert providers["b"].asked == []
