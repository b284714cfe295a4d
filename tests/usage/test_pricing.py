"""Prices are exact, whatever parts they come in."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from proxy.config.settings import ModelConfig
from proxy.usage.pricing import PartPrices, Prices, price_nusd, prices_of
from proxy.usage.tokens import Usage
from tests.usage.test_response_usage import pusd, tokens


def test_prices_are_exact() -> None:
    model = ModelConfig(
        "a/b", "a", "b", input_price_usd_per_mtok=0.075, cached_input_price_usd_per_mtok=0.01875,
        output_price_usd_per_mtok=0.3,
    )  # fmt: skip
    prices = prices_of(model)
    assert prices == Prices(75_000, 18_750, 300_000, None)
    assert price_nusd(Usage(1000, 400, 0, 10, 0), prices) == 600 * 75 + 400 * 18.75 + 10 * 300
    assert price_nusd(Usage(1, 1), prices) == 19  # 18.75 nano-USD


def test_cached_tokens_cost_the_input_price_where_no_other_is_given() -> None:
    prices = prices_of(ModelConfig("a/b", "a", "b", input_price_usd_per_mtok=2.0))
    assert price_nusd(Usage(1000, 400), prices) == 2_000_000
    assert price_nusd(Usage(1000), prices_of(ModelConfig("a/b", "a", "b"))) is None
    free = prices_of(ModelConfig("a/b", "a", "b", input_price_usd_per_mtok=0, output_price_usd_per_mtok=0.0))
    assert price_nusd(Usage(1000, 0, 0, 500), free) == 0


def apart(**prices: float | None) -> Prices:
    return prices_of(
        ModelConfig("a/b", "a", "b", **{f"{k}_price_usd_per_mtok": v for k, v in prices.items()})
    )


def test_parts_cost_what_the_whole_does_where_no_other_price_is_given() -> None:
    plain_prices = apart(input=2.0, output=10.0)
    assert plain_prices == apart(input=2.0, output=10.0, cache_write=2.0, reasoning=10.0, audio_output=10.0)
    assert plain_prices.parts is None
    usage = Usage(100, 10, 20, 50, 15, False, 30, 25)
    assert price_nusd(usage, plain_prices) == 100 * 2000 + 50 * 10_000
    prices = apart(input=2.0, output=10.0, cache_write=2.5)
    assert prices.parts == PartPrices(2_500_000, 10_000_000, 2_000_000, 10_000_000)
    assert price_nusd(usage, prices) == 100 * 2000 + 20 * 500 + 50 * 10_000
    prices = apart(
        input=2.0, cached_input=1.0, output=10.0, reasoning=4.0, audio_input=8.0, audio_output=40.0
    )
    assert price_nusd(usage, prices) == (
        40 * 2000 + 10 * 1000 + 20 * 2000 + 30 * 8000 + 10 * 10_000 + 15 * 4000 + 25 * 40_000
    )


def test_a_model_with_some_prices_is_charged_by_those() -> None:
    """Half a price must not make a model free: a key's limit in dollars would never end."""
    usage = Usage(1000, 400, 0, 50)
    assert price_nusd(usage, apart(input=1.0)) == 1_000_000
    assert price_nusd(usage, apart(output=2.0)) == 100_000
    assert price_nusd(usage, apart(cached_input=0.5)) == 200_000
    assert price_nusd(usage, apart(cached_input=0.5, output=2.0)) == 300_000
    assert price_nusd(usage, apart(input=0.0)) == 0
    assert price_nusd(usage, apart()) is None
    speech = apart(input=0.6, audio_output=12.0)
    assert price_nusd(Usage(1000, 0, 0, 500, 0, False, 0, 500), speech) == 600_000 + 6_000_000
    assert price_nusd(Usage(1000, 0, 0, 500, 0, False, 0, 499), speech) == 600_000 + 499 * 12_000
    heard = apart(audio_input=6.0, output=10.0)
    assert price_nusd(Usage(10, 0, 0, 1, 0, False, 10), heard) == 60_000 + 10_000
    assert price_nusd(Usage(11, 0, 0, 1, 0, False, 10), heard) == 60_000 + 10_000
    assert price_nusd(Usage(1000, 0, 0, 1, 1), apart(input=1.0)) == 1_000_000
    assert price_nusd(Usage(1000, 0, 0, 1, 1), apart(input=1.0, reasoning=0.0)) == 1_000_000


@given(st.tuples(*[tokens] * 7), st.tuples(*[pusd] * 7), st.booleans())
def test_a_price_is_the_exact_fraction_rounded_half_up(
    counted: tuple[int, ...], costs: tuple[int, ...], are_parts_apart: bool
) -> None:
    rest, cached, written, heard, text, reasoning, spoken = counted
    usage = Usage(
        rest + cached + written + heard, cached, written, text + reasoning + spoken, reasoning, False,
        heard, spoken,
    )  # fmt: skip
    given_pusd, cached_pusd, written_pusd, heard_pusd, output_pusd, reasoning_pusd, spoken_pusd = costs
    parts = PartPrices(written_pusd, reasoning_pusd, heard_pusd, spoken_pusd)
    if not are_parts_apart:
        costs = (given_pusd, cached_pusd, given_pusd, given_pusd, output_pusd, output_pusd, output_pusd)
    exact = sum(Fraction(count * cost, 1000) for count, cost in zip(counted, costs, strict=True))
    prices = Prices(given_pusd, cached_pusd, output_pusd, parts if are_parts_apart else None)
    assert price_nusd(usage, prices) == floor(exact + Fraction(1, 2))


@given(st.tuples(*[st.none() | st.integers(0, 10**10)] * 7))
def test_prices_are_exact_to_six_decimals(written: tuple[int | None, ...]) -> None:
    """Written in USD per million tokens with up to six decimals, so many pico-USD a token."""
    names = ("input", "cached_input", "output", "cache_write", "reasoning", "audio_input", "audio_output")
    usd = {name: None if one is None else one / 10**6 for name, one in zip(names, written, strict=True)}
    given_pusd, cached, output, *others = written
    prices = apart(**usd)
    assert prices[:3] == (given_pusd, given_pusd if cached is None else cached, output)
    usual = (given_pusd, output, given_pusd, output)
    expected = tuple(b if a is None else a for a, b in zip(others, usual, strict=True))
    assert (prices.parts or usual) == expected
