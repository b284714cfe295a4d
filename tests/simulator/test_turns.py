"""Reading a request and letting a simulated model answer it."""

import json
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.simulator import turns as simturns
from proxy.simulator.turns import Conditions, deltas, dumps, event, parse_body, take_turn


def turn(limit=None, model="gpt-4o", prompt=10, chunks=None, **more):
    return take_turn(Conditions(random.Random(3), 1_700_000_000, chunks), model, prompt, limit, **more)


def test_events_and_what_only_orjson_refuses():
    assert event(b"{}") == b"data: {}\n\n"
    assert event(b"{}", "ping") == b"event: ping\ndata: {}\n\n"
    assert parse_body(b'{"a":1E400}') == {"a": float("inf")}
    assert dumps(parse_body(b'{"a":"\\ud800"}')) == b'{"a": "\\ud800"}'


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"a":NaN}', b'{"a":"\xff"}', b"[" * 100_000])
def test_no_object_is_a_400(body):
    with pytest.raises(BadRequest) as caught:
        parse_body(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [0, -1, True, "5", 1.5, [], {}])
def test_counts(value):
    with pytest.raises(BadRequest) as caught:
        simturns.count_of({"max_tokens": value}, "max_tokens")
    assert caught.value.param == "max_tokens"


def test_the_first_count_given_holds():
    assert simturns.count_of({"a": None, "b": 2, "c": 3}, "a", "b", "c") == 2
    assert simturns.count_of({}, "a") is None


def test_lists_and_models():
    for body in ({}, {"x": "no"}, {"x": []}, {"x": {}}):
        with pytest.raises(BadRequest):
            simturns.list_of(body, "x")
    for body in ({}, {"model": ""}, {"model": None}, {"model": {}}, {"model": "x" * 257}):
        with pytest.raises(BadRequest):
            simturns.model_of(body)
    assert simturns.model_of({}, "default") == "default"


def test_a_limit_cuts_the_answer():
    assert turn().finish == "stop"
    assert turn(5).finish == "length"
    assert turn(5).output_tokens == 5
    assert turn(chunks=5).finish == "stop"
    assert len(turn(chunks=5).pieces) == 5
    assert turn(3, chunks=5).output_tokens == 3


def test_hidden_reasoning_counts_against_the_limit_and_takes_its_time():
    free = turn(model="o3")
    assert free.reasoning_tokens > 100
    assert free.first_s > free.reasoning_tokens * free.piece_s
    cut = turn(50, model="o3")
    assert (cut.reasoning_tokens, cut.pieces, cut.finish) == (50, [], "length")
    usage = free.usage()
    hidden = usage["completion_tokens_details"]["reasoning_tokens"]
    assert usage["completion_tokens"] == len(free.pieces) + hidden
    # A long prompt waits longer.
    assert turn(prompt=100_000).first_s == pytest.approx(turn(prompt=0).first_s + 5)


def test_a_call_is_made_of_pieces_too():
    call = turn(call=("look", '{"a":"bcdefgh"}'))
    assert call.text == '{"a":"bcdefgh"}'
    assert (call.tool, call.finish, len(call.pieces)) == ("look", "tool_calls", 4)


@given(st.lists(st.text()))
def test_deltas_are_the_template_with_its_hole_filled(pieces):
    template = {"a": {"b": simturns.HOLE}, "c": 1}
    pieces = [piece.encode(errors="ignore").decode() for piece in pieces]
    plain = [orjson.loads(data[6:]) for data in deltas(template, pieces)]
    assert plain == [{"a": {"b": piece}, "c": 1} for piece in pieces]
    numbered = list(deltas(template, pieces, "x", first_number=7))
    assert all(data.startswith(b"event: x\ndata: {") and data.endswith(b"}\n\n") for data in numbered)
    values = [json.loads(data.partition(b"data: ")[2]) for data in numbered]
    assert [value["sequence_number"] for value in values] == list(range(7, 7 + len(pieces)))
    assert [value["a"]["b"] for value in values] == pieces
