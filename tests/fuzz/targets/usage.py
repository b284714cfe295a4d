"""The usage in an answer: any bytes in any split, never an exception, plausible counts, bounded memory."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from proxy.usage.pricing import Prices, price_nusd
from proxy.usage.response_usage import partial_usage, read_events, read_plain
from proxy.usage.tokens import Usage
from proxy.wire.decompress import MAX_PIECE_BYTES, decoder_for
from proxy.wire.framing import CloseBody
from proxy.wire.response import Response
from proxy.wire.response_head import read_response_head
from proxy.wire.sse import holds_error, is_error
from tests.fuzz.source import pieces

ENDPOINTS = ("chat", "messages", "responses", "embeddings")
ENCODINGS = (b"", b"gzip", b"deflate", b"br")
_USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":12}'
SEEDS = [
    b"\x00\x00{%b}" % _USAGE,
    b'\x00\x05data: {"choices":[],%b}\n\ndata: [DONE]\n\n' % _USAGE,
    b"\x01\x86"
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n'
    b'data: {"type":"message_delta","usage":{"output_tokens":5,"cache_read_input_tokens":1}}\n\n',
    b"\x02\x02"
    b'data: {"type":"response.completed","response":{"usage":{"input_tokens":1.0,"output_tokens":2,'
    b'"output_tokens_details":{"reasoning_tokens":1,"audio_tokens":9}}}}\r\n\r\n',
    b'\x00\x01,"x":1}],"usage": {"prompt_tokens":-1,"completion_tokens":1e9,"prompt_tokens_details":{}}}',
    b"\x04\x07" + zlib.compress(b"{%b}" % _USAGE, wbits=31),
    b"\x08\x03" + zlib.compress(b"{%b}" % _USAGE),
    b"\x08\x03" + zlib.compress(b"{%b}" % _USAGE, wbits=-15),
    b'\x00\x00data: {"error":{"message":"x"}}\n\n',
]
_PRICES = Prices(1_000_000, 500_000, 2_000_000)


def test_one(data: bytes) -> None:
    if len(data) < 2:
        return
    endpoint = ENDPOINTS[data[0] & 3]
    encoding = ENCODINGS[data[0] >> 2 & 3]
    text = data[2:]
    check_plain(text, endpoint)
    for usage in (
        read_events(text, endpoint),
        read_events(text[len(text) // 2 :], endpoint, text[: len(text) // 2]),
        partial_usage(text, text[:100], endpoint),
        read_plain(text[len(text) // 2 :], endpoint, text),
    ):
        check(usage)
    is_error(text)
    holds_error(text)
    check_decoder(text, encoding, data[1])
    for event_stream in (False, True):
        check_kept(text, encoding, data[1], event_stream)


def check(usage: Usage | None) -> None:
    if usage is None:
        return
    given, cached, written, output, reasoning, estimated, audio_input, audio_output = usage.counts()
    for count in (given, cached, written, output, reasoning, audio_input, audio_output):
        assert type(count) is int
        assert count >= 0
    assert cached + written + audio_input <= given <= 300_000_000
    assert reasoning + audio_output <= output <= 100_000_000
    assert not estimated
    cost = price_nusd(usage, _PRICES)
    assert cost is not None and cost >= 0


def check_plain(text: bytes, endpoint: str) -> None:
    """Of a whole answer it is what a parser finds at the top level, and nowhere else."""
    usage = read_plain(text, endpoint)
    check(usage)
    try:
        found: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if not isinstance(found, dict) or text.count(b'"usage"') + text.count(b"\\u") > 1:
        return  # several: the last one counts, wherever a parser would look
    wanted = found.get("usage")
    again = read_plain(orjson.dumps({"usage": wanted}), endpoint) if isinstance(wanted, dict) else None
    assert usage == again


def check_decoder(data: bytes, encoding: bytes, how: int) -> None:
    decoder, split = decoder_for(encoding), decoder_for(encoding)
    if decoder is None or split is None:
        assert encoding in (b"", b"br")
        return
    whole = decoder.feed(data)
    assert len(whole) <= MAX_PIECE_BYTES
    parts = [split.feed(piece) for piece in pieces(data, how)]
    assert max(map(len, parts)) <= MAX_PIECE_BYTES
    out = b"".join(parts)
    if decoder.failed:
        assert not decoder.feed(data)
    elif not split.failed:
        assert out == whole
        try:
            assert (
                zlib.decompressobj(31 if encoding == b"gzip" else 15).decompress(data) == whole[: len(whole)]
            )
        except (zlib.error, AssertionError):
            assert encoding == b"deflate" or out.startswith(_first_member(data))


def _first_member(data: bytes) -> bytes:
    """What comes out of the first of several files in one, or of one that is broken behind it."""
    try:
        return zlib.decompressobj(31).decompress(data)
    except zlib.error:
        return b""


def check_kept(data: bytes, encoding: bytes, how: int, event_stream: bool) -> None:
    """An answer passes as it came, and little of it is kept."""
    kind = b"text/event-stream" if event_stream else b"application/json"
    lines = b"HTTP/1.1 200 OK\r\nContent-Type: %b" % kind
    if encoding:
        lines += b"\r\nContent-Encoding: " + encoding
    body = CloseBody()
    answer = Response(read_response_head(lines), body, 0)
    passed = b""
    largest = 0
    for piece in pieces(data, how):
        body.feed(piece)
        passed += answer.pass_on(piece)
        largest = max(largest, len(answer.tail()), sum(map(len, answer.payload)))
    assert passed == data
    assert largest <= (16 << 10) + MAX_PIECE_BYTES
    assert len(answer.first) <= 2 << 10 and len(answer.aside) <= 4 << 10
    answer.is_said_to_end()
    answer.is_between_events()
    if answer.is_readable:
        assert answer.passed_bytes >= len(answer.tail())
