"""The rows of /v1/models."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.access.model_list import ListQuery, ModelList, all_rows
from tests.routing.test_catalog import ALIASES, MODELS, catalog
from tests.support.keys import ready_grant


def test_model_rows_have_exactly_the_fields_of_the_contract() -> None:
    rows = {row["id"]: row for row in all_rows(catalog())}
    assert list(rows) == [one.id for one in MODELS] + [one.name for one in ALIASES]
    assert rows["openai/gpt-4o"] == {
        "id": "openai/gpt-4o", "object": "model", "created": 17, "owned_by": "openai",
        "context_window": 128_000, "max_output_tokens": 16_384,
        "capabilities": {
            "chat": True, "completions": True, "embeddings": False, "responses": True, "messages": True,
            "images": False, "speech": False, "moderations": False, "rerank": False, "tools": True,
            "vision": True,
        },
        "pricing": {"input": 2.5, "output": 10.0},
    }  # fmt: skip
    assert rows["azure/gpt-4o"]["pricing"] is None
    assert rows["openai/embed-small"]["pricing"] == {"input": 0.02, "output": None}
    alias = rows["cheap"]
    assert (alias["owned_by"], alias["context_window"], alias["pricing"]) == ("tokenhub", 64_000, None)
    assert alias["capabilities"]["vision"] is True
    assert set(alias) == set(rows["openai/gpt-4o"])


def listed(models: ModelList, names: tuple[str, ...] | None = None, is_all: bool = False) -> list[Any]:
    """A list, built whole."""
    wanted = ListQuery(names, is_all)
    for _ in models.build(wanted, None if names is None else ready_grant(models._catalog, models=names)):
        pass
    data = models.get(wanted)
    assert data is not None
    return orjson.loads(data)["data"]  # type: ignore[no-any-return]


def test_a_list_has_the_rows_of_all_that_can_be_called() -> None:
    found = catalog()
    assert listed(ModelList(found)) == all_rows(found)
    some = catalog({"azure": True})
    usable = [name for name in some.listed() if any(member.usable for member in some.members(name))]
    assert 0 < len(usable) < len(some.listed())
    models = ModelList(some)
    assert [row["id"] for row in listed(models)] == usable
    everything = listed(models, is_all=True)
    assert [row["id"] for row in everything] == some.listed()
    assert [row["id"] for row in everything if row["available"]] == usable


def test_a_key_sees_what_it_may_use() -> None:
    models = ModelList(catalog())
    assert [row["id"] for row in listed(models, ("azure/*",))] == [
        name
        for name in catalog().listed()
        if any(member.id.startswith("azure/") for member in catalog().members(name))
    ]
    assert listed(models, ("none/*",)) == []
    assert listed(models, ("openai/gpt-4o",))[0] == all_rows(catalog())[0]
    grant = ready_grant(models._catalog, models=("azure/*",))
    assert models.one("openai/gpt-4o", grant, is_all=True) is None
    alone = models.one("gpt-4o", grant, is_all=False)
    assert alone is not None
    assert orjson.loads(alone)["context_window"] == 64_000
    both = models.one("gpt-4o", None, is_all=False)
    assert both is not None
    assert both != alone


def test_lists_are_built_in_small_steps_and_once() -> None:
    found = catalog()
    models, wanted = ModelList(found), ListQuery(None, False)
    steps = models.build(wanted, None)
    for _ in range(len(found.listed())):
        next(steps)
        assert models.get(wanted) is None
    assert next(steps, "done") == "done"
    assert models.get(wanted) is models.get(wanted) is not None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModelList(catalog())
    listed(models)
    size = len(models.get(ListQuery(None, False)) or b"")
    monkeypatch.setattr("proxy.access.model_list.MAX_KEPT_BYTES", 3 * size)
    names = [("openai/*", "azure/*", "anthropic/*", f"x{n}") for n in range(5)]
    for one in names:
        listed(models, one)
    kept = [one for one in names if models.get(ListQuery(one, False)) is not None]
    assert kept == names[-3:]
    assert models._kept_bytes == sum(map(len, models._lists.values())) <= 3 * size
    monkeypatch.setattr("proxy.access.model_list.MAX_KEPT_BYTES", 1)
    listed(models, names[0])
    assert list(models._lists) == [ListQuery(names[0], False)]  # whoever asked gets it


def test_one_row_by_any_name_that_can_be_sent() -> None:
    models = ModelList(catalog())

    def one(name: str) -> Any:
        row = models.one(name, None, is_all=False)
        return None if row is None else orjson.loads(row)

    by_id, short = one("openai/gpt-4o"), one("gpt-4o")
    assert (by_id["owned_by"], short["owned_by"], short["id"]) == ("openai", "tokenhub", "gpt-4o")
    assert one("premium") == all_rows(catalog())[len(MODELS)]
    assert one("nope") is None
