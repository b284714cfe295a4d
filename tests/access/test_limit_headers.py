"""How clients are told what is left of a key's limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.limit_headers import LimitLines, time_until
from proxy.access.permits import Permit
from tests.support.keys import key_of

NOW = 1000.0
OFFSET_S = 1_780_315_200.0


def test_both_kinds_with_both_forms_of_the_end() -> None:
    lines = LimitLines(key_of(rpm=3, tpm=1000))
    permit = Permit(300, 0, 2, 700, NOW + 17.2)
    assert lines.of(permit, NOW, OFFSET_S) == (
        b"X-RateLimit-Limit-Requests: 3\r\nX-RateLimit-Remaining-Requests: 2\r\n"
        b"X-RateLimit-Reset-Requests: 1780316218\r\nX-RateLimit-Reset-Requests-After: 18s\r\n"
        b"X-RateLimit-Limit-Tokens: 1000\r\nX-RateLimit-Remaining-Tokens: 700\r\n"
        b"X-RateLimit-Reset-Tokens: 1780316218\r\nX-RateLimit-Reset-Tokens-After: 18s\r\n"
    )


@pytest.mark.parametrize("limits", [{"rpm": 3}, {"tpm": 3}, {"rpm": 3, "tpm": 4}, {"concurrency": 1}, {}])
def test_the_names_are_those_of_the_lines(limits: dict[str, int]) -> None:
    lines = LimitLines(key_of(**limits))
    written = lines.of(Permit(0, 0, 1, 1, NOW + 60), NOW, OFFSET_S)
    assert {line.partition(b":")[0].lower() for line in written.splitlines()} == lines.names
    assert len(lines.names) == 4 * len(limits.keys() & {"rpm", "tpm"})


@pytest.mark.parametrize(("seconds", "told"), [
    (60.0, b"1m0s"), (59.001, b"1m0s"), (59.0, b"59s"), (1.001, b"2s"), (1.0, b"1000ms"), (0.02, b"20ms"),
    (0.0001, b"1ms"), (0.0, b"0s"), (-3.0, b"0s"), (60.5, b"1m1s"), (1e9, b"1m1s"),
])  # fmt: skip
def test_the_time_until_then(seconds: float, told: bytes) -> None:
    assert time_until(seconds) == told


@given(st.floats(0, 60))
def test_nobody_is_told_to_come_too_early(seconds: float) -> None:
    match = re.fullmatch(rb"(?:(\d+)m)?(?:(\d+)s)|(\d+)ms", time_until(seconds))
    assert match is not None
    minutes, whole, thousandths = (int(group or 0) for group in match.groups())
    told = 60 * minutes + whole + thousandths / 1000
    assert seconds - 1e-9 <= told < seconds + 1
