"""The live run of failing over: each of its checks can fail."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tests.e2e import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from failover.cell import Result, check, check_line
from failover.client import Seen, word_of
from failover.kinds import FAULTS, KINDS, Row, rows

TOKENS = b"".join(b'data: {"choices":[{"delta":{"content":"<b%d>"}}]}\n\n' % number for number in range(60))
HALF = TOKENS[: TOKENS.index(b"data: ", TOKENS.index(b"<b39>"))]
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"broke off"}}\n\n'
LAST = b"\r\n0\r\n\r\n"
HEAD = b"HTTP/1.1 %d OK\r\n%b\r\n\r\n"
CHUNKED = HEAD % (200, b"Transfer-Encoding: chunked")
REFUSAL = b'{"error":{"code":"none"}}'

ROW = Row(3, "500", "two", "streamed", "chat", "whole g", "1+1")
SEEN = Seen("whole g", 0.1, 0.2, 200, "d1r0b:500:1ms, d1r0g:200:1ms", "req_1")
LINE = {"provider": "d1r0g", "status": 200, "attempts": 2, "input": 7, "output": 60, "nusd": 254_000,
        "source": "provider"}  # fmt: skip
HEDGED = "d1r0b:hedged:9ms, d1r0g:200:1ms"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (CHUNKED + TOKENS + DONE + LAST, "whole b"),
        (CHUNKED + TOKENS + DONE, "cut b 60"),
        (CHUNKED + HALF + LAST, "silent b 40"),
        (CHUNKED + HALF + DONE + LAST, "silent b 40"),
        (CHUNKED + HALF + ERROR + LAST, "told b 40"),
        (CHUNKED + HALF + ERROR + DONE + LAST, "silent b 40"),
        (CHUNKED + HALF + TOKENS.replace(b"<b", b"<g") + DONE + LAST, "spliced"),
        (CHUNKED + HALF + HALF + DONE + LAST, "spliced"),
        (HEAD % (429, b"Content-Length: %d" % len(REFUSAL)) + REFUSAL, "error 429 none"),
        (HEAD % (429, b"Content-Length: 99") + REFUSAL, "cut  0"),
        (b"", "cut  0"),
    ],
)
def test_how_a_response_ended(data, word):
    assert word_of(data, "chat", streamed=True) == word


@pytest.mark.parametrize(
    ("of_row", "of_seen", "asked", "pause_s", "wrong"),
    [
        ({}, {}, (1, 1), 0.0, ""),
        ({}, {"word": "told b 40"}, (1, 1), 0.0, "'told b 40' instead of 'whole g'"),
        ({}, {"took_s": 15.1}, (1, 1), 0.0, "took 15.1 s"),
        ({}, {}, (2, 1), 0.0, "asked 2+1 times instead of 1+1"),
        ({"asked": "1-2+1"}, {}, (2, 1), 0.0, ""),
        ({"asked": "2+1", "pause_s": 1.0}, {}, (2, 1), 0.5, "asked again after 0.50 s"),
        ({"word": "error 429"}, {"word": "error 429 x", "status": 429}, (1, 1), 0.0, "without Retry-After"),
        ({"word": "told b", "how": "sdk"}, {"word": "raised b 40"}, (1, 1), 0.0, ""),
    ],
)
def test_what_a_row_wants(of_row, of_seen, asked, pause_s, wrong):
    faults = check(Result(replace(ROW, **of_row), [replace(SEEN, **of_seen)], asked, pause_s))
    assert [wrong in fault for fault in faults] == ([True] if wrong else [])


@pytest.mark.parametrize(
    ("of_seen", "of_line", "wrong"),
    [
        ({}, {}, ""),
        ({}, {"attempts": 1}, "attempts"),
        ({}, {"status": 500}, "attempts"),
        ({}, {"nusd": 0}, "charged"),
        ({}, {"provider": "d1r0b"}, "charged"),
        ({}, {"source": "estimated"}, "charged"),
        ({}, {"hedged": [{"provider": "d1r0b"}]}, "charged beside"),
        ({"story": HEDGED}, {"hedged": [{"provider": "d1r0b"}]}, ""),
        ({"story": HEDGED}, {}, "charged beside"),
        ({"story": HEDGED}, {"hedged": [{"provider": "d1r0b"}] * 2}, "charged beside"),
        ({"word": "told g 40"}, {"output": 40, "source": "estimated"}, ""),
        ({"word": "told g 40"}, {"output": 0}, "charged"),
        ({"word": "error 503 x", "status": 503}, {"status": 503}, "charged"),
        ({"word": "error 503 x", "status": 503}, {"status": 503, "input": None}, ""),
    ],
)
def test_what_the_ledger_has_to_say(of_seen, of_line, wrong):
    fault = check_line(ROW, replace(SEEN, **of_seen), LINE | of_line)
    assert wrong in fault and bool(wrong) == bool(fault)


@pytest.mark.parametrize("tuned", [False, True])
def test_the_rows_are_of_all_kinds(tuned):
    made = rows(tuned=tuned)
    assert {row.kind for row in made} == set(range(1, len(KINDS) + 1))
    assert {row.fault for row in made} == set(FAULTS)
    assert len({row.name for row in made}) == len(made)
