"""Bodies that chance spoils: whoever takes one for an object reads in it what the gateway saw."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.readers import inprocess
from tests.readers.cases import CASES, CHEAP, SPELLED, wide
from tests.readers.inprocess import disagreements, readings
from tests.readers.oracle import faults, seen_in
from tests.support.json_texts import bodies, values, white

# What is put between strings: bytes that are nothing to JSON, and beginnings of what lenient parsers take.
ODD = [
    b"\x00", b"\x01", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\xa0", b"\xc2\x85", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xe2\x80\xa8", b'/*"*/', b'//"\n', b'#"\n', b"/**/", b"'", b"'\"'", b"`", b"\\", b"\\u0022", b'"', b",",
    b":", b"{", b"}", b"[", b"]", b"}{", b"NaN", b"1", b'"model":"dear"', b'"max_tokens":5000',
    b'"stream":true',
]  # fmt: skip
WORDS = ("model", "max_tokens", "n", "stream", "max_completion_tokens")
HOWS = ("", "", "", "", "", "u", "x", "\\", "case", "o", "wide")  # a letter may be written
BESIDE = st.sampled_from(["", "", "", "\\u0000", "\x00", "\ufeff", "\\ud800", "\n", "\t", " ", "\xad"])
BEHIND = st.sampled_from([b"", b"", b"", b"\xff", b"\xc1\xad", b"\xe2\x80"])
ENCODINGS = (
    "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037",
)  # fmt: skip


def outside(body: bytes) -> list[int]:
    """Offsets that are in no string."""
    found, is_inside, at = [], False, 0
    while at < len(body):
        if not is_inside:
            found.append(at)
        if body[at] == 0x22:
            is_inside = not is_inside
        at += 2 if is_inside and body[at] == 0x5C else 1
    return [*found, len(body)]


@st.composite
def spelled(draw, word: str) -> bytes:
    """A key that some may take for ``word``: letters escaped, in valid ways and others, or beside it."""
    letters = []
    # One draw for all letters, and strategies that are made once: draws take most of the tests' time.
    for letter, byte in zip(word, draw(st.binary(min_size=len(word), max_size=len(word))), strict=True):
        how = HOWS[byte % len(HOWS)]
        code = ord(letter)
        forms = {
            "u": f"\\u{code:04x}", "x": f"\\x{code:02x}", "\\": f"\\{letter}", "case": letter.upper(),
            "o": f"\\{code:o}",
        }  # fmt: skip
        letters.append(chr(code + 0xFEE0) if how == "wide" else forms.get(how, letter))
    letters.insert(draw(st.integers(0, len(letters))), draw(BESIDE))
    return b'"' + "".join(letters).encode("utf-8", "surrogatepass") + draw(BEHIND) + b'"'


# A second value of a word, in some spelling.
MEMBERS = st.lists(
    st.tuples(
        st.one_of(
            *map(spelled, WORDS), st.sampled_from(list(SPELLED.values())),
            st.sampled_from([f'"{word}"'.encode() for word in WORDS]),
        ),
        st.one_of(white.map(str.encode), st.sampled_from(ODD)),
        st.sampled_from([b':"dear"', b":5000", b":true", b":false", b":null", b":1e4", b':"5000"', b":1"]),
    ).map(b"".join),
    max_size=3,
)  # fmt: skip
SPOILS = st.lists(st.tuples(st.integers(0, 1 << 16), st.sampled_from(ODD), st.integers(0, 2)), max_size=3)


@st.composite
def spoiled(draw) -> bytes:
    """A body for ``p/cheap`` with more members, and odd bytes outside of its strings."""
    parts = [CHEAP, *draw(MEMBERS)]
    parts += [
        f'"x":{json.dumps(draw(values), ensure_ascii=draw(st.booleans()))}'.encode("utf-8", "surrogatepass")
    ]
    body = b"{" + b",".join(draw(st.permutations(parts))) + b"}"
    for place, odd, lost in draw(SPOILS):
        places = outside(body)
        at = places[place % len(places)]
        body = body[:at] + odd + body[at + lost :]
    return body


@given(spoiled())
@settings(max_examples=1500)
def test_spoiled_bodies_say_one_thing(body):
    assert not disagreements(body), body


@given(bodies(models=1), st.sampled_from(ENCODINGS))
@settings(max_examples=300)
def test_bodies_in_other_encodings_say_one_thing(body, encoding):
    other = body.decode("utf-8", "surrogatepass").encode(encoding, "replace")
    for text in (other, CHEAP.join((b"{", b",")) + other, b'{"x":"' + other + b'",' + CHEAP + b"}"):
        assert not disagreements(text, limited=False), text


@given(st.sampled_from(["utf-16-le", "utf-16-be"]), st.text(max_size=8), st.sampled_from(WORDS))
@example("utf-16-le", "", "model")
@settings(max_examples=200)
def test_wide_texts_say_one_thing(encoding, text, word):
    secret = f'"{word}":"dear","y":{json.dumps(text)}'
    assert not disagreements(wide(encoding, secret))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_says_one_thing(case):
    assert not disagreements(case.body), case.body


# ---------------------------------------------------------------------- the oracle itself


@pytest.mark.parametrize("how", inprocess.PARSERS)
def test_each_parser_reads_what_is_plain(how):
    one = readings(b'{"model":"cheap","max_tokens":7,"stream":true}')[how]
    assert (one["model"], one["limits"], one["stream"]) == ("cheap", {"max_tokens": 7}, True)


def test_what_differs_is_a_fault():
    seen = seen_in(b'{"model":"p/cheap","max_tokens":7}')
    same = readings(b'{"model":"cheap","max_tokens":7}')["orjson"]
    assert not faults(seen, same, limited=True)
    for other, fault in {
        b'{"model":"dear","max_tokens":7}': "ran model 'dear' in place of 'cheap'",
        b'{"max_tokens":7}': "ran model None in place of 'cheap'",
        b'{"model":"cheap","max_tokens":8}': "ran max_tokens 8 where the gateway saw 7",
        b'{"model":"cheap","max_tokens":"x"}': "ran max_tokens 'x' where the gateway saw 7",
        b'{"model":"cheap","n":1}': "ran n 1, which the gateway did not see",
        b'{"model":"cheap"}': "ran without a limit, for a key that has one",
        b'{"model":"cheap","max_tokens":0}': "ran without a limit, for a key that has one",
        b'{"model":"cheap","stream":1}': "ran stream True where the gateway saw False",
    }.items():
        assert fault in faults(seen, readings(other)["orjson"], limited=True), other
    assert faults(seen, {**same, "evil": ["Model"]}, limited=False) == ["got the header Model"]
    assert faults(None, same, limited=False) == ["ran a body that the gateway can't read"]


def test_what_lies_outside_of_strings():
    assert outside(b'{"a\\"":1}') == [0, 1, 6, 7, 8, 9]
