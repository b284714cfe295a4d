"""The list of models in pages, and its rows, as Anthropic's API has them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.model_pages import MAX_ROWS, ModelPages, Paging, anthropic_row, paging_of
from proxy.errors import BadRequest


def pages_of(count: int) -> ModelPages:
    ids = [f"p/m{n}" for n in range(count)]
    return ModelPages(ids, [orjson.dumps({"id": id}) for id in ids])


def ids_of(page: dict[str, Any]) -> list[str]:
    return [row["id"] for row in page["data"]]


@given(st.integers(0, 30), st.integers(1, 12), st.booleans())
def test_walking_the_pages_gives_each_model_once(count: int, limit: int, backwards: bool) -> None:
    """Either way, as their SDK walks: by the page's last id, or its first, while there are more."""
    pages = pages_of(count)
    found: list[str] = []
    paging = Paging(limit)
    if backwards and count:
        last = f"p/m{count - 1}"
        found, paging = [last], Paging(limit, before=last)
    for _ in range(count + 1):
        page = orjson.loads(pages.page(paging))
        assert page.keys() == {"data", "has_more", "first_id", "last_id"}
        ids = ids_of(page)
        assert len(ids) <= limit
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        found = ids + found if paging.before else found + ids
        if not page["has_more"]:
            break
        paging = Paging(limit, before=ids[0]) if paging.before else Paging(limit, after=ids[-1])
    else:
        pytest.fail("the pages never end")
    assert found == [f"p/m{n}" for n in range(count)]


@pytest.mark.parametrize(("query", "paging"), [
    (b"", Paging()), (b"limit=5", Paging(5)), (b"limit=1000&all=true&client_version=1", Paging(1000)),
    (b"limit=&after_id=", Paging()), (b"after_id=a%2Fb&limit=1", Paging(1, "a/b")),
    (b"before_id=a/b+c", Paging(MAX_ROWS, "", "a/b c")), (b"xlimit=0", Paging()), (b"l%69mit=5", Paging(5)),
])  # fmt: skip
def test_what_a_query_asks_for(query: bytes, paging: Paging) -> None:
    assert paging_of(query) == paging


@pytest.mark.parametrize(("query", "param"), [
    (b"limit=0", "limit"), (b"limit=1001", "limit"), (b"limit=-1", "limit"), (b"limit=x", "limit"),
    (b"limit=%D9%A1", "limit"), (b"limit=" + b"9" * 10_000, "limit"), (b"limit=1.5", "limit"),
    (b"after_id=a&before_id=b", "before_id"),
])  # fmt: skip
def test_a_query_that_makes_no_sense(query: bytes, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        paging_of(query)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_query", param)


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    try:
        paging = paging_of(query)
    except BadRequest:
        return
    assert 1 <= paging.limit <= MAX_ROWS


@pytest.mark.parametrize("paging", [Paging(after="none"), Paging(before="none")])
def test_an_id_that_is_not_in_the_list(paging: Paging) -> None:
    with pytest.raises(BadRequest, match="names no model of this list: 'none'"):
        pages_of(3).page(paging)


def test_a_row() -> None:
    row = {"id": "a/b", "created": 1_780_315_200, "context_window": 9, "max_output_tokens": None}
    assert anthropic_row(row) == {
        "type": "model", "id": "a/b", "display_name": "a/b", "created_at": "2026-06-01T12:00:00Z",
        "lifecycle": "active", "max_input_tokens": 9, "max_tokens": None,
    }  # fmt: skip
