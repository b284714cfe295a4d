"""The rows of /v1/models."""

from __future__ import annotations

from tests.test_catalog import ALIASES, MODELS, catalog


def test_model_rows_have_exactly_the_fields_of_the_contract() -> None:
    rows = {row["id"]: row for row in catalog().models()}
    assert list(rows) == [one.id for one in MODELS] + [one.name for one in ALIASES]
    assert rows["openai/gpt-4o"] == {
        "id": "openai/gpt-4o",
        "object": "model",
        "created": 17,
        "owned_by": "openai",
        "context_window": 128_000,
        "max_output_tokens": 16_384,
        "capabilities": {
            "chat": True, "completions": True, "embeddings": False, "responses": True, "messages": True,
            "images": False, "speech": False, "moderations": False, "rerank": False,
            "tools": True, "vision": True,
        },
        "pricing": {"input": 2.5, "output": 10.0},
    }  # fmt: skip
    assert rows["azure/gpt-4o"]["pricing"] is None
    assert rows["openai/embed-small"]["pricing"] == {"input": 0.02, "output": None}
    alias = rows["cheap"]
    assert (alias["owned_by"], alias["context_window"], alias["pricing"]) == ("tokenhub", 64_000, None)
    assert alias["capabilities"]["vision"] is True
    assert set(alias) == set(rows["openai/gpt-4o"])


def test_one_row_by_any_name_that_can_be_sent() -> None:
    found = catalog()
    by_id, short = found.model("openai/gpt-4o"), found.model("gpt-4o")
    assert by_id is not None
    assert short is not None
    assert (by_id["owned_by"], short["owned_by"], short["id"]) == ("openai", "tokenhub", "gpt-4o")
    assert found.model("premium") == found.models()[len(MODELS)]
    assert found.model("nope") is None
