"""The body of a request as it comes in."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.relay.exchange import request_body
from proxy.relay.exchange.request_body import RequestBody, facts_of
from proxy.wire.include_usage import Edit
from proxy.wire.outline import keys_of
from proxy.wire.output_limits import written_limits
from proxy.wire.references import UNKNOWN
from tests.support.json_texts import bodies, pieces_of

BODY = b'{"messages":[{"model":"inner"}], "model" : "a/b","x":"%s"}' % (b"y" * 50)


def take(pieces: list[bytes]) -> RequestBody:
    body = RequestBody()
    for i, piece in enumerate(pieces):
        body.scan(piece, i == len(pieces) - 1)
        body.keep(piece, 1 << 20)
    return body


@given(st.lists(st.integers(0, len(BODY)), max_size=5))
def test_the_model_is_replaced_at_any_split(cuts):
    edges = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[a:b] for a, b in pairwise(edges)]
    body = take(pieces)
    assert (body.size, body.done, b"".join(body.held or [])) == (len(BODY), True, BODY)
    assert body.found is not None
    assert body.found.name == "a/b"
    parts, growth = body.with_model(body.held or [], b'"upstream"')
    assert b"".join(parts) == BODY.replace(b'"a/b"', b'"upstream"')
    assert growth == len(b'"upstream"') - len(b'"a/b"')


def test_a_large_body_is_not_copied_together():
    pieces = [b'{"model":"a","x":"', b"y" * 100_000, b'"}']
    parts, _ = take(pieces).with_model(pieces, b'"b"')
    assert any(part is pieces[1] for part in parts)
    assert b"".join(parts) == b"".join(pieces).replace(b'"a"', b'"b"')


@given(bodies(models=0), st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=200)
def test_a_model_is_put_in(whole, cuts):
    body = take(pieces_of(whole, cuts))
    assert body.found is None
    parts, growth = body.with_model(body.held or [], b'"openai/gpt-4o"')
    sent = b"".join(parts)
    assert json.loads(sent) == {"model": "openai/gpt-4o", **json.loads(whole)}
    assert growth == len(sent) - body.size
    for number in (b'{"n":1E400}', b'{"s":"\\ud800"}', b'{"d":' + b"[" * 900 + b"]" * 900 + b"}"):
        parts, _ = take([number]).with_model([number], b'"m"')
        assert b"".join(parts) == b'{"model":"m",' + number[1:]


@given(bodies(models=1) | bodies(models=0), st.lists(st.integers(0, 1 << 16), max_size=6), st.booleans())
@settings(max_examples=200)
def test_the_model_and_the_wish_for_usage_are_put_in_together(whole, cuts, has_options):
    if has_options:
        at = whole.rindex(b"}")
        comma = b"," if json.loads(whole) else b""
        whole = whole[:at] + comma + b'"stream_options":{"include_usage":false}}'
    pieces = pieces_of(whole, cuts)
    body = take(pieces)
    edit = body.asking_for_usage(pieces)
    assert isinstance(edit, Edit)
    parts, growth = body.with_model(pieces, b'"m"', [edit])
    sent = b"".join(parts)
    assert len(sent) == len(whole) + growth
    before = json.loads(whole)
    if before:  # nothing streams that asks for nothing
        assert json.loads(sent) == {**before, "model": "m", "stream_options": {"include_usage": True}}


def test_a_body_that_comes_byte_by_byte_is_held_in_few_pieces():
    whole = b'{"model":"a","b":"' + b"x" * 50_000 + b'"}'
    body = RequestBody()
    for at in range(len(whole)):
        body.scan(whole[at : at + 1], at == len(whole) - 1)
        body.hold(whole[at : at + 1])
    assert body.held is not None
    assert b"".join(body.held) == whole
    assert len(body.held) < 1200


@pytest.mark.parametrize("step", [1 << 20, 100_000, 4000])
def test_a_large_body_is_looked_through_as_it_comes(step, monkeypatch):
    url = b"data:image/png;base64," + b"QUJD" * 100_000
    whole = b'{"model":"a","b":[{"type":"image_url","image_url":"' + url + b'"}],"c":"some text"}'
    body = RequestBody()
    for at in range(0, len(whole), step):
        body.scan(whole[at : at + step], at + step >= len(whole))
        body.hold(whole[at : at + step])
    for name in ("has_images", "has_cache_control", "asks_for_sound", "referred"):
        monkeypatch.setattr(request_body, name, None)  # not once more
    assert body.media_bytes() == len(url)
    assert body.text_bytes() == len(whole) - len(url)
    assert body.media_tokens("chat") == 1100
    assert body.has_images()
    assert not body.has_cache_control()
    assert not body.asks_for_sound()
    assert body.referred("chat") == 0


@pytest.mark.parametrize("step", [1 << 20, 100_000, 4000, 7])
@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize(
    ("part", "has_images", "is_cached", "is_heard", "refers"),
    [
        (b'{"type":"text","text":"a"}', False, False, False, 0),
        (b'{"type":"image_url","image_url":{"url":"http://a"}}', True, False, False, 1),
        (b'{"type":"text","text":"a","cache_control":{}}', False, True, False, 0),
        (b'{"type":"audio"}', False, False, True, 0),
        (b'{"type":"\\u0061udio"}', False, True, True, 0),
        (b'{"type":"file","file":{"file_id":"file-1"}}', False, False, False, UNKNOWN),
    ],
)
def test_what_is_found_in_bodies_of_any_size(step, size, part, has_images, is_cached, is_heard, refers):
    whole = b'{"model":"a","messages":[{"content":[{"text":"%b"},%b]}]}' % (b"x " * (size // 2), part)
    for has_end in (True, False):
        body = RequestBody()
        for at in range(0, len(whole), step):
            body.scan(whole[at : at + step], has_end and at + step >= len(whole))
            body.hold(whole[at : at + step])
        assert (body.has_images(), body.has_cache_control(), body.asks_for_sound()) == (
            has_images, is_cached, is_heard,
        )  # fmt: skip
        assert body.referred("chat") == refers


def test_pieces_are_kept_up_to_a_limit():
    body = RequestBody()
    body.scan(b'{"model":"a","b":"', False)
    body.keep(b'{"model":"a","b":"', 30)
    body.scan(b"x" * 20, False)
    body.keep(b"x" * 20, 30)
    assert body.held is None
    body.keep(b"y", 30)
    assert body.held is None


def test_a_second_model_in_a_later_piece():
    body = RequestBody()
    body.scan(b'{"model":"a",', False)
    assert body.found is not None
    with pytest.raises(BadRequest, match="more than once"):
        body.scan(b'"model":"b"}', True)


@given(st.lists(st.integers(0, 1 << 9), max_size=6), st.booleans(), st.booleans(), st.integers(1, 10**6))
def test_a_limit_is_put_in(cuts, has_model, is_null, limit):
    members = {"model": "x"} if has_model else {}
    members |= {"max_tokens": None} if is_null else {}
    whole = json.dumps(members | {"messages": [{"content": "}"}]}).encode() + b" \n"
    pieces = pieces_of(whole, cuts)
    body = take(pieces)
    parts, growth = body.with_model(pieces, b'"m"', body.limiting(pieces, b'"max_tokens"', limit))
    sent = b"".join(parts)
    assert len(sent) == len(whole) + growth
    pairs = json.loads(sent, object_pairs_hook=list)
    assert [value for key, value in pairs if key == "max_tokens"] == [limit]
    assert dict(pairs)["model"] == "m"
    if not is_null:
        assert pairs[-1] == ("max_tokens", limit)


def test_a_limit_is_put_into_an_empty_body():
    body = take([b"{ }"])
    parts, growth = body.with_model([b"{ }"], b'"m"', body.limiting([b"{ }"], b'"max_tokens"', 5))
    assert (b"".join(parts), growth) == (b'{"model":"m" ,"max_tokens":5}', 26)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("a", 1), ([], 1), (["a"], 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([-1, 2], 1), ([[1, 2], [3]], 2),
     (["a,b", 'c","d'], 2)],
)  # fmt: skip
@pytest.mark.parametrize("key", ["prompt", "pro\\u006dpt", "Prompt"])
def test_prompts_are_counted(prompt, count, key):
    whole = b'{"n":1,"%b" : %b}' % (key.encode(), json.dumps(prompt).encode())
    for pieces in ([whole], [whole[:9], whole[9:]]):
        assert take(pieces).prompts() == count


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"max_tokens":"50"}', b'{"max_tokens":"50","max_tokens":9}'),
        (b'{"max_tokens":5,"max_tokens":null}', b'{"max_tokens":5,"max_tokens":9,"max_tokens":9}'),
        (b'{"Max_Tokens":5}', b'{"Max_Tokens":5,"max_tokens":9}'),
        (b'{"max_tokens": null }', b'{"max_tokens": 9 }'),
        (b'{"max_tokens":null,"max_tokens":null}', b'{"max_tokens":9,"max_tokens":9}'),
    ],
)
def test_a_limit_that_is_no_promise_is_outdone(body, sent):
    taken = take([body])
    parts, _ = taken.with_model([body], b'"m"', taken.limiting([body], b'"max_tokens"', 9))
    assert b"".join(parts) == b'{"model":"m",' + sent[1:]


@pytest.mark.parametrize("gap", [b"%b:", b":%b"])
@pytest.mark.parametrize("white", [4097, 5000, 9000])
def test_a_prompt_that_is_not_looked_at_counts_as_many(white, gap):
    prompts = json.dumps(["a"] * 200, separators=(",", ":")).encode()
    whole = b'{"prompt"%b%b}' % (gap % (b" " * white), prompts)
    for pieces in ([whole], [whole[:3000], whole[3000:]]):
        assert take(pieces).prompts() >= 200


def test_prompts_of_a_long_list_are_never_too_few(monkeypatch):
    monkeypatch.setattr(request_body, "_LISTED_BYTES", 100)
    whole = b'{"prompt":%b}' % json.dumps(["a"] * 500).encode()
    assert 500 <= take([whole]).prompts() <= 1000


def test_what_is_said_of_the_work_is_kept():
    whole = b'{"stream":true,"max_tokens":9,"background" : true,"n":2,"model":"m"}'
    body = take([whole])
    body.forget()
    assert written_limits(body.noted, body.noted_keys) == [(0, 9.0), (5, 1.0), (3, 2.0)]
    for pieces in ([whole[:at], whole[at:]] for at in range(len(whole))):
        cut = take(pieces)
        assert written_limits(cut.noted, cut.noted_keys) == [(0, 9.0), (5, 1.0), (3, 2.0)]
    cut = take([whole[at : at + 1] for at in range(len(whole))])
    assert written_limits(cut.noted, cut.noted_keys) == [(0, 9.0), (5, 1.0), (3, 2.0)]


@pytest.mark.parametrize("key", [b"deferred", b"Deferred", b"deferr\\u0065d"])
@pytest.mark.parametrize("value", [b"true", b"false", b"null"])
def test_how_it_is_spelled_and_where_it_is_cut_changes_no_note(key, value):
    whole = b'{"model":"m","n":1,"%b" :%b,"max_tokens":7}' % (key, value)
    expected = [(3, 1.0), *([(6, 1.0)] if value == b"true" else []), (0, 7.0)]
    for at in range(len(whole)):
        body = take([whole[:at], whole[at:]])
        assert written_limits(body.noted, body.noted_keys) == expected


def test_nothing_is_held_once_it_is_not_needed():
    pieces = [b'{"model":"a","b":"', b"x" * 100_000, b'"}']
    taken = take(pieces)
    assert taken._scanner is None  # it keeps the last of a body for a count
    taken.forget()
    assert taken.held is None
    early = RequestBody()
    early.scan(pieces[0], False)
    early.keep(pieces[0], 1 << 20)
    early.forget()
    assert (early.held, early._scanner) == (None, None)


def test_text_bytes_leave_out_large_data_urls():
    image = b"QUJD" * 5000
    url = b"data:image/png;base64," + image
    body = b'{"url":"%b"}' % url
    assert RequestBody.of(body).text_bytes() == len(body) - len(url)
    assert RequestBody.of(b'{"url":"data:image/png;base64,QUJD"}').text_bytes() == 36
    assert RequestBody.of(body.replace(b"url", b"text")).text_bytes() == len(body) + 1


@pytest.mark.parametrize("checks", [True, False])
def test_facts_look_only_for_what_matters(checks):
    image = b'{"tools":[],"x":{"type":"image_url","image_url":"data:x;base64,' + b"QUJD" * 5000 + b'"}}'
    window = 100 if checks else None
    pool = SimpleNamespace(min_context=window, needs_vision_check=checks, needs_tools_check=checks)
    facts = facts_of(RequestBody.of(image), image, keys_of(image), pool, "chat", True, 1.0)
    assert (facts.images, facts.tools) == (checks, checks)
    assert facts.data_url_bytes == 20_014
    assert (facts.endpoint, facts.streamed, facts.body_bytes, facts.now) == ("chat", True, len(image), 1.0)
    assert facts.caller == b""
    assert (
        facts_of(RequestBody.of(image), image, keys_of(image), pool, "chat", True, 1.0, b"7").caller == b"7"
    )
