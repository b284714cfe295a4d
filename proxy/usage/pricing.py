"""Prices as integers, and the cost of a usage.

Prices become pico-USD per token when the configuration is loaded; costs are nano-USD.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from proxy.config.settings import ModelConfig
from proxy.usage.tokens import Usage


class PartPrices(NamedTuple):
    """Prices of parts of input and output, in pico-USD per token; None where unknown."""

    cache_write_pusd: int | None
    reasoning_pusd: int | None
    audio_input_pusd: int | None
    audio_output_pusd: int | None


class Prices(NamedTuple):
    """Prices of a model in pico-USD (1e-12) per token; None where the configuration has none.

    ``parts`` is None for most models, whose parts all cost what the rest does: nothing to look at for them.
    """

    input_pusd: int | None
    cached_pusd: int | None
    output_pusd: int | None
    parts: PartPrices | None = None


def prices_of(model: ModelConfig) -> Prices:
    """The model's prices as integers: exact up to six decimals of a USD per million tokens."""
    given = _pusd_per_token(model.input_price_usd_per_mtok)
    output = _pusd_per_token(model.output_price_usd_per_mtok)
    parts = PartPrices(
        _pusd_per_token(model.cache_write_price_usd_per_mtok, given),
        _pusd_per_token(model.reasoning_price_usd_per_mtok, output),
        _pusd_per_token(model.audio_input_price_usd_per_mtok, given),
        _pusd_per_token(model.audio_output_price_usd_per_mtok, output),
    )
    cached = _pusd_per_token(model.cached_input_price_usd_per_mtok, given)
    return Prices(given, cached, output, None if parts == (given, output, given, output) else parts)


def price_nusd(usage: Usage, prices: Prices) -> int | None:
    """Return the cost of a response in nano-USD, rounded half up. Of a model with some prices only, tokens
    without one cost nothing; None where it has no price at all."""
    input_pusd, cached_pusd, output_pusd, parts = prices  # not by name: each costs a call
    if parts is not None:
        return _price_apart_nusd(usage, prices, parts)
    given, cached, output = usage.input_tokens, usage.cached_tokens, usage.output_tokens
    if input_pusd is None or cached_pusd is None:
        if output_pusd is None and cached_pusd is None:
            return None
        cost_pusd = cached * (cached_pusd or 0)
    else:
        cost_pusd = (given - cached) * input_pusd + cached * cached_pusd
    if output and output_pusd is not None:
        cost_pusd += output * output_pusd
    return (cost_pusd + 500) // 1000


def saved_nusd(usage: Usage, prices: Prices) -> int:
    """Return what cached tokens would have cost uncached, less what they did cost; 0 where a price is not
    known, and where caching costs more."""
    input_pusd, cached_pusd, _, _ = prices
    if input_pusd is None or cached_pusd is None or cached_pusd >= input_pusd:
        return 0
    return (usage.cached_tokens * (input_pusd - cached_pusd) + 500) // 1000


def _price_apart_nusd(usage: Usage, prices: Prices, parts: PartPrices) -> int:
    """Return the cost with each part at its own price; some part has one, else ``parts`` would be None."""
    given, cached, written = usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens
    output, reasoning = usage.output_tokens, usage.reasoning_tokens
    audio_input, audio_output = usage.audio_input_tokens, usage.audio_output_tokens
    cost_pusd = 0
    for tokens, pusd in (
        (given - cached - written - audio_input, prices.input_pusd),
        (cached, prices.cached_pusd),
        (written, parts.cache_write_pusd),
        (audio_input, parts.audio_input_pusd),
        (output - reasoning - audio_output, prices.output_pusd),
        (reasoning, parts.reasoning_pusd),
        (audio_output, parts.audio_output_pusd),
    ):
        if tokens and pusd is not None:
            cost_pusd += tokens * pusd
    return (cost_pusd + 500) // 1000


def _pusd_per_token(usd_per_mtok: float | None, default: int | None = None) -> int | None:
    """1 USD per 1e6 tokens is 1e6 times 1e-12 USD per token. Decimal of repr: 0.1 is meant as written."""
    return default if usd_per_mtok is None else round(Decimal(repr(usd_per_mtok)) * 1_000_000)
