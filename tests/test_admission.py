"""Requests held against the limits of their key before they are sent."""

from __future__ import annotations

import pytest

from proxy.admission import admit
from proxy.errors import BadRequest, LimitReached
from proxy.outline import keys_of
from proxy.pool import Pool
from proxy.usage import USUAL_OUTPUT_TOKENS, Usage
from tests.fakes import RawClient
from tests.keycases import CONFIG, UNIX_S, ask, check_error, grant_of, make
from tests.routecases import deployment, pool_of

# ---------------------------------------------------------------------- the limit of a request


def pool(endpoint: str = "chat", **facts: object) -> Pool:
    prices = {"input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 10.0}
    return pool_of(
        "cost", deployment("a", endpoint, **prices, **facts), deployment("b", endpoint), endpoint=endpoint
    )


def let_in(grant, body: bytes, endpoint: str = "chat", text_bytes: int = 400, **facts: object):
    return admit(
        grant, pool(endpoint, **facts), (), body, keys_of(body), len(body), text_bytes, False, 1000.0, UNIX_S
    )


@pytest.mark.parametrize(
    "body", [b'{"max_tokens":100}', b"{}", b'{"max_tokens":null}', b'{"a":{"max_tokens":999}}']
)
def test_what_asks_for_no_more_than_it_may(body):
    assert let_in(grant_of(max_tokens=100), body) is None  # and there is nothing to count


@pytest.mark.parametrize(
    "body",
    [
        b'{"max_tokens":101}',
        b'{"max_tokens":1,"max_tokens":101}',
        b'{"max_completion_tokens":101,"max_tokens":1}',
        b'{"max_tokens":100.5}',
        b'{"max_tokens":"101"}',
        b'{"max_tokens":"1_01"}',
        b'{"max_tokens":[1]}',
    ],
)
def test_what_asks_for_more(body):
    grant = grant_of(max_tokens=100, rpm=1)
    with pytest.raises(BadRequest) as caught:
        let_in(grant, body)
    error = caught.value
    assert (error.status, error.type, error.code, error.param) == (
        422, "invalid_request_error", "max_tokens_exceeded", "max_tokens",
    )  # fmt: skip
    assert error.message == ("The request asks for more output than this API key may: 100 tokens a request.")
    assert let_in(grant, b"{}").requests_left == 0  # it took nothing of the key's other limits


# ---------------------------------------------------------------------- estimates


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 5}])
def test_nothing_to_count(limits):
    assert let_in(grant_of(**limits), b"{}") is None


def test_requests_alone_need_no_estimate():
    for limits in ({"rpm": 5}, {"concurrency": 1}):
        permit = let_in(grant_of(**limits), b'{"max_tokens":5}')
        assert (permit.tokens, permit.nusd) == (0, 0)


@pytest.mark.parametrize("limits", [{"tpm": 10**9}, {"monthly_tokens": 10**9}, {"monthly_nusd": 10**12}])
def test_an_estimate(limits):
    usual = let_in(grant_of(**limits), b"{}")
    given = 400 * 0.25  # tokens of the prompt
    assert usual.tokens == pytest.approx(given + USUAL_OUTPUT_TOKENS, abs=2)
    assert usual.nusd == pytest.approx(given * 1000 + USUAL_OUTPUT_TOKENS * 10_000, rel=0.02)
    asked = let_in(grant_of(**limits), b'{"max_tokens":20}')
    assert asked.tokens == pytest.approx(given + 20, abs=2)
    assert asked.nusd == pytest.approx(given * 1000 + 20 * 10_000, rel=0.02)
    mad = let_in(grant_of(**limits), b'{"max_tokens":999999999}')
    assert mad.tokens <= 1_000_200


@pytest.mark.parametrize(
    "body", [b'{"max_tokens":-1000000}', b'{"max_tokens":"-9"}', b'{"max_tokens":-1e300}']
)
def test_an_estimate_is_never_a_gift(body):
    permit = let_in(grant_of(tpm=10**6), body)
    assert permit.tokens >= 100 and permit.nusd >= 0


