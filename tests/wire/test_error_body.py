"""What an error's body says, in the shapes that providers write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.strikes import names_account, says_gone
from proxy.wire.error_body import error_words, named_window

TOO_LONG = "context_length_exceeded"
SPEAKING = ("error", "code", "type", "status", "reason", "message", "metadata", "details", "param")
GOOGLE = {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"code": "model_not_found", "type": "invalid_request_error"}},
         "model_not_found invalid_request_error"),
        ({"error": {"code": "model_not_found", "param": "model"}}, "model_not_found"),
        ({"error": {"code": "model_not_found", "param": "tools[0].model"}}, ""),
        ({"type": "error", "error": {"type": "not_found_error", "message": "x"}}, "error not_found_error"),
        ({"error": GOOGLE}, "invalid_argument api_key_invalid"),
        ([{"error": GOOGLE}], "invalid_argument api_key_invalid"),
        ({"error": {"code": "DeploymentNotFound", "message": "gone"}}, "deploymentnotfound"),
        ({"object": "error", "type": "NotFoundError", "code": 404}, "notfounderror"),
        ({"error": "model 'x' not found"}, ""),
        ({"error": {"code": 402, "message": "Insufficient Balance"}}, ""),
        ({"error": {"code": 403, "metadata": {"flagged_input": "x", "reasons": []}}}, "moderation"),
        ({"error": {"code": "context_length_exceeded"}}, TOO_LONG),
        ({"error": {"message": "This model's maximum context length is 4096 tokens."}}, TOO_LONG),
        ({"type": "error", "error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}},
         "error " + TOO_LONG),
        ({"error": {"message": "The input token count (9) exceeds the maximum"}}, TOO_LONG),
        ({"error": {"code": None, "type": 7, "details": {"reason": "API_KEY_INVALID"}}}, ""),
        ({"x": {"code": "invalid_api_key"}}, ""),
        ([], ""), ("invalid_api_key", ""), ({"code": "insufficient_quota"}, "insufficient_quota"),
    ],
)  # fmt: skip
def test_its_words(body, words):
    assert error_words(json.dumps(body).encode()) == frozenset(words.split())


@pytest.mark.parametrize(
    ("message", "window"),
    [
        ("This model's maximum context length is 8192 tokens.", 8192),
        ("This endpoint's maximum context length is 131072 tokens.", 131_072),
        ("Prompt contains 40000 tokens and is too large for model with 32768 maximum context length", 32_768),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 4096),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200_000),
        ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease it", 200_000),
        ("The input token count (12) exceeds the maximum number of tokens allowed (1048576).", 1_048_576),
        ("Your input exceeds the context window of this model.", 0),
    ],
)  # fmt: skip
def test_the_window_that_it_names(message, window):
    body = json.dumps({"error": {"message": message}}).encode()
    assert TOO_LONG in error_words(body)
    assert named_window(body) == window


@pytest.mark.parametrize(
    ("body", "window"),
    [
        ({"error": {"message": "the request exceeds the available context size", "n_ctx": 4096}}, 4096),
        ({"error": {"n_ctx": "4096"}}, 0), ({"error": {"n_ctx": -1}}, 0),
        ({"error": "x"}, 0), ([], 0), (7, 0),
        ({"error": {"message": "maximum context length is 123456789 tokens"}}, 0),
    ],
)  # fmt: skip
def test_the_window_as_a_field_and_nonsense(body, window):
    assert named_window(json.dumps(body).encode()) == window


@pytest.mark.parametrize(
    ("word", "names", "gone"),
    [
        ("invalid_api_key", True, False), ("authentication_error", True, False),
        ("unauthenticated", True, False), ("account_deactivated", True, True),
        ("model_not_found", True, True), ("insufficient_quota", True, True),
        ("not_found_error", False, False), ("401", False, False),
    ],
)  # fmt: skip
def test_which_name_the_account_or_the_model(word, names, gone):
    assert (names_account(frozenset((word,))), says_gone(frozenset((word,)))) == (names, gone)


OTHER_NAMES = st.text(max_size=8).filter(lambda name: name not in SPEAKING)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(OTHER_NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(ANY_JSON)
def test_fields_of_other_names_say_nothing(value):
    assert not error_words(json.dumps(value).encode())


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(SPEAKING), ANY_JSON).map(lambda it: json.dumps(it).encode())
)
def test_whatever_a_provider_says_is_read_as_words(body):
    assert 0 <= named_window(body) < 10**8
    assert all(0 < len(word) <= 200 and word == word.lower() for word in error_words(body))
