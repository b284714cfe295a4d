"""How long an answer bodies ask for: each word, each spelling, and nothing that only looks like one."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.outline import keys_of
from proxy.wire.output_limits import (
    BEST_OF,
    COMPACT,
    COUNT,
    MAX_TOKENS,
    OUTPUT_LIMITS,
    read_output_limits,
    written_limits,
)  # fmt: skip

INF = float("inf")
NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def asked(body: bytes) -> list[tuple[int, float]]:
    return written_limits(body, keys_of(body))


def output_limits(body: bytes) -> list[float]:
    return [value for word, value in asked(body) if word in OUTPUT_LIMITS]


@pytest.mark.parametrize(("body", "expected"), [
    (b"", []), (b"{}", []), (b'{"max_tokens":5}', [5]), (b'{ "max_tokens" \r\n\t: \r\n\t5 }', [5]),
    (b'{"max_completion_tokens":5,"max_output_tokens":6,"max_tokens":7}', [5, 6, 7]),
    (b'{"max_tokens":1,"max_tokens":9000}', [1, 9000]),  # providers take the last, or the first
    (b'{"MAX_TOKENS":5,"Max_Tokens":6}', [5, 6]),  # Go's JSON knows no case
    ('{"max_to\u212aens":5,"max_token\u017f":6}'.encode(), [5, 6]),  # nor these, for k and s
    (rb'{"max_to\u212aens":5,"max_token\u017F":6}', [5, 6]),
    (rb'{"\u006dax\u005Ftokens":5,"max_token\u0053":6}', [5, 6]), (b'{"a":{"max_tokens":5}}', []),
    (b'{"a":[{"max_tokens":5}],"max_tokens":6}', [6]), (b'{"a":"{\\"max_tokens\\":5}"}', []),
    (b'{"a":"max_tokens","b":"max_tokens"}', []), (rb'{"a":"\\","max_tokens":5}', [5]),
    (rb'{"\"max_tokens":5}', []), (b'{"max_tokens":null}', []), (b'{"max_tokens":-1}', [-1]),
    (b'{"max_tokens":5e3}', [5000]), (b'{"max_tokens":1.5}', [1.5]), (b'{"max_tokens":1e400}', [INF]),
    (b'{"max_tokens":"5"}', [5]),  # some providers take that too
    (b'{"max_tokens":"5_000"}', [INF]),  # whatever that may be to one
    (b'{"max_tokens":" 5"}', [INF]), (b'{"max_tokens":"9","max_tokens":"9e1"}', [9, 90]),
    (b'{"max_tokens":true}', [INF]), (b'{"max_tokens":{"a":1}}', [INF]), (b'{"max_tokens":[1]}', [INF]),
    (b'{"max_tokens":0x10}', [INF]), (b'{"max_tokens":%s}' % (b"9" * 5000), [INF]), (b'{"max_tokens"', []),
    (b'{"max_tokens":', [INF]), (b'[{"max_tokens":5}]', []),
    (b'{"messages":[],"m":{"max_tokens":5}', []),  # of a part the end tells nothing
])  # fmt: skip
def test_what_a_body_says_of_the_answers_length(body, expected):
    assert output_limits(body) == expected


def by_parsing(body: str) -> list[float]:
    """The same by Python's parser: every pair of the outermost object."""
    pairs = json.loads(body, object_pairs_hook=lambda pairs: ("object", pairs))[1]
    folded = [(key.replace("\u212a", "k").replace("\u017f", "s").lower(), value) for key, value in pairs]
    return [number(value) for key, value in folded if key in NAMES and value is not None]


def number(value: object) -> float:
    if isinstance(value, str):
        is_number = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value)
        return float(value) if is_number else INF
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else INF


@st.composite
def _spelled(draw, words):
    """A JSON string, each letter as it is or escaped, in either case."""
    out = []
    for plain in draw(words):
        letter = draw(st.sampled_from([plain, plain, plain, plain.upper(), plain.lower()]))[:1]
        out.append(
            draw(st.sampled_from([json.dumps(letter, ensure_ascii=False)[1:-1]] * 4 + [
                f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}",
            ])) if ord(letter) < 0xD800 or 0xE000 <= ord(letter) < 0x10000 else "x"
        )  # fmt: skip
    return f'"{"".join(out)}"'


_WORDS = st.sampled_from([*NAMES * 2, "max_to\u212aens", "max_token\u017f", "model", "max_token", "tokens"])
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


@settings(max_examples=150)
@given(_objects(_VALUES))
def test_it_finds_what_a_parser_finds(body):
    assert output_limits(body.encode("utf-8", "surrogatepass")) == by_parsing(body)


@given(st.binary() | _objects(_VALUES).map(lambda body: body.encode("utf-8", "surrogatepass")[:40]))
def test_any_bytes_will_do(body):
    assert all(isinstance(each, float) for each in output_limits(body))


_SOME = [*NAMES, "n", "max_to\u212aens", "MAX_Tokens", "max_", "maxtokens", "x"]