@pytest.mark.parametrize(
    ("endpoint", "body", "output"),
    [
        ("chat", b'{"metadata":{"max_tokens":1},"max_tokens":4000}', 4000),
        ("chat", b'{"max_tokens":4000,"metadata":{"max_tokens":1}}', 4000),
        ("chat", b'{"max_tokens":1,"max_tokens":4000}', 4000),
        ("chat", b'{"max_output_tokens":1}', USUAL_OUTPUT_TOKENS),  # another API's: it promises nothing
        ("responses", b'{"max_output_tokens":7}', 7),
        ("responses", b'{"max_tokens":7}', USUAL_OUTPUT_TOKENS),
        ("messages", b'{"max_tokens":7,"n":9}', 7),
        ("chat", b'{"max_tokens":40,"n":100}', 4000),
        ("chat", b'{"n":3}', 3 * USUAL_OUTPUT_TOKENS),
        ("chat", b'{"n":-3,"max_tokens":40}', 40),
        ("chat", b'{"n":1e9,"max_tokens":40}', 128 * 40),
        ("completions", b'{"best_of":5,"n":2,"max_tokens":40}', 200),
    ],
)
def test_what_is_reserved_for_the_answer(endpoint, body, output):
    permit = let_in(grant_of(tpm=10**6), body, endpoint)
    assert permit.tokens == pytest.approx(100 + output, abs=2)


def test_pictures_count_a_little():
    body = b'{"x":"%b"}' % (b"A" * 1_000_000)
    permit = let_in(grant_of(tpm=10**6), body + b' {"max_tokens":1}', text_bytes=400)
    assert 2000 < permit.tokens - USUAL_OUTPUT_TOKENS < 3000


def test_it_is_reserved_at_the_price_of_the_dearest():
    cheap = {"input_price_usd_per_mtok": 0.1, "output_price_usd_per_mtok": 0.1}
    dear = {"input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 50.0}
    one = pool_of("cost", deployment("a", "chat", **cheap), deployment("b", "chat", **dear))
    other = pool_of("cost", deployment("a", "chat", **cheap))
    for pools in ((one, ()), (other, (one,))):
        body = b'{"max_tokens":100}'
        grant = grant_of(monthly_nusd=10**12)
        permit = admit(grant, *pools, body, keys_of(body), len(body), 400, False, 1000.0, UNIX_S)
        assert permit is not None
        assert permit.nusd == pytest.approx(100 * 1000 + 100 * 50_000, rel=0.02)


@pytest.mark.parametrize("endpoint", ["embeddings", "rerank", "moderations"])
def test_what_writes_nothing(endpoint):
    permit = let_in(grant_of(tpm=10**6), b'{"max_tokens":5000}', endpoint)
    assert permit.tokens == pytest.approx(100, abs=2)


def test_an_estimate_goes_by_what_was_seen():
    seen = pool()
    for row in (seen.plain_rows[0], seen.streamed_rows[0]):
        for _ in range(300):
            row.charged(1000.0, 1000, Usage(500, 0, 0, 40), None)
    permit = admit(grant_of(tpm=10**6), seen, (), b"{}", (), 2, 400, False, 1000.0, UNIX_S)
    assert permit.tokens == pytest.approx(200 + 40, abs=5)


def test_a_limit_that_is_reached():
    grant = grant_of(tpm=50)
    let_in(grant, b"{}")
    with pytest.raises(LimitReached, match="50 tokens a minute"):
        let_in(grant, b"{}")


# ---------------------------------------------------------------------- through sockets


async def test_a_request_that_asks_for_too_much(provider, start):
    server = await start(CONFIG.format(url=provider.url, more=""))
    _, secret = await make(server, max_tokens=100)
    client = await RawClient.connect(server)

    def body(rest: bytes) -> bytes:
        return b'{"model":"mock/m",%b}' % rest

    for rest in (b'"max_tokens":101', b'"max_tokens":1,"m\\u0061x_tokens":101', b'"Max_Output_Tokens":1e9'):
        answer = await ask(client, secret, body(rest))
        check_error(answer, 422, "invalid_request_error", "max_tokens_exceeded", "max_tokens")
        assert answer[1][b"x-should-retry"] == b"false"
    assert provider.seen == []
    for rest in (b'"max_tokens":100', b'"x":{"max_tokens":101}', b'"x":"\\"max_tokens\\":101"'):
        assert (await ask(client, secret, body(rest)))[2] == body(rest).replace(b"mock/m", b"m")


async def test_a_body_in_pieces_is_held_until_its_limit_is_known(provider, start):
    server = await start(CONFIG.format(url=provider.url, more=""))
    _, secret = await make(server, max_tokens=100)
    client = await RawClient.connect(server)
    body = b'{"model":"mock/m","messages":"%b","max_tokens":%d}'
    for limit, expected in ((101, 422), (100, 200)):
        whole = body % (b"x" * 50_000, limit)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n"
        await client.send(head + b"Authorization: Bearer %b\r\n\r\n" % secret)
        for at in range(0, len(whole), 9000):
            piece = whole[at : at + 9000]
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.response())[0] == expected
    assert len(provider.seen) == 1
