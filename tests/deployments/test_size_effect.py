"""The effect of a prompt's size: found where there is one, and only there."""

from random import Random

import pytest

from proxy.deployments.record import Record
from proxy.deployments.row import Row
from proxy.deployments.size_effect import SizeEffect
from proxy.usage.tokens import Usage
from tests.support.deployments import deployment


def taught(base_s: float, s_per_kb: float, *, count: int = 300, seed: int = 1) -> Row:
    """A row that saw prompts of heavy-tailed sizes."""
    row, rng = Row(30.0), Random(seed)
    for number in range(count):
        now, size = 10.0 * number, int(6000 * rng.lognormvariate(0.0, 1.5))
        took_s = (base_s + s_per_kb * size / 1000) * rng.lognormvariate(0.0, 0.4)
        level = row.asked(number, now, size)
        row.first_byte(number, now + took_s, level, size)
    return row


@pytest.mark.parametrize(("base_s", "s_per_kb"), [(0.25, 0.045), (0.7, 0.02), (0.5, 0.1)])
@pytest.mark.parametrize("size", [1000, 20_000, 100_000])
def test_a_line_is_found_at_every_size(base_s: float, s_per_kb: float, size: int) -> None:
    row = taught(base_s, s_per_kb)
    real_s = (base_s + s_per_kb * size / 1000) * 1.083  # the mean over the median of the spread
    assert row.speed.mean_s * row.size_factor(size) == pytest.approx(real_s, rel=0.35)


@pytest.mark.parametrize("first_bytes", [60_000, 500])
def test_whatever_prompts_come_first_the_level_is_found(first_bytes: int) -> None:
    row, rng = Row(30.0), Random(1)
    for number in range(90):
        now, size = 10.0 * number, first_bytes if number < 5 else int(6000 * rng.lognormvariate(0.0, 1.5))
        took_s = (0.25 + 0.045 * size / 1000) * rng.lognormvariate(0.0, 0.3)
        row.first_byte(number, now + took_s, row.asked(number, now, size), size)
    assert row.speed.mean_s * row.size_factor(2000) == pytest.approx(0.35, rel=0.35)


@pytest.mark.parametrize(
    ("count", "slope", "size", "least"),
    [
        (1, 0.0, 10_000, 0.25),
        (1, 0.0, 10, 0.1),
        (1, 0.0, 50_000, 1.0),
        (21, 0.0, 10, 1.0),
        (1, 1e-4, 10, 1.0),
        (0, 0.0, 10, 1.0),
    ],
)
def test_until_a_line_could_show_a_short_prompt_may_take_its_share(
    count: int, slope: float, size: int, least: float
) -> None:
    effect = SizeEffect()
    effect.count, effect.slope, effect.usual_bytes = float(count), slope, 40_000.0 if count else 0.0
    assert effect.least_factor(size) == least


@pytest.mark.parametrize("seed", range(20))
def test_without_an_effect_even_a_long_prompt_is_expected_nearly_as_usual(seed: int) -> None:
    assert 0.5 < taught(0.5, 0.0, seed=seed).size_factor(60_000) < 2.0


def test_few_samples_prove_nothing_and_no_size_is_the_usual_one() -> None:
    assert taught(0.1, 0.1, count=20).size.slope == 0.0
    assert taught(0.1, 0.1).size_factor(0) == 1.0


def test_where_prompts_are_cached_their_size_says_nothing() -> None:
    row = taught(0.25, 0.045)
    assert row.size.slope
    row.charged(4000.0, 10_000, Usage(2500, 2200, 0, 100), None)
    row.asked("next", 4000.0, 50_000)
    row.first_byte("next", 4001.0, 0, 50_000)
    assert row.size_factor(50_000) == 1.0


def test_a_long_wait_for_a_long_prompt_is_not_silence() -> None:
    for size, is_silent in ((150_000, False), (5000, True)):
        row = taught(0.25, 0.045)
        row.asked("next", 4000.0, size)
        assert bool(row.silent_s(4006.0)) is is_silent
        assert row.silent_s(4300.0)  # but nobody waits for ever
        row.left_awaiting("next", 4006.0, patient=True)
        assert not row.waiting
        assert not row.excused


def test_only_streams_have_a_size() -> None:
    assert Record(deployment("a"), "chat", False, 1.0, prompt_bytes=900).prompt_bytes == 0
    late = Record(deployment("a"), "chat", True, 1.0, complete=False)
    late.asked(2.0, 900)
    assert late.prompt_bytes == 900


def test_the_shortest_prompt_still_takes_time() -> None:
    effect = SizeEffect()
    effect.slope, effect.usual_bytes = 1e-4, 50_000.0
    assert effect.factor(0) == pytest.approx(0.1)
