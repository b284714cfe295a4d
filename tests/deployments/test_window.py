"""What is believed of a context window."""

from __future__ import annotations

import pytest

from proxy.deployments.window import BELIEVED_S, ContextWindow


@pytest.mark.parametrize(
    ("configured", "taken", "named", "believed"),
    [
        (8192, 0, 4096, 4096), (None, 0, 4096, 4096), (8192, 4096, 4096, 4096),
        (8192, 4097, 4096, 8192),  # it took more
        (8192, 0, 8192, 8192), (8192, 0, 9000, 8192), (8192, 0, 0, 8192), (None, 0, 0, None),
    ],
)  # fmt: skip
def test_only_a_smaller_figure_that_it_never_went_beyond(configured, taken, named, believed):
    window = ContextWindow(configured)
    window.taken = taken
    assert window.name(named, 10.0) == (believed != configured)
    assert window.tokens(10.0) == believed
    assert window.tokens(10.0 + BELIEVED_S - 1) == believed
    assert window.tokens(10.0 + BELIEVED_S) == configured
    assert window.narrowed_until == 0.0 or believed == configured


def test_a_prompt_that_it_takes_after_all_ends_it():
    window = ContextWindow(8192)
    assert window.name(4096, 0.0)
    window.taken = 5000
    assert window.tokens(1.0) == 8192
    assert not window.name(4096, 2.0)
