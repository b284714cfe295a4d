"""All steps of a piece of work."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from proxy.control.steps import done


def work(log: list[int], fault: bool = False) -> Generator[None, None, str]:
    for number in range(3):
        log.append(number)
        yield
    if fault:
        raise ValueError("no")
    return "result"


def test_all_steps_are_taken_and_the_result_is_returned_or_the_fault_comes_out():
    log: list[int] = []
    assert (done(work(log)), log) == ("result", [0, 1, 2])
    with pytest.raises(ValueError, match="no"):
        done(work([], fault=True))
