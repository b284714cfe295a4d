"""What an error's body says, in the shapes that providers write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.strikes import names_account, says_gone
from proxy.wire.error_body import error_words

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
    assert all(0 < len(word) <= 200 and word == word.lower() for word in error_words(body))
