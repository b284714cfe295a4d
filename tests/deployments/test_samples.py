"""Samples survive being packed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.samples import FAILED, NUMBERS, SAMPLE_BYTES, TEXT_BYTES, TIME, pack, unpack

KEYS = st.integers(0, 2**64 - 1)
REALS = st.floats(allow_nan=False)


@given(st.integers(0, 255), KEYS, REALS, st.lists(REALS, max_size=NUMBERS), st.text())
def test_what_is_packed_comes_out(kind, key, at, numbers, text):
    packed = pack(kind, key, at, tuple(numbers), text)
    assert len(packed) == SAMPLE_BYTES
    sample = unpack(packed)
    assert (sample.kind, sample.key, sample.at) == (kind, key, at)
    assert list(sample.numbers) == numbers + [0.0] * (NUMBERS - len(numbers))
    whole = text.encode("utf-8", "replace").decode()
    assert whole.startswith(sample.text)
    if len(whole.encode()) <= TEXT_BYTES:
        assert sample.text == whole
    else:  # cut, but not within a character
        assert TEXT_BYTES - 3 <= len(sample.text.encode()) <= TEXT_BYTES


def test_whole_numbers_do_too():
    assert unpack(pack(TIME, 1, 2.0, (0.5, 3))).numbers[:2] == (0.5, 3.0)
    assert unpack(pack(FAILED, 1, 2.0, (), "503\0answered 503")).text == "503\0answered 503"
