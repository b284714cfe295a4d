"""What requests cost: sums that fade, and the ratios of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.cost_estimate import CostEstimate
from proxy.usage.tokens import Usage


@pytest.mark.parametrize("every_s", [0.1, 5.0, 900.0])
def test_charges_span_fewer_requests_where_they_are_rare(every_s: float) -> None:
    charges = CostEstimate(40_000.0)
    for step in range(5000):
        charges.add(step * every_s, 1000, Usage(250, 0, 0, 100), 0.0)
    assert charges.requests == pytest.approx((40_000.0 / every_s) ** 0.5, rel=0.1)
    last_s = 4999 * every_s
    assert charges.fade(last_s) == charges.fade(last_s - 1.0) == 1.0
    assert charges.requests * charges.fade(last_s + 40_000.0) == pytest.approx(1.0, abs=0.15)


def test_who_was_asked_counts_even_if_it_tells_nothing() -> None:
    charges = CostEstimate(40_000.0)
    charges.probed(5.0)
    charges.probed(5.0)
    assert (charges.asked, charges.requests, charges.ratios) == (2.0, 0.0, None)
    charges.add(5.0, 1000, Usage(250, 0, 0, 100), 0.0)
    assert (charges.asked, charges.requests) == (2.0, 1.0)  # one of the two has answered
    charges.add(4.0, 1000, Usage(250, 0, 0, 100), 0.0)  # a clock that steps back is no time
    charges.add(5.0, 1000, Usage(250, 0, 0, 100), 0.0)
    assert (charges.asked, charges.requests) == (3.0, 3.0)
    charges.probed(5.0 + 40_000.0)
    assert charges.asked == pytest.approx(1.75)
    assert charges.ratios == (0.25, 0.0, 100.0)


SAMPLES = st.tuples(
    st.floats(-0.01, 1e5), st.integers(0, 10**8), st.integers(0, 10**9), st.integers(0, 10**9)
)


@given(st.lists(SAMPLES, max_size=20))
def test_charges_agree_with_plain_sums_and_stay_in_range(samples: list[tuple[float, int, int, int]]) -> None:
    charges = CostEstimate(1e18)  # so slow that nothing fades
    now = 0.0
    for step, body, given_tokens, output in samples:
        now += step
        charges.add(now, body, Usage(given_tokens, given_tokens // 2, 0, output, 0), 0.0)
    bodies = sum(body for _, body, _, _ in samples)
    if bodies:
        assert charges.ratios is not None
        assert charges.ratios[0] == pytest.approx(sum(min(b, g) for _, b, g, _ in samples) / bodies)
        assert 0.0 <= charges.ratios[1] <= 1.0
    per_byte, share, output_tokens = charges.read(now, (0.25, 0.0, 300.0))
    assert 0.0 <= per_byte <= 1.0
    assert 0.0 <= share <= 1.0
    assert output_tokens >= 0.0
