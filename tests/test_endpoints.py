"""Which paths lead where."""

from __future__ import annotations

import pytest

from proxy.endpoints import (
    CLASSES,
    FREE,
    GENERATION,
    HEALTH,
    MAKING,
    MAX_ID_BYTES,
    MODEL,
    MODELS,
    NOTHING,
    PROXIED,
    READY,
    allowed_methods,
    model_id,
    own,
)
from tests.cpucases import grows_in_proportion


def test_proxied_paths_work_without_the_version():
    assert PROXIED[b"/v1/chat/completions"] == PROXIED[b"/chat/completions"] == ("chat", b"/chat/completions")
    assert PROXIED[b"/v1/messages/count_tokens"][0] == "count_tokens"
    assert len(PROXIED) == 20


@pytest.mark.parametrize(
    ("path", "expected", "allow"),
    [
        (b"/healthz", (HEALTH, b""), b"GET,HEAD"),
        (b"/health", (HEALTH, b""), b"GET,HEAD"),
        (b"/readyz", (READY, b""), b"GET,HEAD"),
        (b"/v1/models", (MODELS, b""), b"GET,HEAD"),
        (b"/models", (MODELS, b""), b"GET,HEAD"),
        (b"/v1/models/a/b", (MODEL, b"a/b"), b"GET,HEAD"),
        (b"/models/a%2Fb", (MODEL, b"a%2Fb"), b"GET,HEAD"),
        (b"/v1/models/" + b"x" * MAX_ID_BYTES, (MODEL, b"x" * MAX_ID_BYTES), b"GET,HEAD"),
        (b"/v1/models/" + b"x" * (MAX_ID_BYTES + 1), (NOTHING, b""), b""),
        (b"/v1/models/", (NOTHING, b""), b""),
        (b"/v1/chat/completions", (NOTHING, b""), b"POST"),
        (b"/embeddings", (NOTHING, b""), b"POST"),
        (b"/v1/healthz", (NOTHING, b""), b""),
        (b"/", (NOTHING, b""), b""),
        (b"", (NOTHING, b""), b""),
        (b"*", (NOTHING, b""), b""),
        (b"//v1/models", (NOTHING, b""), b""),
        (b"/v1/Models", (NOTHING, b""), b""),
    ],
)
def test_what_is_at_a_path(path, expected, allow):
    assert own(path) == expected
    assert allowed_methods(path) == allow


@pytest.mark.parametrize(
    ("escaped", "id"),
    [
        (b"a/b", "a/b"),
        (b"a%2Fb", "a/b"),
        (b"a%252Fb", "a%2Fb"),  # once
        (b"a+b", "a+b"),
        (b"%C3%A9", "\u00e9"),
        (b"%zz%", "%zz%"),
        (b"%ff%fe", "\ufffd\ufffd"),
        (b"%00", "\0"),
    ],
)
def test_ids_are_decoded_once(escaped, id):
    assert model_id(escaped) == id


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"/" * n,
        lambda n: b"/v1/models" + b"/a" * (n // 2),
        lambda n: b"/v1/models/" + b"%2F" * (n // 3),
        lambda n: b"/" + b"x" * n,
    ],
)
def test_a_path_costs_time_in_proportion_to_its_length(make):
    def look_up(path: bytes) -> None:
        for _ in range(50):  # the hash of bytes is kept: look up others
            other = path + b"x"
            own(other), allowed_methods(other), model_id(other)

    assert grows_in_proportion(look_up, make, 32_000)


def test_each_endpoint_has_its_class():
    """The contract's table of what may be sent again."""
    assert CLASSES.keys() == {endpoint for endpoint, _ in PROXIED.values()}
    assert {name for name, kind in CLASSES.items() if kind == MAKING} == {"images"}
    assert {name for name, kind in CLASSES.items() if kind == FREE} == {
        "count_tokens", "moderations", "embeddings", "rerank",
    }  # fmt: skip
    assert CLASSES["chat"] == CLASSES["speech"] == GENERATION
