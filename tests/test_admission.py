"""Requests held against the limits of their key before they are sent."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission import admit, output_limits
from proxy.errors import BadRequest, LimitReached
from proxy.pool import Pool
from proxy.usage import USUAL_OUTPUT_TOKENS, Usage
from tests.fakes import RawClient
from tests.keycases import CONFIG, UNIX_S, ask, check_error, grant_of, make
from tests.routecases import deployment, pool_of

INF = float("inf")
NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"{}", []),
        (b'{"max_tokens":5}', [5]),
        (b'{ "max_tokens" \r\n\t: \r\n\t5 }', [5]),
        (b'{"max_completion_tokens":5,"max_output_tokens":6,"max_tokens":7}', [5, 6, 7]),
        (b'{"max_tokens":1,"max_tokens":9000}', [1, 9000]),  # providers take the last, or the first
        (b'{"MAX_TOKENS":5,"Max_Tokens":6}', [5, 6]),  # Go's JSON knows no case
        ('{"max_to\u212aens":5,"max_token\u017f":6}'.encode(), [5, 6]),  # nor these, for k and s
        (rb'{"max_to\u212aens":5,"max_token\u017F":6}', [5, 6]),
        (rb'{"\u006dax\u005Ftokens":5,"max_token\u0053":6}', [5, 6]),
        (b'{"a":{"max_tokens":5}}', []),
        (b'{"a":[{"max_tokens":5}],"max_tokens":6}', [6]),
        (b'{"a":"{\\"max_tokens\\":5}"}', []),
        (b'{"a":"max_tokens","b":"max_tokens"}', []),
        (rb'{"a":"\\","max_tokens":5}', [5]),
        (rb'{"\"max_tokens":5}', []),
        (b'{"max_tokens":null}', []),
        (b'{"max_tokens":-1}', [-1]),
        (b'{"max_tokens":5e3}', [5000]),
        (b'{"max_tokens":1.5}', [1.5]),
        (b'{"max_tokens":1e400}', [INF]),
        (b'{"max_tokens":"5"}', [5]),  # some providers take that too
        (b'{"max_tokens":"5_000"}', [INF]),  # whatever that may be to one
        (b'{"max_tokens":" 5"}', [INF]),
        (b'{"max_tokens":"9","max_tokens":"9e1"}', [9, 90]),
        (b'{"max_tokens":true}', [INF]),
        (b'{"max_tokens":{"a":1}}', [INF]),
        (b'{"max_tokens":[1]}', [INF]),
        (b'{"max_tokens":0x10}', [INF]),
        (b'{"max_tokens":%s}' % (b"9" * 5000), [INF]),
        (b'{"max_tokens"', []),
        (b'{"max_tokens":', [INF]),
        (b'[{"max_tokens":5}]', []),
    ],
)
def test_what_a_body_says_of_the_answers_length(body, expected):
    assert output_limits(body) == expected


def by_parsing(body: str) -> list[float]:
    """The same by Python's parser: every pair of the outermost object."""
    pairs = json.loads(body, object_pairs_hook=lambda pairs: ("object", pairs))[1]
    found = []
    for key, value in pairs:
        folded = key.replace("\u212a", "k").replace("\u017f", "s").lower()
        if folded not in NAMES or value is None:
            continue
        if isinstance(value, str):
            is_number = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value)
            found.append(float(value) if is_number else INF)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            found.append(INF)
        else:
            found.append(float(value))
    return found


@st.composite
def _spelled(draw, words):
    """A JSON string, each letter as it is or escaped, in either case."""
    out = []
    for plain in draw(words):
        letter = draw(st.sampled_from([plain, plain, plain, plain.upper(), plain.lower()]))[:1]
        out.append(
            draw(
                st.sampled_from(
                    [json.dumps(letter, ensure_ascii=False)[1:-1]] * 4
                    + [f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}"]
                )
            )
            if ord(letter) < 0xD800 or 0xE000 <= ord(letter) < 0x10000
            else "x"
        )
    return f'"{"".join(out)}"'


_WORDS = st.sampled_from(
    [*NAMES, *NAMES, "max_to\u212aens", "max_token\u017f", "model", "max_token", "tokens"]
)
_KEYS = _spelled(_WORDS | st.text(max_size=4) | st.sampled_from(['\\"max_tokens', '"max_tokens":1', "\\"]))
_WHITE = st.sampled_from(["", "", "", " ", "\r\n\t "])
_NUMBERS = st.sampled_from(["0", "-0", "-7", "1", "17", "4096", "1.25", "1e3", "2E+2", "1e-2", "1e999"])
_PLAIN = (
    _NUMBERS | _NUMBERS.map(lambda number: f'"{number}"') | st.sampled_from(["null", "true", "false"]) | _KEYS
)


def _objects(values):
    member = st.tuples(_WHITE, _KEYS, _WHITE, _WHITE, values, _WHITE).map(
        lambda part: f"{part[0]}{part[1]}{part[2]}:{part[3]}{part[4]}{part[5]}"
    )
    return st.lists(member, max_size=5).map(lambda members: f"{{{','.join(members)}}}")


_VALUES = st.recursive(
    _PLAIN,
    lambda inner: _objects(inner) | st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]"),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(_objects(_VALUES))
def test_it_finds_what_a_parser_finds(body):
    assert output_limits(body.encode("utf-8", "surrogatepass")) == by_parsing(body)


@given(st.binary() | _objects(_VALUES).map(lambda body: body.encode("utf-8", "surrogatepass")[:40]))
def test_any_bytes_will_do(body):
    assert all(isinstance(each, float) for each in output_limits(body))


# ---------------------------------------------------------------------- the limit of a request


def pool(endpoint: str = "chat", **facts: object) -> Pool:
    prices = {"input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 10.0}
    return pool_of(
        "cost", deployment("a", endpoint, **prices, **facts), deployment("b", endpoint), endpoint=endpoint
    )


def let_in(grant, body: bytes, endpoint: str = "chat", text_bytes: int = 400, **facts: object):
    return admit(grant, pool(endpoint, **facts), body, text_bytes, False, 1000.0, UNIX_S)


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


@pytest.mark.parametrize("endpoint", ["embeddings", "rerank", "moderations"])
def test_what_writes_nothing(endpoint):
    permit = let_in(grant_of(tpm=10**6), b'{"max_tokens":5000}', endpoint)
    assert permit.tokens == pytest.approx(100, abs=2)


def test_an_estimate_goes_by_what_was_seen():
    seen = pool()
    for row in (seen.plain_rows[0], seen.streamed_rows[0]):
        for _ in range(300):
            row.charged(1000.0, 1000, Usage(500, 0, 0, 40), None)
    permit = admit(grant_of(tpm=10**6), seen, b"{}", 400, False, 1000.0, UNIX_S)
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
