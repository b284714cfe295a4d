"""Work that is long with 5,000 models or 500 keys, written as a generator of steps.

A generator does a little, yields nothing, and goes on; it returns the result. With an event loop to keep
going, steps are taken in slices (:mod:`proxy.control.slices`); without one, :func:`done` takes all of them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")


def done(work: Generator[None, None, _T]) -> _T:
    """Take all steps; returns what the generator returns."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: _T = end.value
        return result
