"""Nothing that a client, an operator or a provider sends costs more than in proportion to its size.

By how many milliseconds the longest turn of the event loop falls short of its limit is said by
``benchmarks/turns``, for the compiled program.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from proxy.config.parse import parse
from proxy.control.admin.explain import explain_request
from proxy.control.admin.json_slices import find_keys, parse_few
from proxy.control.admin.views import route_rows
from proxy.control.steps import done
from proxy.control.telemetry.rates import live_rows
from proxy.deployments.worker_sync import dump_rows
from proxy.errors import BadRequest
from proxy.relay.exchange.head_cache import HeadCache
from proxy.relay.exchange.request_body import RequestBody
from proxy.routing.catalog import Catalog
from proxy.usage.response_usage import read_events, read_plain
from proxy.wire.decompress import SLICE_BYTES, Decoder
from proxy.wire.framing import Body, ChunkedBody, FramingError, LengthBody
from proxy.wire.header_lines import HeadError
from proxy.wire.include_usage import UsageFilter
from proxy.wire.references import MOST_NAMES, ReferenceFinder
from proxy.wire.request_head import read_request_head
from proxy.wire.response import Response
from proxy.wire.response_head import ResponseHead, read_response_head
from proxy.wire.retry_after import retry_after_s
from tests.support.proportion import assert_in_proportion

READ_BYTES = 256_000  # of a connection at once


def cases(**given: Callable[[int], bytes]) -> Any:
    """Cases that repeat something, each made for a size in bytes: limits are in bytes too."""
    return pytest.mark.parametrize("make", [sized(repeat) for repeat in given.values()], ids=given)


def sized(repeat: Callable[[int], bytes]) -> Callable[[int], bytes]:
    bytes_each = len(repeat(12_000)) / 12_000
    return lambda size: repeat(max(1, int(size / bytes_each)))


def pieces_of(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


# ---------------------------------------------------------------------- bodies


PNG = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" + b"A" * 600
PICTURE = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}},' % PNG


@cases(
    urls=lambda n: b'"url":0,' * n, names=lambda n: b'"image_url":0,' * n,
    escapes=lambda n: b'"\\u0041aaaa":0,' * n,
    files=lambda n: b'"a":{%b"file_id":"x"},' % (b'"b":"c",' * 60) * (n // 60),
    sources=lambda n: b'"source":{"a":"b"},' * n, quotes=lambda n: b'"a":"%b",' % (b'\\"' * n),
    pictures=lambda n: b'"a":[%b0],' % (PICTURE * (n // 100)),
    pictures_and_brackets=lambda n: b'"a":[%b%b0],' % (PICTURE, b"[]," * n),
)  # fmt: skip
@pytest.mark.parametrize("size", [READ_BYTES, 2000])
def test_bodies(make, size):
    def cut(n: int) -> list[bytes]:
        return list(pieces_of(b'{"model":"a","z":{%b"b":0}}' % make(n), size))

    def work(pieces: list[bytes]) -> None:
        body = RequestBody()
        for at, piece in enumerate(pieces, 1):
            body.scan(piece, at == len(pieces))
            body.hold(piece)
        body.check_media()
        body.referred("messages")
        body.has_cache_control()
        body.asks_for_sound()

    assert_in_proportion(cut, work, 50_000)


def test_names_are_looked_at_up_to_a_number():
    looked: list[int] = []
    for count in (MOST_NAMES, 10 * MOST_NAMES):
        found = ReferenceFinder()
        found.feed(b'{"a":{%b"b":0}}' % (b'"image_url":0,' * count))
        looked.append(len(found._spans))
    assert looked == [MOST_NAMES, MOST_NAMES]


# ---------------------------------------------------------------------- answers


@cases(
    empty_members=lambda n: gzip.compress(b"") * n,
    small_members=lambda n: gzip.compress(b"x") * n,
    padded_members=lambda n: (gzip.compress(b"x") + bytes(2000)) * n,
    zeros=lambda n: gzip.compress(bytes(1000 * n)),
    one_member=lambda n: gzip.compress(b'data: {"a":1}\n\n' * n, 0),
)
@pytest.mark.parametrize("size", [SLICE_BYTES, READ_BYTES])
def test_decoding(make, size):
    def work(data: bytes) -> None:
        decoder = Decoder(is_gzip=True)
        for piece in pieces_of(data, size):
            decoder.feed(piece)

    # What it gives up costs nothing more: the pieces alone would be measured.
    data = make(20_000)
    decoder = Decoder(is_gzip=True)
    for piece in pieces_of(data, size):
        decoder.feed(piece)
    if not decoder.failed:
        assert_in_proportion(make, work, 10_000)


def test_a_read_of_many_members_is_given_up_at_once():
    for member in (gzip.compress(b""), gzip.compress(b"x")):
        decoder = Decoder(is_gzip=True)
        assert decoder.feed(member * 20_000) == b""
        assert decoder.failed
    for count, failed in ((16, False), (17, True)):
        decoder = Decoder(is_gzip=True)
        decoder.feed(gzip.compress(b"text") * count)
        assert decoder.failed is failed


def test_an_empty_member_is_the_last():
    decoder = Decoder(is_gzip=True)
    assert decoder.feed(gzip.compress(b"")) == b""
    assert not decoder.failed
    decoder.feed(gzip.compress(b"x"))
    assert decoder.failed


def test_what_holds_nothing_is_given_up():
    """Blocks without a byte in them, which take 90 ns a byte to be read where each has a table of codes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    decoder = Decoder(is_gzip=False)
    decoder.feed(packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH))
    fed = 0
    while not decoder.failed and fed < READ_BYTES:
        decoder.feed(b"\0\0\0\xff\xff" * 1000)
        fed += 5000
    assert decoder.failed
    assert fed < 80_000


