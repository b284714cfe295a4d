"""The pace of streams: learned at their end, and while they stall."""

import pytest

from proxy.deployments.pace import Pace
from proxy.deployments.record import Record
from proxy.usage.tokens import Usage
from tests.support.deployments import deployment

BYTES = 180  # a token


def learned() -> Pace:
    """50 tokens a second."""
    pace = Pace(30.0)
    for number in range(20):
        pace.ended(4.0, 200, 200 * BYTES, 10.0 * number)
    return pace


@pytest.mark.parametrize(("output_s", "tokens"), [(0.0, 200), (2.0, 7), (2.0, 0)])
def test_a_short_answer_tells_nothing(output_s: float, tokens: int) -> None:
    pace = Pace(30.0)
    pace.ended(output_s, tokens, 1000, 1.0)
    assert pace.estimate.mean_s == pace.bytes_per_token == 0.0
    assert pace.slow_s(1.0, 0) == 0.0


@pytest.mark.parametrize(
    ("tokens", "slow_s"),
    [(50, 0.0), (25, 0.0), (4, 0.25), (0, 4.0)],
)
def test_only_an_interval_that_is_far_slower_is_told(tokens: int, slow_s: float) -> None:
    assert learned().slow_s(1.0, tokens * BYTES) == pytest.approx(slow_s, rel=0.01)


def test_a_stalled_member_is_known_before_its_streams_end() -> None:
    member = deployment("a")
    row = member.row("chat", True)
    for number in range(20):
        row.charged(10.0 * number, 400, Usage(100, 0, 0, 200), None, 4.0, passed_bytes=200 * BYTES)
    usual_s = row.writing.estimate.mean_s
    for number in range(4):
        begun = 300.0 + number
        record = Record(member, "chat", True, begun)
        record.progressed(begun, 0)  # before its first output there is nothing to look at
        assert record.looked_at == 0.0
        record.first_byte(begun + 0.5)
        for second in range(1, 6):  # four tokens a second
            record.progressed(begun + second, second * 4 * BYTES)
        count = row.writing.estimate.count
        record.progressed(begun + 7.0, 30 * BYTES)
        assert row.writing.estimate.count == count  # once a stream
    assert row.writing.estimate.mean_s > 5.0 * usual_s


def test_a_client_that_takes_nothing_makes_no_member_slow() -> None:
    record = Record(deployment("a"), "chat", True, 1.0)
    record.row.writing = learned()
    record.first_byte(2.0)
    record.progressed(3.0, 50 * BYTES)
    record.held_s = 5.0
    record.progressed(10.0, 51 * BYTES)
    assert record.row.writing.estimate.count == 20.0
    assert "180 bytes a token" in repr(record.row.writing)
