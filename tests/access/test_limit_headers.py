"""How clients are told what is left of a key's limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.group import Group
from proxy.access.limit_headers import LimitLines, limit_lines, time_until
from proxy.access.permits import GroupedPermit, Permit
from tests.support.keys import key_of

NOW = 1000.0
OFFSET_S = 1_780_315_200.0


def test_both_kinds_with_both_forms_of_the_end() -> None:
    lines = LimitLines(3, 1000)
    permit = Permit(300, 0, 2, 700, NOW + 17.2)
    assert lines.of(permit, NOW, OFFSET_S) == (
        b"X-RateLimit-Limit-Requests: 3\r\nX-RateLimit-Remaining-Requests: 2\r\n"
        b"X-RateLimit-Reset-Requests: 1780316218\r\nX-RateLimit-Reset-Requests-After: 18s\r\n"
        b"X-RateLimit-Limit-Tokens: 1000\r\nX-RateLimit-Remaining-Tokens: 700\r\n"
        b"X-RateLimit-Reset-Tokens: 1780316218\r\nX-RateLimit-Reset-Tokens-After: 18s\r\n"
    )


@pytest.mark.parametrize("limits", [{"rpm": 3}, {"tpm": 3}, {"rpm": 3, "tpm": 4}, {"concurrency": 1}, {}])
def test_the_names_are_those_of_the_lines(limits: dict[str, int]) -> None:
    lines = limit_lines(key_of(**limits), None)
    written = lines.of(Permit(0, 0, 1, 1, NOW + 60), NOW, OFFSET_S)
    assert {line.partition(b":")[0].lower() for line in written.splitlines()} == lines.names
    assert len(lines.names) == 4 * len(limits.keys() & {"rpm", "tpm"})


GROUP = {"name": "g", "created": 1}
NONE = 1 << 62  # what is left where there is no limit


@pytest.mark.parametrize(("own", "left", "group", "their_left", "told"), [
    # Of each kind the limit of which less is left: its figure, what is left, and when that ends.
    ({"rpm": 3}, (2, NONE), {"rpm": 9}, (1, NONE), {b"requests": (9, 1, 30)}),
    ({"rpm": 3}, (1, NONE), {"rpm": 9}, (2, NONE), {b"requests": (3, 1, 60)}),
    ({"rpm": 3}, (1, NONE), {"rpm": 9}, (1, NONE), {b"requests": (3, 1, 60)}),  # the later end
    ({"rpm": 3}, (2, NONE), {"tpm": 50}, (NONE, 7), {b"requests": (3, 2, 60), b"tokens": (50, 7, 30)}),
    ({}, (NONE, NONE), {"rpm": 9, "tpm": 50}, (0, 0), {b"requests": (9, 0, 30), b"tokens": (50, 0, 30)}),
    ({"rpm": 3, "tpm": 80}, (2, 5), {"rpm": 9, "tpm": 50}, (1, 7),
     {b"requests": (9, 1, 30), b"tokens": (80, 5, 60)}),
    ({"concurrency": 1}, (NONE, NONE), {"concurrency": 1}, (NONE, NONE), {}),
])  # fmt: skip
def test_the_tighter_one_of_key_and_group(own, left, group, their_left, told) -> None:
    lines = limit_lines(key_of(**own), Group(**GROUP, **group))
    theirs = Permit(0, 0, *their_left, NOW + 30)
    written = lines.of(GroupedPermit(0, 0, *left, NOW + 60, theirs), NOW, OFFSET_S)
    fields = dict(line.lower().split(b": ") for line in written.splitlines())
    assert fields.keys() == lines.names
    assert fields == {
        b"x-ratelimit-%b" % name: value
        for kind, (limit, rest, ends) in told.items()
        for name, value in (
            (b"limit-" + kind, b"%d" % limit), (b"remaining-" + kind, b"%d" % rest),
            (b"reset-" + kind, b"%d" % (NOW + OFFSET_S + ends)),
            (b"reset-%b-after" % kind, b"1m0s" if ends == 60 else b"30s"),
        )
    }  # fmt: skip
    assert limit_lines(Group(**GROUP, **group), None).names == frozenset()  # its keys tell it


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