def answer_of(*lines: bytes, takes_usage_out: bool = False) -> Response:
    head = read_response_head(b"\r\n".join((b"HTTP/1.1 200 OK", *lines)))
    body: Body = ChunkedBody() if head.chunked else LengthBody(head.length or 0)
    return Response(head, body, 1, takes_usage_out=takes_usage_out)


def read_answer(answer: Response, data: bytes, size: int, endpoint: str) -> None:
    for piece in pieces_of(data, size):
        taken = answer.body.feed(piece)
        answer.pass_on(piece[:taken])
    if answer.head.event_stream:
        read_events(answer.tail(), endpoint, answer.first)
    else:
        read_plain(answer.tail(), endpoint, answer.aside)


@cases(
    usages=lambda n: b'"usage",' * n, usage_objects=lambda n: b'{"usage":{"a":1}},' * n,
    brackets=lambda n: b'{"usage":' + b"[" * n, events=lambda n: b"data: 1\n\n" * n,
    usage_events=lambda n: b'data: {"choices":[{}],"usage":null}\n\n' * n,
    events_with_cr=lambda n: b'data: {"choices":[{}],"usage":null}\r\r' * n,
    one_event=lambda n: b'data: {"a":"' + b"x" * n,
    lines=lambda n: b'data: {"usage":1}\n' + b"data: 1\n" * n + b"\n",
    half_characters=lambda n: b'data: {"a":"\\ud800","usage":null,' + b'"b":1,' * n + b'"c":1}\n\n',
    lists=lambda n: b'data: {"usage":null,"a":[' + b"[]," * n + b"0]}\n\n", empty_lines=lambda n: b"\n" * n,
    keys=lambda n: b'data: {"usage":null' + b',"error":null' * n + b"}\n\n",
)  # fmt: skip
@pytest.mark.parametrize(("kind", "takes_usage_out"), [("json", False), ("stream", False), ("stream", True)])
def test_answers(make, kind, takes_usage_out):
    line = b"Content-Type: " + (b"text/event-stream" if kind == "stream" else b"application/json")

    def work(data: bytes) -> None:
        answer = answer_of(line, b"Content-Length: %d" % len(data), takes_usage_out=takes_usage_out)
        read_answer(answer, data, READ_BYTES, "messages" if kind == "stream" else "chat")

    assert_in_proportion(make, work, 20_000)


