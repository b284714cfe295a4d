"""Retry-After in all its forms, and whatever else may stand there."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire.retry_after import retry_after_s

WALL = 1_800_000_000.0


def date(seconds: float) -> bytes:
    return formatdate(WALL + seconds, usegmt=True).encode()


@pytest.mark.parametrize(("lines", "seconds"), [
    ([], None), ([b"Content-Type: text/plain"], None), ([b"Retry-After: 7"], 7.0), ([b"retry-after:7"], 7.0),
    ([b"RETRY-AFTER: \t7 "], 7.0), ([b"Retry-After: 0.25"], 0.25), ([b"retry-after-ms: 1500"], 1.5),
    ([b"retry-after-ms: 12.5"], 0.0125), ([b"Retry-After: 9", b"retry-after-ms: 8200"], 8.2),
    ([b"retry-after-ms: 8200", b"Retry-After: 9"], 8.2), ([b"retry-after-ms: soon", b"Retry-After: 9"], 9.0),
    ([b"retry-after-ms: 0", b"Retry-After: 9"], 9.0), ([b"X-Retry-After: 7"], None),
    # dates: against the provider's own clock if it tells, else ours
    ([b"Retry-After: " + date(30)], 30.0), ([b"Retry-After: " + date(30), b"Date: " + date(10)], 20.0),
    ([b"Date: " + date(-3600), b"Retry-After: " + date(-3540)], 60.0),
    ([b"Retry-After: " + date(30), b"Date: yesterday"], 30.0),
    # the past, and nothing
    ([b"Retry-After: 0"], None), ([b"Retry-After: -5"], None), ([b"Retry-After: " + date(0)], None),
    ([b"Retry-After: " + date(-30)], None), ([b"Retry-After: " + date(30), b"Date: " + date(30)], None),
    # garbage
    ([b"Retry-After:"], None), ([b"Retry-After"], None), ([b"Retry-After: soon"], None),
    ([b"Retry-After: nan"], None), ([b"Retry-After: inf"], None), ([b"Retry-After: -inf"], None),
    ([b"Retry-After: \xff\xfe"], None), ([b"Retry-After: Mon, 32 Foo 2027 99:99:99 GMT"], None),
    ([b"Retry-After: 99999999999999999999"], None), ([b"Retry-After: 1e400"], None),
    ([b"Retry-After: " + b"9" * 5000], None),
])  # fmt: skip
def test_what_is_read(lines, seconds):
    assert retry_after_s(lines, WALL) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("zone", ["UTC0", "JST-9", "PST8"])
@pytest.mark.parametrize("written", [
    b"Sat, 15 Jan 2028 08:00:30 GMT", b"Sat, 15 Jan 2028 08:00:30 +0000", b"Sat, 15 Jan 2028 08:00:30 -0000",
    b"Saturday, 15-Jan-28 08:00:30 GMT",  # RFC 850
    b"Sat Jan 15 08:00:30 2028",  # asctime: RFC 9110 section 5.6.7 has all three read, and as UTC
])  # fmt: skip
def test_dates_are_utc_wherever_the_gateway_runs(written, zone, monkeypatch):
    # bug: a date without a zone ("-0000", asctime) is taken for local time
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = retry_after_s([b"Retry-After: " + written], 1_831_536_000.0)
    time.tzset()
    assert found == 30.0


values = st.one_of(
    st.binary(max_size=60),
    st.integers().map(lambda n: b"%d" % n),
    st.floats().map(lambda x: repr(x).encode()),
    st.lists(
        st.sampled_from(
            b"Sat, Jan 15 2028 28 99999 08:00:30 99:99 GMT EST +9999 -0000 - : . ( ) 0 AM".split()
        ),
        max_size=9,
    ).map(b" ".join),
)


@given(
    st.lists(st.tuples(st.sampled_from([b"Retry-After", b"retry-after-ms", b"Date"]), values), max_size=4),
    st.floats(-1e12, 1e12),
)
@example([(b"Retry-After", b"Sat, 1 Jan 9999 00:00:00 +9999")], 0.0)
@example([(b"Retry-After", b"Sat, 1 Jan 0001 00:00:00 +9999")], 0.0)
def test_it_never_raises_and_never_says_now_or_the_past(fields, wall_s):
    found = retry_after_s([name + b": " + value for name, value in fields], wall_s)
    assert found is None or found > 0.0
