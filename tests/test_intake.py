"""The body of a request as it comes in."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.intake import RequestBody, facts_of, text_bytes
from proxy.outline import keys_of

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
    assert (body.size, body.done, body.whole()) == (len(BODY), True, BODY)
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


def test_a_model_is_put_in():
    body = take([b'{"a":', b"1}"])
    assert body.found is None
    parts, growth = body.with_model(body.held or [], b'"b"')
    assert json.loads(b"".join(parts)) == {"model": "b", "a": 1}
    assert growth == len(b"".join(parts)) - body.size


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


def test_text_bytes_leave_out_large_data_urls():
    image = b"QUJD" * 5000
    body = b'{"a":"data:image/png;base64,' + image + b'"}'
    assert text_bytes([body], len(body)) == len(body) - len(b";base64,") - len(image)
    assert text_bytes([b'{"a":"data:image/png;base64,QUJD"}'], 34) == 34


@pytest.mark.parametrize("checks", [True, False])
def test_facts_look_only_for_what_matters(checks):
    image = b'{"tools":[],"x":{"type":"image_url","image_url":"data:x;base64,' + b"QUJD" * 50 + b'"}}'
    window = 100 if checks else None
    pool = SimpleNamespace(min_context=window, needs_vision_check=checks, needs_tools_check=checks)
    facts = facts_of([image], image, keys_of(image), pool, "chat", True, 1.0)
    assert (facts.images, facts.tools) == (checks, checks)
    assert facts.data_url_bytes == (208 if checks else 0)
    assert (facts.endpoint, facts.streamed, facts.body_bytes, facts.now) == ("chat", True, len(image), 1.0)
    assert facts.caller == b""
    assert facts_of([image], image, keys_of(image), pool, "chat", True, 1.0, b"7").caller == b"7"


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
