"""How figures are written where people read them."""

from __future__ import annotations

import pytest

from proxy.cli.figures import usd_decimals


@pytest.mark.parametrize(("amounts", "decimals"), [
    ([], 4), ([0.0], 4), ([1.0], 4), ([250.0, 0.0], 4), ([0.99], 6), ([0.0001, 5.0], 6), ([0.00009], 9),
    ([0.000000001, 100.0], 9),
])  # fmt: skip
def test_small_amounts_get_more_decimals(amounts, decimals):
    assert usd_decimals(amounts) == decimals
