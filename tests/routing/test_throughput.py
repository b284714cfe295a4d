"""Whole answers: who begins first may end last."""

import pytest

from proxy.deployments.deployment import Deployment
from proxy.deployments.record import Record
from proxy.routing.strategy import explain
from proxy.usage.tokens import Usage
from tests.support.deployments import NOW, deployment, facts, picks, pool_of

BYTES = 180


def taught(name: str, first_s: float, tokens_per_s: float, tokens: int = 400) -> Deployment:
    """A member that has streamed 30 answers until now."""
    member = deployment(name)
    for number in range(30):
        at = NOW - 300.0 + 10.0 * number
        record = Record(member, "chat", True, at - first_s)
        record.first_byte(at)
        record.finished(at)
        took_s = tokens / tokens_per_s
        record.row.charged(at, 4000, Usage(1000, 0, 0, tokens), None, took_s, passed_bytes=tokens * BYTES)
    return member


def test_the_sum_of_first_output_and_writing_counts() -> None:
    early, writer = taught("early", 0.3, 25.0), taught("writer", 0.9, 90.0)
    pool = pool_of("throughput", early, writer)
    assert picks(pool, facts())["writer"] > 380
    found = explain(pool, facts())
    assert found.choice is writer
    assert [one.score for one in found.candidates] == pytest.approx([16.3, 0.9 + 400 / 90], rel=0.1)
    assert picks(pool_of("latency", early, writer), facts())["early"] > 380


def test_one_that_writes_more_is_later() -> None:
    terse, wordy = taught("terse", 0.5, 40.0, 100), taught("wordy", 0.5, 60.0, 1500)
    assert picks(pool_of("throughput", terse, wordy), facts())["terse"] > 380


def test_a_stall_is_left_while_its_streams_run() -> None:
    first, second = taught("first", 0.5, 90.0), taught("second", 0.5, 50.0)
    pool = pool_of("throughput", first, second)
    running = [Record(first, "chat", True, NOW + index) for index in range(3)]
    for index, record in enumerate(running):
        at = NOW + index + 0.5
        record.first_byte(at)
        record.progressed(at, 100)
        record.progressed(at + 1.0, 100 + 7 * BYTES)
    assert picks(pool, facts(now=NOW + 5.0))["second"] > 380


def test_plain_answers_go_by_their_only_time() -> None:
    a, b = deployment("a"), deployment("b")
    for member, seconds in ((a, 2.0), (b, 4.0)):
        record = Record(member, "chat", False, NOW - seconds)
        record.first_byte(NOW)
        record.finished(NOW)
    scores = [one.score for one in explain(pool_of("throughput", a, b), facts(streamed=False)).candidates]
    assert scores[0] < scores[1]
