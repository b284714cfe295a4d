"""Unanswered requests."""

from math import inf

import pytest

from proxy.deployments.silence import unanswered


@pytest.mark.parametrize(
    ("waiting", "excused", "heard_s", "expected"),
    [
        ({}, {}, 0.0, (inf, 0)),
        ({"a": 1.0, "b": 2.0}, {}, 0.0, (1.0, 2)),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, {}, 1.5, (2.0, 2)),
        ({"a": 1.0}, {}, 1.0, (inf, 0)),
        (dict.fromkeys(range(20), 1.0), {}, 1.0, (1.0, 12)),
        ({"a": 2.0}, {"a": 4.0}, 0.0, (8.0, 1)),  # of eight seconds two count
        ({"a": 2.0, "b": 5.0}, {"a": 4.0}, 0.0, (5.0, 2)),
        ({"a": 2.0, "b": 5.0}, {"a": 4.0}, 3.0, (5.0, 1)),
        ({"a": 2.0}, {"a": 4.0}, 3.0, (inf, 0)),
        (dict.fromkeys(range(99), 2.0), {0: 2.0}, 0.0, (2.0, 33)),
    ],
)
def test_the_oldest_that_no_later_one_overtook(
    waiting: dict[object, float], excused: dict[object, float], heard_s: float, expected: tuple[float, int]
) -> None:
    assert unanswered(waiting, excused, heard_s, 10.0) == expected
