"""Decoding at every split, of whole, joined, broken and excessive data."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import decompress as module
from proxy.wire.decompress import Decoder, decoder_for
from tests.support.json_texts import bytewise, pieces_of

TEXT = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\n' * 3
ENCODINGS = (b"gzip", b"x-gzip", b"deflate", b"bare")


def encoded(data: bytes, encoding: bytes, level: int = 6) -> bytes:
    bits = {b"deflate": 15, b"bare": -15}.get(encoding, 31)
    packer = zlib.compressobj(level, zlib.DEFLATED, bits)
    return packer.compress(data) + packer.flush()


def decoder(encoding: bytes) -> Decoder:
    found = decoder_for(b"deflate" if encoding == b"bare" else encoding)
    assert found is not None
    return found


def fed(one: Decoder, pieces: list[bytes]) -> bytes:
    return b"".join(map(one.feed, pieces))


@pytest.mark.parametrize(
    "encoding", [b"", b"identity", b"br", b"zstd", b"compress", b"gzip, br", b"gzip, gzip"]
)
def test_what_cannot_be_decoded(encoding: bytes) -> None:
    assert decoder_for(encoding) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_whole_and_byte_by_byte(encoding: bytes) -> None:
    for data in (b"", b"x", TEXT):
        wire = encoded(data, encoding)
        for pieces in ([wire], bytewise(wire)):
            one = decoder(encoding)
            assert (fed(one, pieces), one.feed(b""), one.failed) == (data, b"", False)


@given(
    st.lists(st.binary(min_size=1, max_size=300) | st.just(TEXT * 20), max_size=4),
    st.sampled_from(ENCODINGS), st.integers(0, 9), st.integers(0, 3),
    st.lists(st.integers(0, 1 << 14), max_size=8),
)  # fmt: skip
def test_any_split_decodes_to_the_same(
    parts: list[bytes], encoding: bytes, level: int, zeros: int, cuts: list[int]
) -> None:
    """Of gzip also several members, one behind the other (RFC 1952 2.2), and zeros that fill up a block."""
    parts = parts if encoding.endswith(b"gzip") else [b"".join(parts)]
    data = b"".join(encoded(part, encoding, level) for part in parts) + bytes(zeros if parts else 0)
    one = decoder(encoding)
    assert (fed(one, pieces_of(data, cuts)), one.failed) == (b"".join(parts), False)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_event_is_there_once_it_was_flushed(encoding: bytes) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, {b"deflate": 15, b"bare": -15}.get(encoding, 31))
    one = decoder(encoding)
    for number in range(5):
        event = b"data: %d\n\n" % number
        assert one.feed(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)) == event


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("behind", [b"garbage", b"\0\0xyz", b"\x1f\x8b\x08 no member"])
def test_data_behind_the_end(encoding: bytes, behind: bytes) -> None:
    wire = encoded(TEXT, encoding) + behind
    for pieces in ([wire], bytewise(wire)):
        one = decoder(encoding)
        fed(one, pieces)
        assert one.failed
        assert one.feed(encoded(TEXT, encoding)) == b""


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_a_wrong_checksum(encoding: bytes) -> None:
    data = bytearray(encoded(TEXT, encoding))
    data[-6 if encoding == b"gzip" else -2] ^= 1
    one = decoder(encoding)
    one.feed(bytes(data))
    assert one.failed


def test_data_that_needs_a_dictionary() -> None:
    packer = zlib.compressobj(zdict=b"usage")
    one = decoder(b"deflate")
    assert (one.feed(packer.compress(TEXT) + packer.flush()), one.failed) == (b"", True)


@given(st.binary(max_size=200), st.integers(0, 60), st.sampled_from(ENCODINGS), st.lists(st.integers(0, 200)))
def test_no_bytes_raise(garbage: bytes, kept: int, encoding: bytes, cuts: list[int]) -> None:
    one = decoder(encoding)
    out = fed(one, pieces_of(encoded(TEXT, encoding)[:kept] + garbage, cuts))
    if one.failed:
        assert one.feed(encoded(TEXT, encoding)) == b""
    assert isinstance(out, bytes)


def test_an_end_that_is_missing_is_no_failure() -> None:
    one = decoder(b"gzip")
    assert TEXT.startswith(one.feed(gzip.compress(TEXT)[:-9]))
    assert not one.failed


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [999, 1000, 1001, 100_000])
def test_a_piece_that_unfolds_to_more_than_the_limit(
    encoding: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PIECE_BYTES", 1000)
    one = decoder(encoding)
    out = one.feed(encoded(bytes(size), encoding))
    assert (out, one.failed) == ((bytes(size), False) if size <= 1000 else (b"", True))


def test_members_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIECE_BYTES", 1000)
    for size in (500, 501):
        one = decoder(b"gzip")
        one.feed(encoded(bytes(500), b"gzip") + encoded(bytes(size), b"gzip"))
        assert one.failed is (size == 501)


def test_all_pieces_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DECODED_BYTES", 1000)
    one = decoder(b"gzip")
    member = encoded(bytes(300), b"gzip")
    assert [len(one.feed(member)) for _ in range(5)] == [300, 300, 300, 0, 0]
    assert one.failed


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    bomb = encoded(bytes(64 << 20), b"gzip", 9)
    assert len(bomb) < 1 << 17
    one = decoder(b"gzip")
    assert (one.feed(bomb), one.failed) == (b"", True)
