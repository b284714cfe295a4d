"""Which paths lead where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.endpoints import (
    ANTHROPIC,
    CLASSES,
    FREE,
    GENERATION,
    HAS_CHOICES,
    HAS_TOKENS,
    HEALTH,
    MADE_AT_ONCE,
    MAKING,
    MAX_ID_BYTES,
    MODEL,
    MODELS,
    NOTHING,
    ONE_PROMPT,
    OPERATIONS,
    OUTPUTS,
    OWN_KEY,
    OWN_REQUEST,
    OWN_USAGE,
    PROXIED,
    READY,
    ROWS,
    TAKES_COUNT,
    TAKES_TOKENS,
    WELCOME,
    WRITING,
    allowed_methods,
    is_anthropic,
    model_id,
    nearest_path,
    own,
    path_of,
)
from tests.support.cpu import grows_in_proportion


@pytest.mark.parametrize(("path", "near"), [
    (b"/v1/chat/completion", "/v1/chat/completions"), (b"/v1/chat/completions/", "/v1/chat/completions"),
    (b"/v1/Embedding", "/v1/embeddings"), (b"/v1/message", "/v1/messages"), (b"/v1/model", "/v1/models"),
    (b"/v1/images/edits", ""), (b"/v1/audio/transcriptions", ""), (b"/v1/realtime", ""), (b"/chat", ""),
    (b"/v1/" + b"x" * 9000, ""), (b"/v1/\xff", ""), (b"/v1/", ""),
])  # fmt: skip
def test_what_a_mistyped_path_means(path, near):
    assert nearest_path(path) == near


def test_proxied_paths_work_without_the_version():
    assert PROXIED[b"/v1/chat/completions"] == PROXIED[b"/chat/completions"] == ("chat", b"/chat/completions")
    assert PROXIED[b"/v1/messages/count_tokens"][0] == "count_tokens"
    assert PROXIED[b"/responses/compact"] == ("responses", b"/responses/compact")
    assert PROXIED[b"/v1/responses/input_tokens"] == ("input_tokens", b"/responses/input_tokens")
    assert len(PROXIED) == 24


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
        (b"/", (WELCOME, b""), b"GET,HEAD"),
        (b"/v1", (WELCOME, b""), b"GET,HEAD"),
        (b"/v1/", (WELCOME, b""), b"GET,HEAD"),
        (b"/api/hello", (WELCOME, b""), b"GET,HEAD"),
        (b"/api", (NOTHING, b""), b""),
        (b"/v1/key", (OWN_KEY, b""), b"GET,HEAD"),
        (b"/v1/usage", (OWN_USAGE, b""), b"GET,HEAD"),
        (b"/v1/requests/req_1", (OWN_REQUEST, b"req_1"), b"GET,HEAD"),
        (b"/v1/requests/", (NOTHING, b""), b""),
        (b"/v1/responses/input_tokens", (NOTHING, b""), b"POST"),
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
    "lines", [(), (b"Accept: x", b"anthropic-version: 2023-06-01"), (b"Anthropic-Version:",)]
)
@pytest.mark.parametrize(
    ("path", "is_theirs", "by_version"),
    [
        (b"/v1/messages", True, True),
        (b"/messages", True, True),
        (b"/v1/messages/count_tokens", True, True),
        (b"/v1/messages/batches/x", True, True),
        (b"/v1/v1/messages", True, True),
        (b"/v1/messagesX", False, False),
        (b"/v2/messages", False, False),
        (b"/v1/models", False, True),
        (b"/models/a/b", False, True),
        (b"/v1/chat/completions", False, False),
        (b"/", False, False),
        (b"", False, False),
    ],
)
def test_which_requests_are_of_anthropics_api(path, is_theirs, by_version, lines):
    assert is_anthropic(path, lines) is (by_version if lines else is_theirs)


@pytest.mark.parametrize(
    ("begin", "path"),
    [
        (b"POST /v1/messages HTTP/1.1\r\nbad", b"/v1/messages"),
        (b"POST /v1/messages?beta=true HTTP/1.1", b"/v1/messages"),
        (b"POST /v1/messages\r\n", b"/v1/messages"),
        (b"POST /v1/mess", b"/v1/mess"),
        (b"POST http://gateway:80/v1/messages HTTP/1.1\r\n", b"/v1/messages"),
        (b"POST http://gateway HTTP/1.1\r\n", b""),
        (b"CONNECT a:443 HTTP/1.1\r\n", b""),
        (b"x\r\n/v1/messages /v1/messages", b""),
        (b"POST", b""),
        (b"", b""),
    ],
)
def test_the_path_of_what_there_is_of_a_head(begin, path):
    assert path_of(begin) == path


@given(st.binary(max_size=400))
def test_the_path_is_in_what_there_is(begin):
    path = path_of(begin)
    assert path in begin
    assert b" " not in path and b"?" not in path and b"\n" not in path


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
        "count_tokens", "input_tokens", "moderations", "embeddings", "rerank",
    }  # fmt: skip
    assert CLASSES["chat"] == CLASSES["speech"] == GENERATION


def test_the_rows_agree_with_themselves():
    names = [row.name for row in ROWS]
    paths = [path for row in ROWS for path in row.paths]
    assert len(set(names)) == len(names)
    assert len(set(paths)) == len(paths)
    for row in ROWS:
        assert row.resent_as in (FREE, GENERATION, MAKING)
        assert row.served_with in ("", *names)
        assert not (row.writes and row.makes)
        assert row.writes or not (row.limited_by or row.has_choices)
        assert not row.made_at_once or row.makes


def test_what_stands_at_several_endpoints():
    assert {"chat", "completions", "responses", "messages"} == WRITING
    assert WRITING | {"count_tokens", "input_tokens"} == ONE_PROMPT
    assert {"chat", "completions"} == HAS_CHOICES
    assert HAS_CHOICES | {"images"} == TAKES_COUNT
    assert {"completions", "embeddings"} == TAKES_TOKENS
    assert {row.name for row in ROWS} - {"moderations", "count_tokens", "input_tokens"} == HAS_TOKENS
    assert {"images"} == MADE_AT_ONCE
    assert {"messages", "count_tokens"} == ANTHROPIC
    assert OUTPUTS == {"images": "image", "speech": "speech"}


def test_operations_go_by_the_conventions_names_where_they_have_one():
    assert {name: operation for name, operation in OPERATIONS.items() if operation != name} == {
        "completions": "text_completion",
        "responses": "chat",
        "messages": "chat",
        "images": "generate_content",
        "speech": "generate_content",
    }