@cases(
    tiny=lambda n: b"1\r\nx\r\n" * n,
    odd=lambda n: b"".join(b"%x\r\n%b\r\n" % (1 + at % 9, b"x" * (1 + at % 9)) for at in range(n)),
    extensions=lambda n: (b"1;" + b"a;" * 100 + b"a\r\nx\r\n") * n,
    zeros=lambda n: (b"0" * 14 + b"1\r\nx\r\n") * n,
)
@pytest.mark.parametrize("size", [READ_BYTES, 100])
def test_chunks(make, size):
    def work(data: bytes) -> None:
        with contextlib.suppress(FramingError):
            read_answer(answer_of(b"Transfer-Encoding: chunked"), data, size, "chat")

    assert_in_proportion(make, work, 2000)


@cases(held=lambda n: (b'data: {"a":"%b"}\n\n' % (b"x" * 5000)) * n, cut=lambda n: b"data: {}\n" * n)
def test_a_stream_in_tiny_pieces(make):
    def work(data: bytes) -> None:
        one = UsageFilter()
        for piece in pieces_of(data, 3):
            one.feed(piece)

    assert_in_proportion(make, work, 5000)


# ---------------------------------------------------------------------- heads


@cases(
    options=lambda n: b"Connection: " + b"a," * n,
    options_and_lines=lambda n: b"Connection: x1\r\n" + b"\r\n".join(b"x%d: 1" % at for at in range(n)),
    codings=lambda n: b"\r\n".join([b"Content-Encoding: gzip,gzip,gzip"] * n),
    limits=lambda n: b"\r\n".join([b"x-ratelimit-reset-tokens: 1h1h1h1h"] * n),
    names=lambda n: b"\r\n".join(b"a%x:" % at for at in range(n)),
    values=lambda n: b"X: " + b"a, " * n,
    white=lambda n: b"X:" + b" \t" * n,
)
def test_heads_of_answers(make):
    def work(head: bytes) -> None:
        with contextlib.suppress(HeadError):
            found: ResponseHead = read_response_head(b"HTTP/1.1 503 No\r\n" + head)
            retry_after_s(found.lines, 0.0)

    assert_in_proportion(make, work, 500, 32_000)


@cases(
    number=lambda n: b"1" * n, comments=lambda n: b"(" * n, closed=lambda n: b")" * n,
    commas=lambda n: b", -" * n, dates=lambda n: b"Mon, 1 " * n,
    colons=lambda n: b"Mon, 01 Jan 2024 00" + b":00" * n, quotes=lambda n: b'"' * n,
    white=lambda n: b" " * n + b"x",
)  # fmt: skip
@pytest.mark.parametrize("name", [b"Retry-After", b"retry-after-ms", b"Date"])
def test_patience(make, name):
    def work(value: bytes) -> None:
        for _ in range(100):
            retry_after_s([name + b": " + value, b"Retry-After: Mon, 01 Jan 2024 00:00:00 GMT"], 0.0)

    # No longer than a head can be: an allocation above 128 KiB also costs the kernel's work for its pages.
    assert_in_proportion(make, work, 500, 32_000)


