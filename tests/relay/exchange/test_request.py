"""What a client asks, up to the choice: its head, its body, the pools it names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxy.access.grants import KeyTable
from proxy.config.parse import parse
from proxy.errors import BadRequest, ForeignOrigin, GatewayError, LimitReached, UnknownModel
from proxy.relay.exchange.request import Request
from proxy.relay.exchange.time_is_up import time_is_up
from proxy.relay.upstream.known_head import read_known_head
from proxy.routing.catalog import Catalog
from tests.support.fakes import RawClient, until
from tests.support.keys import UNIX_S, grant_of

TEXT = """
[routing]
max_attempts = 2
[timeouts]
first_byte = "10s"
[server]
max_body = "1KiB"
[providers.a]
base_url = "http://a/v1"
[providers.b]
base_url = "http://b/v1"
[providers.go]
base_url = "http://go/v1"
case_insensitive_keys = true
[models."a/m"]
[models."b/m"]
capabilities = ["chat", "vision"]
[models."go/n"]
[models."a/e"]
capabilities = ["embeddings"]
[models."b/e"]
capabilities = ["embeddings"]
[models."a/f"]
capabilities = ["embeddings"]
[aliases]
both = ["a/m", "b/m"]
sticky = { split = { "a/m" = 1, "b/m" = 1 }, sticky = "header:x-user" }
"""


def gateway(text: str = TEXT) -> SimpleNamespace:
    config = parse(text)
    ids = iter(range(1000))
    return SimpleNamespace(
        routes=SimpleNamespace(catalog=Catalog(config, dict.fromkeys(config.providers, True), 0)),
        timeouts=config.timeouts, retry_same=0, max_body_bytes=config.server.max_body_bytes,
        keys=KeyTable((), None, is_open=True), tagging=None,
        lets_pages_call=lambda origin: origin == b"https://app.example", unix_offset_s=0.0,
        hint=lambda name: "both" if name == "bth" else None, next_request_id=lambda: b"req_%d" % next(ids),
    )  # fmt: skip


def request(
    *lines: bytes, endpoint: str = "chat", length: int | None = 10, chunked: bool = False, text: str = TEXT
) -> Request:
    if chunked:
        lines, length = (*lines, b"Transfer-Encoding: chunked"), None
    head = read_known_head(b"\r\n".join((b"POST /v1/x HTTP/1.1", b"Host: g", *lines)))
    made = Request(gateway(text), head, length, endpoint, b"/x")
    made.begin()
    return made


def test_a_compaction_is_a_response_whose_length_no_word_limits():
    said = b'{"model":"a/m","max_output_tokens":5}'
    for path, output in ((b"/responses", 5), (b"/responses/compact", 0)):
        made = whole(said, endpoint="responses")
        made.path = path
        assert made.wants().output == output


def whole(body: bytes, *lines: bytes, **more: object) -> Request:
    made = request(*lines, **more)  # type: ignore[arg-type]
    made.body.held = [body]
    made.scan(body, True)
    return made


def names(request: Request, model: bytes = b"both") -> list[str]:
    request.body.held = [b'{"model":"%b"}' % model]
    request.scan(request.body.held[0], True)
    request.resolve()
    return [pool.name for pool in request.fallbacks]


@pytest.mark.parametrize(
    ("line", "streamed", "seconds"),
    [
        (b"", True, 10.0), (b"X-Inferoute-Timeout: 2.5", True, 2.5), (b"X-Inferoute-Timeout: 99", True, 10.0),
        (b"X-Inferoute-Timeout: 99", False, 99.0), (b"X-Inferoute-Timeout: 999", False, 600.0),
    ],
)  # fmt: skip
def test_the_time_limit_can_only_be_lowered(line, streamed, seconds):
    made = whole(b'{"model":"both"}', *([line] if line else []))
    pool = made.resolve()
    assert time_is_up(made, pool.limits(pool.members[0], streamed), 7.0) == 7.0 + seconds


@pytest.mark.parametrize(
    ("length", "status"), [(1024, 0), (1025, 413), (None, 411)], ids=["max", "more", "unframed"]
)
def test_the_framing_is_checked_before_the_body_comes(length, status):
    if not status:
        request(length=length)
        return
    with pytest.raises(BadRequest) as caught:
        request(length=length)
    assert (caught.value.status, caught.value.close) == (status, True)


def test_a_chunked_body_is_measured_as_it_comes():
    made = request(chunked=True)
    made.scan(b'{"model":"both","x":"' + b"y" * 1000, False)
    with pytest.raises(BadRequest, match="max_body") as caught:
        made.scan(b"y" * 100, False)
    assert caught.value.status == 413


def test_the_pool_and_its_fallbacks_in_order():
    made = request(b"X-Inferoute-Fallback: go/n, m", b"X-Inferoute-Fallback: a/m")
    assert names(made) == ["go/n", "m", "a/m"]
    assert made.pool is not None
    assert (made.pool.name, made.can_retry) == ("both", True)
    assert [pool.strategy for pool in made.fallbacks] == ["pinned", "latency", "pinned"]


@pytest.mark.parametrize(
    ("lines", "models", "found"),
    [
        ([], None, ["m", "b/m"]),
        ([b"X-Inferoute-Fallback: b/m, go/n"], None, ["b/m", "go/n", "m"]),  # the header's first, each once
        ([], ("backed", "b/m"), ["m", "b/m"]),
        ([], ("backed",), []),  # what the key may not use is left out, and nothing said of it
    ],
)
def test_the_alias_s_own_fallbacks_follow(lines, models, found):
    text = TEXT + 'backed = { models = ["a/m"], fallback = ["m", "b/m"] }\n'
    made = request(*lines, text=text)
    if models is not None:
        made.grant = grant_of(models=models)
    assert names(made, b"backed") == found
    assert made.can_retry is bool(found)


def test_the_strategy_header_is_for_the_fallbacks_too():
    made = request(b"X-Inferoute-Fallback: m, a/m", b"X-Inferoute-Strategy: cost")
    names(made)
    assert made.pool is not None
    assert [pool.strategy for pool in (made.pool, *made.fallbacks)] == ["cost", "cost", "pinned"]


@pytest.mark.parametrize(
    ("model", "line", "may"),
    [
        (b"a/m", b"", False),
        (b"a/m", b"X-Inferoute-Fallback: b/m", True),
        (b"both", b"", True),
        (b"n", b"", False),
    ],
)
def test_whether_an_attempt_may_be_followed(model, line, may):
    made = request(*([line] if line else []))
    names(made, model)
    assert made.can_retry is may


def test_without_failover_only_a_fallback_follows():
    text = TEXT.replace("[routing]", "[routing]\nfailover = false")
    made = request(text=text)
    names(made)
    assert not made.can_retry


@pytest.mark.parametrize(
    ("model", "status", "code"), [(b"nope", 404, "model_not_found"), (b"a/e", 400, "unsupported_endpoint")]
)
def test_names_that_dont_serve(model, status, code):
    with pytest.raises(GatewayError) as caught:
        names(request(), model)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.param == "model"
    told = caught.value.message
    with pytest.raises(GatewayError) as caught:
        names(request(b"X-Inferoute-Fallback: a/m, " + model))
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.param == "X-Inferoute-Fallback"
    assert caught.value.message == str(caught.value) == f"X-Inferoute-Fallback: {told}"


def test_a_hint_is_for_those_who_may_use_all_models():
    for models, said in ((None, " Did you mean 'both'?"), (("a/m",), "")):
        made = request()
        made.grant = grant_of(models=models)
        with pytest.raises(UnknownModel) as caught:
            names(made, b"bth")
        assert caught.value.message == (
            f"The model 'bth' does not exist here.{said} GET /v1/models?all=true lists all models."
        )


@pytest.mark.parametrize("endpoint", ["chat", "embeddings", "rerank"])
def test_a_fallback_that_a_key_may_not_use_is_refused_whatever_it_can_do(endpoint):
    made = request(b"X-Inferoute-Fallback: a/f", endpoint=endpoint)
    made.grant = grant_of(models=("a/m", "a/e"))
    with pytest.raises(GatewayError) as caught:
        names(made, {"chat": b"a/m"}.get(endpoint, b"a/e"))
    expected = (400, "unsupported_endpoint") if endpoint == "rerank" else (403, "model_not_allowed")
    assert (caught.value.status, caught.value.code) == expected  # of "rerank" it is the first name's fault
    assert caught.value.param == ("model" if endpoint == "rerank" else "X-Inferoute-Fallback")
    assert caught.value.message.startswith("X-Inferoute-Fallback: ") == (endpoint != "rerank")


def test_a_key_whose_requests_are_used_up_is_refused_by_its_head():
    made = request()
    grant = grant_of(rpm=1)
    made.context.keys = SimpleNamespace(grant_of=lambda credentials: grant)
    made.head.access = None
    made.begin()
    grant.account.count(made.begun_at, UNIX_S)
    made.begin()  # this worker has not heard of it yet, and looking costs something
    with pytest.raises(LimitReached):
        grant.account.count(made.begun_at, UNIX_S)
    with pytest.raises(LimitReached, match="1 requests a minute"):
        made.begin()
    made.begun_at += 60.0
    made.begin()


def test_a_body_without_model_is_told_what_it_lacks():
    with pytest.raises(BadRequest, match="no model") as caught:
        whole(b'{"a":1}').resolve()
    assert caught.value.code == "model_required"
    assert whole(b'{"a":1}', b"X-Inferoute-Strategy: cost").resolve().kind == "auto"
    with pytest.raises(BadRequest) as caught:
        whole(b'{"a":', b"X-Inferoute-Strategy: cost").resolve()
    assert caught.value.code != "model_required"


@pytest.mark.parametrize(
    ("fallback", "mixes"), [(b"b/e", False), (b"e", False), (b"a/f", True), (b"b/e, a/f", True)]
)
def test_vectors_of_different_models_dont_mix_over_fallbacks_either(fallback, mixes):
    made = request(b"X-Inferoute-Fallback: " + fallback, endpoint="embeddings")
    if not mixes:
        assert names(made, b"a/e")
        return
    with pytest.raises(BadRequest, match="'a/f'") as caught:
        names(made, b"a/e")
    assert caught.value.code == "mixed_models"


@pytest.mark.parametrize(
    ("model", "line", "settled"),
    [
        (b"a/m", b"", True),
        (b"both", b"", False),  # what is still to come may be an image
        (b"go/n", b"", False),  # or a "Model"
        (b"a/m", b"X-Inferoute-Fallback: both", True),
        (b"a/m", b"X-Inferoute-Fallback: go/n", False),
    ],
)
def test_when_the_rest_of_the_body_can_change_nothing(model, line, settled):
    made = request(*([line] if line else []), chunked=True)
    made.scan(b'{"model":"%b",' % model, False)
    assert made.is_settled() is settled


@pytest.mark.parametrize(("user", "caller"), [(b"X-User: 7", b"7"), (b"X-Other: 7", b"")])
def test_the_facts_of_a_sticky_split(user, caller):
    body = b'{"model":"sticky","messages":[]}'
    made = whole(body, user)
    pool = made.resolve()
    found = made.facts(pool, *made.body.excerpt(), 5.0)
    assert (found.endpoint, found.streamed, found.body_bytes, found.now) == ("chat", False, len(body), 5.0)
    assert found.caller == caller
    again = made.facts_again(pool)
    assert again.now > 0.0
    for name in ("endpoint", "streamed", "body_bytes", "images", "tools", "data_url_bytes", "caller"):
        assert getattr(again, name) == getattr(found, name)


def test_only_a_sticky_split_looks_for_the_caller():
    made = whole(b'{"model":"both"}', b"X-User: 7")
    assert made.facts_again(made.resolve()).caller == b""


def test_a_request_keeps_to_the_routes_it_began_with():
    made = whole(b'{"model":"both"}')
    before, made.context.routes = made.routes, None  # type: ignore[assignment]
    assert made.resolve().name == "both"
    assert made.routes is before
    assert made.request_id == b"req_0"


def test_when_the_request_was_ready():
    made = request(length=100)
    assert made.ready_at == made.begun_at
    made.scan(b'{"model":', False)
    assert made.ready_at == made.begun_at  # one piece is there with the head
    made.scan(b'"both"}', True)
    assert made.ready_at >= made.begun_at


def test_a_page_without_a_key():
    request(b"Origin: https://app.example").begin()
    with pytest.raises(ForeignOrigin):
        request(b"Origin: https://evil.example").begin()


BUFFERED = """
[server]
listen = ["127.0.0.1:0"]
max_buffered = "3MiB"
[providers.a]
base_url = "{url}"
auth = "none"
[models."a/m"]
[models."a/n"]
[aliases]
both = ["a/m", "a/n"]
"""
HALF = b'{"model":"both","x":"' + b"x" * (2 << 20)


async def upload(server: object, body: bytes, begin: bytes) -> RawClient:
    """A client that has sent so much of a body."""
    client = await RawClient.connect(server)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n"
    await client.send(head % len(body) + begin)
    return client


@pytest.mark.parametrize("leaves", [True, False])
async def test_large_bodies_are_held_up_to_a_sum(start, provider, leaves):
    server = await start(BUFFERED.format(url=provider.url))
    gateway = server.gateway
    body = HALF + b'"}'
    one = await upload(server, body, HALF)
    await until(lambda: gateway.buffered_bytes == len(HALF))
    other = await upload(server, body, HALF)
    status, headers, text = await other.response()
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert b"Too many large request bodies" in text
    await until(lambda: gateway.buffered_bytes == len(HALF))  # what was refused is let go of
    small = await RawClient.connect(server)
    await small.post(b'{"model":"both"}')
    assert (await small.response())[0] == 200
    if leaves:
        one.close()
        await until(lambda: not gateway.buffered_bytes)
    else:
        await one.send(b'"}')
        assert (await one.response())[0] == 200
        assert not gateway.buffered_bytes
    third = await upload(server, body, body)
    assert (await third.response())[0] == 200
    assert not gateway.buffered_bytes


async def test_what_is_sent_on_as_it_comes_is_not_held(start, provider):
    server = await start(BUFFERED.format(url=provider.url))
    body = HALF.replace(b'"both"', b'"a/m"') + b"x" * (2 << 20) + b'"}'
    client = await upload(server, body, body[:-9])
    await until(lambda: provider.connections == 1)
    assert not server.gateway.buffered_bytes
    await client.send(body[-9:])
    assert (await client.response())[0] == 200
