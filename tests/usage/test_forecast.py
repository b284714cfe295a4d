"""The end of a window, from what is used so far."""

from __future__ import annotations

import pytest

from proxy.usage.calendar import DAY_S
from proxy.usage.forecast import at_end


@pytest.mark.parametrize(("used", "passed_s", "length_s", "found"), [
    (100, DAY_S / 2, DAY_S, 200), (100, DAY_S / 24, DAY_S, 2400), (100, DAY_S / 24 - 1, DAY_S, None),
    (100, 10 * DAY_S, 28 * DAY_S, 280), (100, 10 * DAY_S, 31 * DAY_S, 310), (0, DAY_S / 2, DAY_S, 0),
    (100, 2 * DAY_S, DAY_S, 100), (100, 0.0, DAY_S, None), (100, -5.0, DAY_S, None),
])  # fmt: skip
def test_at_the_end(used, passed_s, length_s, found):
    assert at_end(used, passed_s, length_s) == found