@cases(
    options=lambda n: b"Connection: " + b"a," * n,
    credentials=lambda n: b"\r\n".join([b"x-api-key: th-aaaaaaaaaaaaaaaa"] * min(n, 199)),
    dashes=lambda n: b"x-api-key: " + b"th-" * n,
    fallbacks=lambda n: b"X-Inferoute-Fallback: " + b"a," * n,
    origin=lambda n: b"Origin: " + b"a" * n,
)
def test_heads_of_requests(make):
    def work(head: bytes) -> None:
        for number in range(10):
            with contextlib.suppress(BadRequest):
                read_request_head(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nX-Number: %d\r\n%b" % (number, head))

    assert_in_proportion(make, work, 100, 32_000)


def test_remembered_heads():
    def work(count: int) -> None:
        heads = HeadCache()
        for number in range(count):
            heads.recall(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nX-Number: %d" % number)

    assert_in_proportion(lambda n: n, work, 5000)


# ---------------------------------------------------------------------- the admin API


def text_of(models: int) -> str:
    parts = ['[providers.p]\nbase_url = "http://p/v1"\nauth = "none"\n']
    parts += [f'[models."p/m{number}"]\ncontext_window = 1000\n' for number in range(models)]
    names = ", ".join(f'"p/m{number}"' for number in range(models))
    return "".join(parts) + f"[aliases]\nall = [{names}]\n"


class Many:
    """A catalog of many models, made once a size, as all of it is."""

    def __init__(self, models: int) -> None:
        self.config = parse(text_of(models))
        self.catalog = Catalog(self.config, {"p": True}, 0)
        for deployment in self.catalog.deployments.values():
            deployment.row("chat", False)


@pytest.mark.parametrize(
    "work",
    [
        lambda many: list(route_rows(many.catalog, 1.0, 1.0)),
        lambda many: list(live_rows(many.catalog, 1.0)),
        lambda many: done(dump_rows(many.catalog.deployments)),
        lambda many: done(explain_request(many.catalog, b'{"model":"all"}', 1.0)),
        lambda many: done(explain_request(many.catalog, b'{"model":"auto"}', 1.0)),
        lambda many: Catalog(many.config, {"p": True}, 0, many.catalog),
        lambda many: Catalog(many.config, {"p": True}, 0).resolve("all", "chat", None),
    ],
    ids=["routes", "live", "save", "explain", "explain_auto", "reload", "first_use"],
)
def test_many_models(work):
    assert_in_proportion(Many, work, 200)


@pytest.mark.parametrize("sick", ["ejected", "due"])
def test_an_explanation_where_a_member_is_out(sick):
    def make(models: int) -> Many:
        many = Many(models)
        breaker = many.catalog.deployments["p/m0"].breaker
        for _ in range(5):
            breaker.failed("no", 1.0, 0.5)
        return many

    now = 1.5 if sick == "ejected" else 1e6
    assert_in_proportion(make, lambda many: done(explain_request(many.catalog, b'{"model":"all"}', now)), 200)


@cases(
    lists=lambda n: b"[]," * n + b"0",
    brackets=lambda n: (b"[" * 900 + b"]" * 900 + b",") * (n // 900) + b"0",
    text=lambda n: b'"' + b"x" * n + b'"', quotes=lambda n: b'"' + b'\\"' * n + b'"',
    strings=lambda n: b'"",' * n + b"0", objects=lambda n: b'{"model":1},' * n + b"0",
    white=lambda n: b" " * n + b"0",
)  # fmt: skip
def test_bodies_to_be_explained(make):
    catalog = Catalog(parse(text_of(2)), {"p": True}, 0)

    def work(inside: bytes) -> None:
        for sent in (b'{"model":"all","a":[%b]}' % inside, b'{"body":{"model":"all","a":[%b]}}' % inside):
            done(explain_request(catalog, sent, 1.0))

    assert_in_proportion(make, work, 20_000)


@cases(
    keys=lambda n: b'{"a":' + b'"b":' * (n // 4),
    cut=lambda n: b'{"' + b"x" * n,
    open=lambda n: b'{"a":' + b"[" * n,
)
def test_bodies_that_are_refused(make):
    def work(body: bytes) -> None:
        with contextlib.suppress(BadRequest):
            done(find_keys(body))
        with contextlib.suppress(ValueError):
            parse_few(body, 20_000)

    assert_in_proportion(make, work, 100_000, 1 << 20)  # which is the limit for settings


def test_settings_of_many_names_are_few_values():
    body = json.dumps({"models": [f"p/m{number}" for number in range(5000)]}).encode()
    assert len(parse_few(body, 20_000)["models"]) == 5000