@given(st.lists(st.tuples(st.sampled_from(_SOME), st.integers(0, 99), st.booleans()), max_size=6))
def test_the_quick_way_finds_what_the_pattern_does(members):
    """Escapes take another way; a member with one, which changes nothing, makes both go it."""
    spelled = [
        (json.dumps(name) if is_ascii else f'"{name}"') + f": {number}" for name, number, is_ascii in members
    ]
    body, with_escape = (f"{{{', '.join(all)}}}" for all in (spelled, [*spelled, r'"a": "\u0041"']))
    assert asked(body.encode()) == asked(with_escape.encode())


def test_how_many_answers():
    body = b'{"n":3,"a":{"n":9},"best_of":"5","\\u006e":4,"N":null,"x":"n","max_tokens":7}'
    assert asked(body) == [(COUNT, 3), (BEST_OF, 5), (COUNT, 4), (MAX_TOKENS, 7)]
    assert asked(b'{"n":3,"BEST_OF":2}') == [(COUNT, 3), (BEST_OF, 2)]


@pytest.mark.parametrize("filler", [b"", b"x" * 10_000, b"{[" * 5000])
def test_depth_wherever_it_stands(filler):
    long = b'"messages":["%b"]' % filler
    for body, expected in (
        (b'{"max_tokens":5,%b}', [5]),
        (b'{%b,"max_tokens":5}', [5]),
        (b'{%b,"max_tokens":5,%b}', [5]),
        (b'{"m":{"max_tokens":5},%b}', []),
        (b'{%b,"m":{"max_tokens":5}}', []),
        (b'{%b,"m":[{"max_tokens":5}],%b}', []),
    ):
        whole = body.replace(b"%b", long)
        assert output_limits(whole) == expected


@pytest.mark.parametrize(("body", "output"), [
    (b'{"max_tokens":5}', 5), (b'{"max_tokens" : 5\n}', 5),
    (rb'{"max_\u0074okens":5}', 5),  # the same word to every parser
    (b'{"max_tokens":5,"max_completion_tokens":7}', 7),
    (b'{"max_output_tokens":5}', 0),  # another API's
    (b'{"Max_Tokens":5}', 0),  # most programs see none
    (b'{"max_tokens":5,"max_tokens":5}', 0), (b'{"max_tokens":5,"max_tokens":null}', 0),
    (b'{"max_tokens":5,"MAX_TOKENS":null}', 0), (b'{"max_tokens":"5"}', 0), (b'{"max_tokens":5.0}', 0),
    (b'{"max_tokens":0}', 0), (b'{"max_tokens":-5}', 0), (b'{"max_tokens":null}', 0),
    (b'{"max_tokens":99999999999}', 0),
    # which of two counts is the program's choice, and it may be the one that only some understand
    (b'{"max_tokens":1,"max_completion_tokens":"2000"}', 0),
    (b'{"max_tokens":1,"max_completion_tokens":2000.0}', 0),
    (b'{"max_tokens":1,"max_completion_tokens":2e3}', 0),
    (b'{"max_tokens":1,"max_completion_tokens":5,"max_completion_tokens":2000}', 0),
    (b'{"max_tokens":1,"Max_Completion_Tokens":2000}', 0),
    (b'{"max_tokens":1,"max_completion_tokens":%b2000}' % (b" " * 5000), 0),
    (b'{"max_tokens"%b:1}' % (b" " * 5000), 0), (b'{"max_tokens":5,"max_completion_tokens":null}', 5),
    (b'{"max_tokens":null,"max_tokens":null,"max_completion_tokens":5}', 5), (b'{"x":1}', 0),
])  # fmt: skip
def test_a_limit_is_a_promise_where_all_take_it_alike(body, output):
    keys = keys_of(body)
    assert read_output_limits(body, keys, asked(body), "chat").output == output


@pytest.mark.parametrize(("body", "endpoint", "is_newer"), [
    (b'{"max_completion_tokens":7}', "chat", True),
    (b'{"max_completion_tokens":7,"max_tokens":null}', "chat", True),
    (b'{"max_completion_tokens":7,"Max_Tokens":5}', "chat", False),
    (b'{"max_completion_tokens":7,"max_tokens":5,"max_tokens":5}', "chat", False),
    (b'{"max_completion_tokens":7,"max_tokens":5}', "chat", False), (b'{"max_tokens":5}', "chat", False),
    (b'{"max_completion_tokens":"7"}', "chat", False),  # none at all
    (b'{"max_completion_tokens":7}', "completions", False), (b'{"max_output_tokens":7}', "responses", False),
    (b'{"max_output_tokens":7}', COMPACT, False), (b"{}", "chat", False),
])  # fmt: skip
def test_a_limit_in_chats_newer_word_alone(body, endpoint, is_newer):
    assert read_output_limits(body, keys_of(body), asked(body), endpoint).in_newer_word is is_newer


def test_answers_and_what_is_made_behind_the_clients_back():
    body = b'{"n":3,"best_of":5,"N":7,"background":true}'
    for endpoint, answers in (("completions", 7), ("chat", 7), ("responses", 1)):
        found = read_output_limits(body, keys_of(body), asked(body), endpoint)
        assert (found.answers, found.is_async, found.output) == (answers, True, 0)
    many = b'{"n":1000,"best_of":20.5}'
    assert read_output_limits(many, keys_of(many), asked(many), "chat").answers == 1000  # vLLM takes so many
    for body in (b'{"background":false}', b'{"deferred":null,"n":1}'):
        assert not read_output_limits(body, keys_of(body), asked(body), "responses").is_async
