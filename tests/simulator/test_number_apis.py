"""The simulated APIs that answer with numbers."""

import base64
import contextlib
import random
from array import array

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.simulator import number_apis
from proxy.simulator.turns import Conditions

VALUES = st.none() | st.booleans() | st.integers(-2, 99) | st.text(max_size=5)
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)


def answer(handler, body):
    return orjson.loads(handler(body, Conditions(random.Random(1), 1_700_000_000)).body)


def embed(**body):
    return answer(number_apis.embeddings, {"model": "text-embedding-3-small"} | body)


def test_base64_and_float_are_the_same_numbers():
    packed = embed(input="x", encoding_format="base64")["data"][0]["embedding"]
    assert array("f", base64.b64decode(packed)).tolist() == embed(input="x")["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("value", "tokens"),
    [("abcdefgh", [2]), (["a", "b"], [1, 1]), ([1, 2, 3], [3]), ([[1, 2], [3]], [2, 1])],
)
def test_inputs(value, tokens):
    reply = embed(input=value, dimensions=8)
    assert [row["index"] for row in reply["data"]] == list(range(len(tokens)))
    assert all(len(row["embedding"]) == 8 for row in reply["data"])
    assert reply["usage"] == {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"input": ""}, {"input": []}, {"input": [[]]}, {"input": [1, "a"]}, {"input": ["a", 1]},
        {"input": 5}, {"input": ["a"] * 2049}, {"input": "a", "dimensions": 1537},
        {"input": "a", "encoding_format": "int8"},
    ],
)  # fmt: skip
def test_bad_inputs(body):
    with pytest.raises(BadRequest):
        embed(**body)


def test_moderation_of_parts_is_one_result():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert len(answer(number_apis.moderations, {"input": parts})["results"]) == 1
    reply = answer(number_apis.moderations, {"input": "a"})
    assert reply["model"] == "omni-moderation-latest"
    (result,) = reply["results"]
    assert set(result["categories"]) == set(result["category_scores"])
    with pytest.raises(BadRequest):
        answer(number_apis.moderations, {})


def test_rerank():
    body = {"model": "rerank", "query": "Red fish", "documents": ["x", {"text": "the red fish"}, "red"]}
    reply = answer(number_apis.rerank, body | {"return_documents": True})
    assert [row["index"] for row in reply["results"]] == [1, 2, 0]
    assert reply["results"][0]["document"] == {"text": "the red fish"}
    assert reply["usage"]["total_tokens"] == 7
    for mistake in ({"documents": [5]}, {"documents": []}, {"query": None}, {"top_n": 0}):
        with pytest.raises(BadRequest):
            answer(number_apis.rerank, body | mistake)


def test_models():
    rows = orjson.loads(number_apis.model_list())["data"]
    assert {"id", "object", "created", "owned_by"} == set(rows[0])
    assert number_apis.model_row("unknown/model")["owned_by"] == "simulator"


@settings(max_examples=200)
@given(
    st.sampled_from([number_apis.embeddings, number_apis.moderations, number_apis.rerank]),
    st.dictionaries(st.sampled_from(["input", "dimensions", "documents", "query", "top_n"]), JSON),
)
def test_any_body_is_answered_or_refused(handler, body):
    with contextlib.suppress(BadRequest):
        assert answer(handler, {"model": "text-embedding-3-small"} | body)
