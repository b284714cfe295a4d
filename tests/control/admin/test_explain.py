"""Where a request would go: the same choice as the data plane's, told with its reasons."""

from __future__ import annotations

import json

import pytest

from proxy.config.parse import parse
from proxy.control.admin.explain import explain_request
from proxy.control.steps import done
from proxy.errors import BadRequest, UnknownModel
from proxy.routing.catalog import Catalog

TEXT = """
[providers.a]
base_url = "http://a/v1"
[providers.b]
base_url = "http://b/v1"
[providers.c]
base_url = "http://c/v1"
api_key_env = "C_KEY"
[models."a/m"]
input_price = 1
output_price = 1
context_window = 1000
[models."b/n"]
input_price = 2
output_price = 2
[models."c/o"]
[models."a/e"]
capabilities = ["embeddings"]
[aliases]
both = ["a/m", "b/n", "c/o"]
"""


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(parse(TEXT), {"a": True, "b": True}, 0)


def ask(catalog, body, **how):
    return done(explain_request(catalog, json.dumps(body).encode(), 10.0, **how))


@pytest.mark.parametrize(("body", "how"), [
    ({"model": "both", "strategy": "cost"}, {}),
    ({"model": "both"}, {"strategy": "cost"}),
    ({"model": "both", "strategy": "latency"}, {"strategy": "cost"}),
    ({"body": {"model": "both"}, "strategy": "cost", "endpoint": "chat"}, {}),
    ({"body": {"model": "both"}, "strategy": None, "endpoint": None}, {"strategy": "cost"}),
])  # fmt: skip
def test_ways_to_ask(catalog, body, how):
    answer = ask(catalog, body, **how)
    assert [answer[key] for key in ("model", "kind", "endpoint", "stream", "strategy", "choice")] == [
        "both", "alias", "chat", False, "cost", "a/m",
    ]  # fmt: skip
    assert answer["why"]
    first, second, left_out = answer["candidates"]
    assert (first["id"], first["provider"], first["unit"], first["skipped"]) == ("a/m", "a", "USD", None)
    assert first["score"] < second["score"]
    assert (left_out["id"], left_out["score"]) == ("c/o", None)
    assert left_out["skipped"] == "provider c has no key: set C_KEY; it is left out"


def test_the_request_itself_counts_and_rows_are_those_of_its_endpoint_and_stream(catalog):
    long = {"model": "both", "messages": [{"role": "user", "content": "x " * 9000}]}
    for sent in (long, {"body": long}):
        answer = ask(catalog, sent, strategy="cost")
        assert answer["choice"] == "b/n"
        assert "1000 tokens" in answer["candidates"][0]["skipped"]
    catalog.deployments["a/m"].row("chat", True).sent(9.0)
    rows = {}
    for stream in (True, False):
        answer = ask(catalog, {"model": "both", "stream": stream})
        rows[stream] = answer["candidates"][0]["row"]["in_flight"]
    assert rows == {True: 1, False: 0}


def test_a_pinned_model_also_without_a_key(catalog):
    answer = ask(catalog, {"model": "a/m", "stream": True})
    assert (answer["kind"], answer["strategy"], answer["choice"]) == ("pinned", "pinned", "a/m")
    assert (answer["candidates"][0]["score"], answer["candidates"][0]["unit"]) == (None, None)
    answer = ask(catalog, {"model": "c/o"})
    reason = "provider c has no key: set C_KEY; it is left out"
    assert (answer["choice"], answer["why"], answer["candidates"][0]["skipped"]) == (None, reason, reason)


def test_no_turn_is_taken(catalog):
    pool = catalog.resolve("both", "chat", "round-robin")
    for _ in range(3):
        assert ask(catalog, {"model": "both", "strategy": "round-robin"})["candidates"][0]["unit"] == "turns"
    assert pool.turns == [0] * len(pool.members)


def test_a_body_may_be_nested_as_deeply_as_one_that_is_sent(catalog):
    for form in (b"%b", b'{"body":%b}'):
        sent = form % (b'{"model":"both","a":' + b"[" * 998 + b"]" * 998 + b"}")
        assert done(explain_request(catalog, sent, 0.0))["model"] == "both"


@pytest.mark.parametrize(("sent", "how", "said"), [
    (b"nonsense", {}, "JSON object"),
    (b'{"model":"both"}}', {}, "not allowed"),
    (b'{"model":"both"', {}, "ends before"),
    (b'{"model":"both', {}, "ends before"),
    (b"[]", {}, "JSON object"),
    (b"{}", {}, "names no model"),
    (b'{"model":1}', {}, "'model' must be text"),
    (b'{"model":"both","strategy":1}', {}, "'strategy' must be text"),
    (b'{"model":"both"}', {"strategy": "fast"}, "Unknown strategy 'fast'"),
    (b'{"model":"both"}', {"endpoint": "talk"}, "'endpoint' must be one of chat"),
    (b'{"model":"both"}', {"endpoint": "embeddings"}, "can't be used for embeddings"),
    # also where another goes before it
    (b'{"model":"both","strategy":"fast"}', {"strategy": "cost"}, "'strategy' must be one of cost"),
    (b'{"model":"both","endpoint":"talk"}', {"endpoint": "chat"}, "'endpoint' must be one of chat"),
    (b'{"model":1,"body":{"model":"both"}}', {}, "'model' must be text"),
    (b'{"model":"both","body":[]}', {}, "'body' must be an object"),
    (b'{"model":"both","body":null}', {}, "'body' must be an object"),
])  # fmt: skip
def test_what_is_no_request(catalog, sent, how, said):
    with pytest.raises(BadRequest, match=said):
        done(explain_request(catalog, sent, 0.0, **how))


def test_the_endpoint_in_the_body_counts(catalog):
    for sent in ({"model": "both"}, {"body": {"model": "both"}}):
        assert ask(catalog, sent | {"endpoint": "completions"})["endpoint"] == "completions"
        assert ask(catalog, sent | {"endpoint": None})["endpoint"] == "chat"


def test_a_head_is_explained_where_it_is_asked_for(catalog):
    assert ask(catalog, {"model": "both"})["forwarding"] is None
    # In a body these are the body's: rerank has a query.
    assert ask(catalog, {"model": "both", "query": "a", "headers": 1})["forwarding"] is None
    rows = ask(catalog, {"body": {"model": "both"}, "headers": ["X-A: 1"], "query": "beta=1"})["forwarding"]
    assert [(row["provider"], row["name"], row["passes"]) for row in rows] == [
        (provider, name, passes) for provider in "abc" for name, passes in (("X-A", False), ("beta", True))
    ]
    assert ask(catalog, {"body": {"model": "a/m"}, "headers": None})["forwarding"] == []
    with pytest.raises(BadRequest, match="must be a list of lines"):
        ask(catalog, {"body": {"model": "both"}, "headers": ["X"]})


def test_an_unknown_model(catalog):
    with pytest.raises(UnknownModel, match="Did you mean 'both'"):
        ask(catalog, {"model": "bot"})
