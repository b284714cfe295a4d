"""Pace, length, vocabulary, token counts and vectors of the simulated models."""

import math
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.parse import parse
from proxy.simulator import profiles as models

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "text", "content", "x"]), inner),
)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("anthropic/claude-3-5-sonnet-20241022", "claude-3-5-sonnet"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b"),
        ("models/gemini-flash", "gemini-flash"),
    ],
)
def test_the_longest_prefix_names_the_profile(name, prefix):
    assert models.profile_of(name) is models.PROFILES[prefix]
    assert models.profile_of("nobody-knows") is models.DEFAULT


def test_draws_follow_the_profile():
    rng, profile = random.Random(1), models.PROFILES["gpt-4o"]
    draws = [models.draw(profile, rng) for _ in range(4000)]
    assert statistics.median(d.ttft_s for d in draws) == pytest.approx(profile.ttft_s, rel=0.03)
    assert statistics.median(d.tokens_per_s for d in draws) == pytest.approx(profile.tokens_per_s, rel=0.03)
    assert statistics.median(d.output_tokens for d in draws) == pytest.approx(profile.output_tokens, rel=0.05)
    spread = statistics.stdev(math.log(d.ttft_s) for d in draws)
    assert spread == pytest.approx(profile.sigma, rel=0.05)
    assert 0.3 < sum(d.cached_share > 0 for d in draws) / len(draws) < 0.5
    assert len({d.id for d in draws}) == len(draws)


def test_what_a_profile_is_never_shifts_the_chance_of_the_next_request():
    one, two = random.Random(5), random.Random(5)
    models.draw(models.PROFILES["o3"], one)
    models.draw(models.PROFILES["mistral-embed"], two)
    assert one.getstate() == two.getstate()


def test_only_long_prompts_are_cached_and_in_whole_steps():
    assert models.cached_tokens(1023, 1.0) == 0
    assert models.cached_tokens(1300, 0.99) == 1280
    assert models.cached_tokens(1300, 0.0) == 0


def test_tokens_of_a_prompt():
    assert models.text_tokens("") == 0
    assert models.text_tokens("abcde") == 2
    assert models.text_tokens("éé") == 1
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    assert models.content_tokens([{"type": "text", "text": "abcd"}, image, "abcd"]) == 767
    assert models.content_tokens([{"type": "input_audio"}]) == models.AUDIO_TOKENS
    assert models.message_tokens([{"role": "user", "content": "abcd"}]) == 8
    assert models.message_tokens([{"role": "assistant", "tool_calls": [{}]}]) == 8
    assert models.content_tokens([{"type": "tool_result", "content": [{"text": "abcd"}]}]) == 1


def test_deep_nesting_counts_nothing():
    deep = []
    for _ in range(900):
        deep = [{"content": deep}]
    assert models.content_tokens(deep) == 0
    assert models.json_tokens(deep) == 0


@given(st.lists(JSON))
def test_any_messages_are_counted(messages):
    assert models.message_tokens(messages) >= models.REPLY_TOKENS
    assert len(models.topic_of(messages)) <= models.TOPIC_CHARS


def test_topic():
    assert models.topic_of([{"content": "a\n  b"}, {"content": [{"type": "image_url"}]}]) == "a b"
    assert models.topic_of([{"content": [{"text": "first"}, {"text": "last"}]}]) == "last"
    assert models.topic_of(["plain"]) == "plain"
    assert models.topic_of([]) == ""


@given(st.integers(0, 9000), st.integers(0, 2**32))
def test_an_answer_of_an_exact_length(count, seed):
    chance = models.draw(models.DEFAULT, random.Random(seed))
    assert len(models.compose("m", "t", chance, count)) == count


@given(st.integers(0, 2**32))
def test_an_answer_of_natural_length_ends_its_sentence(seed):
    chance = models.draw(models.DEFAULT, random.Random(seed))
    pieces = models.compose("m", "a topic", chance)
    text = "".join(pieces)
    assert text.startswith('This is a simulated answer in the name of m. You asked: "a topic".')
    assert text.endswith(".")
    assert len(pieces) >= chance.output_tokens


def test_vectors():
    one = models.vector("text-embedding-3-large", b"x")
    assert len(one) == 3072
    assert one == models.vector("text-embedding-3-large", b"x")
    assert one != models.vector("text-embedding-3-large", b"y")
    short = models.vector("text-embedding-3-large", b"x", 256)
    assert math.hypot(*short) == pytest.approx(1, abs=1e-6)
    scale = short[0] / one[0]
    assert list(short) == pytest.approx([scale * number for number in one[:256]], rel=1e-5)
    assert len(models.vector("mistral-embed", b"x")) == 1024


def test_every_model_that_ships_has_a_profile_of_its_own():
    shipped = parse((Path(__file__).parents[2] / "routes.toml").read_text()).models.values()
    assert [model.upstream for model in shipped if models.profile_of(model.upstream) is models.DEFAULT] == []
