"""Requests held against the limits of their key before they are sent."""

from __future__ import annotations

import pytest

from proxy.access.admission import Most, admit, check_answers, dearest_nusd, limit_of, most_of, prompt_tokens
from proxy.deployments.deployment import Deployment
from proxy.errors import BadRequest, LimitReached
from proxy.routing.pool import Pool
from proxy.usage.media_tokens import PICTURE_TOKENS
from proxy.usage.tokens import Usage
from proxy.wire.outline import keys_of
from proxy.wire.output_limits import COMPACT, OutputLimits, read_output_limits, written_limits
from tests.support.deployments import deployment, pool_of
from tests.support.keys import UNIX_S, ask, check_error, grant_of, make, opened

# ---------------------------------------------------------------------- the limit of a request


MOST = 4000  # what the models of pool() write at most


def pool(endpoint: str = "chat", **facts: object) -> Pool:
    prices = {"input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 10.0}
    facts = {"max_output_tokens": MOST, **facts}
    one = deployment("a", endpoint, **prices, **facts)
    return pool_of("cost", one, deployment("b", endpoint, max_output_tokens=10), endpoint=endpoint)


def read(body: bytes, endpoint: str) -> tuple[list[tuple[int, float]], OutputLimits]:
    found = written_limits(body, keys_of(body))
    return found, read_output_limits(body, keys_of(body), found, endpoint)


def limit(body: bytes, endpoint: str, prompts: int = 1) -> int:
    """Of an answer, for a key with 100 tokens for each request."""
    found, wants = read(body, endpoint)
    return limit_of(grant_of(max_tokens=100), endpoint, found, wants, prompts)


def let_in(grant, body: bytes, endpoint: str = "chat", prompts: int = 1, **facts: object):
    found, wants = read(body, endpoint)
    some = pool(endpoint, **facts)
    if grant.max_tokens is not None:
        limit_of(grant, endpoint, found, wants, prompts)
    check_answers(found, wants)
    most = most_of(some, (), wants, prompts, prompt_tokens(some, False, 400, 0))
    return admit(grant, some, (), most if grant.account.reserves else None, 1000.0, UNIX_S)


@pytest.mark.parametrize(("limits", "body"), [
    ({}, b"{}"), ({"max_tokens": 5}, b"{}"),
    *(({"max_tokens": 100}, body) for body in (
        b'{"max_tokens":100}', b"{}", b'{"max_tokens":null}', b'{"a":{"max_tokens":999}}',
    )),
])  # fmt: skip
def test_what_asks_for_no_more_than_it_may_and_has_nothing_to_count(limits, body):
    assert let_in(grant_of(**limits), body) is None


@pytest.mark.parametrize("body", [
    b'{"max_tokens":101}', b'{"max_tokens":1,"max_tokens":101}',
    b'{"max_completion_tokens":101,"max_tokens":1}', b'{"max_tokens":100.5}', b'{"max_tokens":"101"}',
    b'{"max_tokens":"1_01"}', b'{"max_tokens":[1]}',
])  # fmt: skip
def test_what_asks_for_more(body):
    grant = grant_of(max_tokens=100, rpm=1)
    said = "^The request asks for more output than this API key allows: 100 tokens per request\\.$"
    with pytest.raises(BadRequest, match=said) as caught:
        let_in(grant, body)
    error = caught.value
    assert (error.status, error.type, error.code) == (422, "invalid_request_error", "max_tokens_exceeded")
    assert let_in(grant, b"{}").requests_left == 0  # it took nothing of the key's other limits


# ---------------------------------------------------------------------- estimates


def test_requests_alone_need_no_estimate():
    for limits in ({"rpm": 5}, {"concurrency": 1}):
        permit = let_in(grant_of(**limits), b'{"max_tokens":5}')
        assert (permit.tokens, permit.nusd) == (0, 0)


@pytest.mark.parametrize("limits", [{"tpm": 10**9}, {"monthly_tokens": 10**9}, {"monthly_nusd": 10**12}])
def test_an_estimate(limits):
    given = 400 * 0.25  # tokens of the prompt
    for body, output in ((b"{}", MOST), (b'{"max_tokens":20}', 20)):
        permit = let_in(grant_of(**limits), body)
        assert permit.tokens == pytest.approx(given + output, abs=2)
        assert permit.nusd == pytest.approx(given * 1000 + output * 10_000, rel=0.02)
    mad = let_in(grant_of(**limits), b'{"max_tokens":999999999}')
    assert mad.tokens <= 1_000_200


@pytest.mark.parametrize("limit", [b"-1000000", b'"-9"', b"-1e300"])
def test_an_estimate_is_never_a_gift(limit):
    permit = let_in(grant_of(tpm=10**6), b'{"max_tokens":%b}' % limit)
    assert permit.tokens >= 100 and permit.nusd >= 0


@pytest.mark.parametrize(("endpoint", "body", "output"), [
    ("chat", b'{"metadata":{"max_tokens":1},"max_tokens":4000}', 4000),
    ("chat", b'{"max_tokens":4000,"metadata":{"max_tokens":1}}', 4000),
    ("chat", b'{"max_tokens":1,"max_tokens":4000}', 4000),
    ("chat", b'{"max_output_tokens":1}', MOST),  # another API's: it promises nothing
    ("responses", b'{"max_output_tokens":7}', 7), ("responses", b'{"max_tokens":7}', MOST),
    ("messages", b'{"max_tokens":7,"n":9}', 7), ("chat", b'{"max_tokens":40,"n":100}', 4000),
    ("chat", b'{"n":3}', 3 * MOST), ("chat", b'{"n":-3,"max_tokens":40}', 40),
    ("chat", b'{"n":19.5,"max_tokens":40}', 20 * 40), ("chat", b'{"n":"128","max_tokens":40}', 128 * 40),
    ("chat", b'{"max_tokens":1,"max_completion_tokens":"2000"}', MOST),
    # servers whose word is max_tokens may know no other
    ("chat", b'{"max_completion_tokens":7}', MOST), ("chat", b'{"max_completion_tokens":5000}', 5000),
    ("chat", b'{"max_completion_tokens":7,"max_tokens":9}', 9),
    ("completions", b'{"best_of":5,"n":2,"max_tokens":40}', 200),
    # what writes nothing
    *((name, b'{"max_tokens":5000}', 0) for name in ("embeddings", "rerank", "moderations")),
])  # fmt: skip
def test_what_is_reserved_for_the_answer(endpoint, body, output):
    permit = let_in(grant_of(tpm=10**6), body, endpoint)
    assert permit.tokens == pytest.approx(100 + output, abs=2)


@pytest.mark.parametrize(("facts", "most"), [
    ({}, MOST),
    ({"max_output_tokens": None, "context_window": 9000}, 9000),
    ({"max_output_tokens": None, "context_window": None}, 16_384),
])  # fmt: skip
def test_who_says_nothing_may_get_what_the_models_write_at_most(facts, most):
    assert let_in(grant_of(tpm=10**6), b"{}", **facts).tokens == pytest.approx(100 + most, abs=2)
    short = pool(max_output_tokens=20)
    assert most_of(short, (pool(**facts),), OutputLimits(), 1, 0.0).output == most
    assert most_of(short, (pool(**facts),), OutputLimits(15), 1, 0.0).output == 15


def test_each_prompt_gets_an_answer():
    permit = let_in(grant_of(tpm=10**9), b'{"max_tokens":50,"n":3}', "completions", prompts=2000)
    assert permit.tokens == pytest.approx(100 + 2000 * 3 * 50, abs=2)


@pytest.mark.parametrize(("body", "prompts", "left"), [
    (b"{}", 1, 100), (b'{"max_tokens":null}', 1, 100),
    (b'{"max_output_tokens":5}', 1, 100),  # another API's
    (b'{"max_tokens":7}', 1, 0),
    (b'{"max_completion_tokens":7}', 1, 7),  # for who doesn't know that word
    (b'{"max_completion_tokens":7,"max_tokens":null}', 1, 7),
    (b'{"max_completion_tokens":7,"max_tokens":5}', 1, 0), (b'{"n":3}', 1, 33), (b'{"n":100}', 1, 1),
    (b'{"best_of":2}', 25, 2), (b'{"n":4,"max_tokens":25}', 1, 0),
])  # fmt: skip
def test_what_a_key_leaves_each_answer(body, prompts, left):
    assert limit(body, "chat" if b"best_of" not in body else "completions", prompts) == left


@pytest.mark.parametrize("body", [b"{}", b'{"max_output_tokens":7}'])
def test_nothing_limits_a_compaction_and_all_that_the_model_writes_is_reserved(body):
    assert limit(body, COMPACT) == 0
    assert most_of(pool("responses"), (), read(body, COMPACT)[1], 1, 0.0).output == MOST


@pytest.mark.parametrize(("body", "prompts", "code"), [
    *((body, 1, "invalid_max_tokens") for body in (
        b'{"max_tokens":0}', b'{"max_tokens":-1}', b'{"max_completion_tokens":"-1"}',
        b'{"max_output_tokens":-1}',
        # none is taken for nothing said that somebody may understand
        b'{"n":100,"max_completion_tokens":"100"}', b'{"max_tokens":1,"max_completion_tokens":"100"}',
        b'{"max_tokens":5.0}', b'{"max_tokens":5e1}', b'{"max_tokens":5,"max_tokens":5}',
        b'{"max_tokens":5,"max_tokens":null}', b'{"Max_Tokens":5}', b'{"max_output_tokens":"5"}',
    )),
    *((body, 1, "max_tokens_exceeded") for body in (
        b'{"max_tokens":1e999}', b'{"max_tokens":{}}', b'{"n":5,"max_tokens":25}', b'{"n":128}',
        # another API's words count too, as somebody may know them
        b'{"max_output_tokens":50,"n":3}', b'{"max_tokens":1,"max_completion_tokens":50,"n":3}',
    )),
    (b'{"max_tokens":1}', 101, "max_tokens_exceeded"),
])  # fmt: skip
def test_what_a_key_does_not_allow(body, prompts, code):
    with pytest.raises(BadRequest) as caught:
        limit(body, "completions" if prompts > 1 else "chat", prompts)
    assert (caught.value.status, caught.value.code) == (422, code)
    assert "tokens" in (caught.value.param or "")


@pytest.mark.parametrize(("body", "param"), [
    (b'{"n":129}', "n"), (b'{"n":1000}', "n"), (b'{"n":"1000"}', "n"), (b'{"n":128.5}', "n"),
    (b'{"n":1,"n":129}', "n"), (b'{"\\u006e":129}', "n"), (b'{"n":true}', "n"),
    (b'{"n":%b2}' % (b" " * 5000), "n"), (b'{"n":2,"best_of":129}', "best_of"),
])  # fmt: skip
def test_more_answers_than_any_api_has(body, param):
    with pytest.raises(BadRequest) as caught:
        let_in(grant_of(tpm=10**9), body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (422, "too_many_answers", param)
    let_in(grant_of(tpm=10**9), body, "messages")  # there is no such word


def test_chats_newer_word_alone_is_a_promise_of_those_who_know_it():
    def one(word: str) -> Deployment:
        return deployment(word[:1], "chat", max_output_tokens=MOST, limit_word=word)

    wants = OutputLimits(7, in_newer_word=True)
    newer = pool_of("cost", one("max_completion_tokens"))
    older = pool_of("cost", one("max_tokens"))
    assert most_of(newer, (), wants, 1, 0.0).output == 7
    assert most_of(older, (), wants, 1, 0.0).output == MOST
    assert most_of(newer, (older,), wants, 1, 0.0).output == MOST
    assert most_of(older, (), OutputLimits(7), 1, 0.0).output == 7


def test_it_is_reserved_at_the_price_of_the_dearest():
    cheap = {"input_price_usd_per_mtok": 0.1, "output_price_usd_per_mtok": 0.1}
    dear = {"input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 50.0}
    one = pool_of("cost", deployment("a", "chat", **cheap), deployment("b", "chat", **dear))
    other = pool_of("cost", deployment("a", "chat", **cheap))
    for pools in ((one, ()), (other, (one,))):
        most = most_of(*pools, OutputLimits(100), 1, 100.0)
        permit = admit(grant_of(monthly_nusd=10**12), *pools, most, 1000.0, UNIX_S)
        assert permit is not None
        assert permit.nusd == pytest.approx(100 * 1000 + 100 * 50_000, rel=0.02)


def test_an_estimate_goes_by_what_was_seen():
    seen = pool()
    for row in (seen.plain_rows[0], seen.streamed_rows[0]):
        for _ in range(300):
            row.charged(1000.0, 1000, Usage(500, 0, 0, 40), None)
    assert prompt_tokens(seen, False, 400, 0) == pytest.approx(200, abs=5)
    assert prompt_tokens(seen, True, 400, 1000) == pytest.approx(1200, abs=5)


def taught(*samples: tuple[int, int, str]) -> Pool:
    """Whose first member was seen to count so many tokens of so many bytes, for keys."""
    seen = pool()
    for size, tokens, key in samples:
        seen.plain_rows[0].charged(1000.0, size, Usage(tokens, 0, 0, 40), None, 0.0, key)
    return seen


def test_white_space_makes_prompts_no_cheaper():
    """A body of 20 MB with 30 tokens in it, among honest ones, and whatever else one key sends."""
    honest = [(4000, 1000, key) for key in ("a", "b", "c")]
    for size, tokens in ((20_000_000, 30), (4000, 401), (1_000_000, 150_000)):
        for many in (1, 1000):
            seen = taught(*honest, *[(size, tokens, "spaces")] * many)
            assert prompt_tokens(seen, False, 4000, 0) == 1000
            alone = taught(*[(size, tokens, "spaces")] * many)
            assert prompt_tokens(alone, False, 4000, 0) >= 900


def test_what_is_reserved_is_the_upper_side():
    seen = taught(*[(4000, 1000, "a")] * 5, *[(4000, 2000, "a")] * 4)
    assert prompt_tokens(seen, False, 4000, 0) == 1000
    assert prompt_tokens(seen, False, 4000, 0, at_most=True) == 2000
    assert prompt_tokens(seen, True, 4000, 0) == 1000  # by what the plain ones tell
    assert prompt_tokens(taught(*[(4000, 6000, "a")] * 9), False, 4000, 0, at_most=True) == 4000


def test_a_limit_that_is_reached():
    grant = grant_of(tpm=50)
    let_in(grant, b"{}")
    with pytest.raises(LimitReached, match="50 tokens a minute"):
        let_in(grant, b"{}")


# ---------------------------------------------------------------------- through sockets


async def test_a_request_that_asks_for_too_much(provider, start):
    server, client = await opened(start, provider)
    _, secret = await make(server, max_tokens=100)

    def body(rest: bytes) -> bytes:
        return b'{"model":"mock/m",%b}' % rest

    for rest in (b'"max_tokens":101', b'"max_tokens":1,"m\\u0061x_tokens":101', b'"Max_Output_Tokens":1e9'):
        answer = await ask(client, secret, body(rest))
        param = "max_output_tokens" if b"Output" in rest else "max_tokens"
        check_error(answer, 422, "invalid_request_error", "max_tokens_exceeded", param)
        assert answer[1][b"x-should-retry"] == b"false"
    assert provider.seen == []
    assert (await ask(client, secret, body(b'"max_tokens":100')))[2] == b'{"model":"m","max_tokens":100}'
    for rest in (b'"x":{"max_tokens":101}', b'"x":"\\"max_tokens\\":101"'):  # what is no limit gets one
        assert (await ask(client, secret, body(rest)))[2] == b'{"model":"m",%b,"max_tokens":100}' % rest


async def test_a_body_in_pieces_is_held_until_its_limit_is_known(provider, start):
    server, client = await opened(start, provider)
    _, secret = await make(server, max_tokens=100)
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


# ---------------------------------------------------------------------- pictures and speech


@pytest.mark.parametrize(("body", "facts", "output"), [
    (b"{}", {}, MOST), (b'{"n":10}', {}, 10 * MOST), (b'{"n":"10"}', {}, 10 * MOST),
    (b'{"n":10}', {"max_output_tokens": None, "context_window": 9}, 10 * PICTURE_TOKENS),
])  # fmt: skip
def test_each_picture_is_reserved(body, facts, output):
    some = pool_of(
        "cost", deployment("a", "images", **{"max_output_tokens": MOST, **facts}), endpoint="images"
    )
    assert most_of(some, (), read(body, "images")[1], 1, 100.0).output == output


@pytest.mark.parametrize(("most", "output"), [(None, 1800), (700, 700)])
def test_speech_is_reserved_by_its_text(most, output):
    some = pool_of("cost", deployment("a", "speech", max_output_tokens=most), endpoint="speech")
    assert most_of(some, (), OutputLimits(), 1, 100.0).output == output


PARTS = {
    "input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 10.0,
    "cache_write_price_usd_per_mtok": 1.25, "audio_input_price_usd_per_mtok": 40.0,
    "audio_output_price_usd_per_mtok": 80.0,
}  # fmt: skip


@pytest.mark.parametrize(("most", "usd_per_mtok"), [
    (Most(1000, 100), 1000 + 10 * 100),
    (Most(1000, 100, heard=300), 700 + 40 * 300 + 10 * 100),
    (Most(1000, 100, writes_cache=True), 1250 + 10 * 100),
    (Most(1000, 100, speaks=True), 1000 + 80 * 100),
    (Most(1000, 100, heard=300, writes_cache=True, speaks=True), 1.25 * 700 + 40 * 300 + 80 * 100),
])  # fmt: skip
def test_what_has_a_price_of_its_own_is_reserved_at_that(most, usd_per_mtok):
    dear, plain = pool_of("cost", deployment("a", **PARTS)), pool()
    assert dearest_nusd(dear, (), most) == usd_per_mtok * 1000
    assert dearest_nusd(plain, (dear,), most) == usd_per_mtok * 1000
    assert dearest_nusd(plain, (), most) == (1000 + 10 * 100) * 1000
