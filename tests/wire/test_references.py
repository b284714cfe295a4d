"""What bodies refer to, and what only looks like it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.wire.outline import keys_of
from proxy.wire.references import MOST_NAMES, UNKNOWN, has_stored_prompt, referred

URL = "https://example.com/x"
PICTURE = {"type": "image_url", "image_url": {"url": URL}}
SOURCE = {"type": "image", "source": {"type": "url", "url": URL}}
DOCUMENT = {"type": "document", "source": {"type": "url", "url": URL}}


def in_chat(*parts: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, *parts]}]}


CACHE = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"url": {"type": "string", "examples": [{"url": URL}]}}}


def in_answer(note: Any) -> dict[str, Any]:
    return {"input": [{"role": "assistant", "content": [{"type": "output_text", "annotations": [note]}]}]}


CASES: list[tuple[str, Any, int]] = [
    ("chat", in_chat(), 0), ("chat", in_chat(PICTURE), 1), ("chat", in_chat(PICTURE, PICTURE), 2),
    ("chat", in_chat({"type": "image_url", "image_url": {"detail": "high", "url": URL}}), 1),
    ("chat", in_chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}), 0),
    ("chat", in_chat({"type": "video_url", "video_url": {"url": URL}}), UNKNOWN),
    ("chat", in_chat({"type": "file", "file": {"file_id": "file-1"}}), UNKNOWN),
    ("chat", in_chat({"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD"}}), 0),
    ("chat", in_chat({"type": "file", "file": {"file_data": URL}}), UNKNOWN),
    ("chat", {"messages": [], "conversation": "x", "previous_response_id": "x"}, 0),  # another API's
    # what people write, and what a function's arguments are
    ("chat", in_chat({"type": "text", "text": json.dumps(in_chat(PICTURE, {"file_id": "file-1"}))}), 0),
    ("chat", in_chat({"type": "text", "text": "\\u0066ile_id"}), 0),
    ("chat", {"tools": [{"properties": {"url": {"type": "string"}, "file_id": {"type": "string"}}}]}, 0),
    (
        "chat",
        {"tools": [{"properties": {"container": {"type": "string"}}, "required": ["url", "file_id"]}]}, 0,
    ),
    ("responses", {"input": "a", "previous_response_id": "resp_1"}, UNKNOWN),
    ("responses", {"input": "a", "previous_response_id": None, "conversation": None}, 0),
    ("responses", {"input": "a", "conversation": "conv_1"}, UNKNOWN),
    ("responses", {"input": "a", "conversation": {"id": "conv_1"}}, UNKNOWN),
    ("responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, UNKNOWN),
    ("responses", {"input": [{"type": "input_image", "image_url": URL}]}, 1),
    ("responses", {"input": [{"type": "input_file", "file_url": URL}]}, UNKNOWN),
    ("responses", {"input": [{"type": "input_file", "file_id": "file-1"}]}, UNKNOWN),
    ("responses", {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, 0),
    (
        "responses",
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
        UNKNOWN,
    ),
    ("messages", in_chat(SOURCE, SOURCE), 2), ("messages", in_chat(DOCUMENT), UNKNOWN),
    ("messages", in_chat({**SOURCE, "x": "document"}), UNKNOWN),
    # whatever the order
    ("messages", in_chat({"type": "image", "source": {"url": URL, "type": "url"}}), 1),
    ("messages", in_chat({"source": {"url": URL, "type": "url"}, "type": "image"}), 1),
    ("messages", in_chat({"type": "image", "cache_control": CACHE, "source": SOURCE["source"]}), 1),
    ("messages", in_chat({**SOURCE, "cache_control": CACHE}), 1),
    ("messages", in_chat({"source": {"url": URL, "type": "url"}, "type": "document"}), UNKNOWN),
    ("messages", in_chat({**SOURCE, "source": {"url": URL + "x" * 900, "type": "url"}}), 1),
    ("messages", in_chat({"type": "image", "source": {"type": "base64", "data": "QUJD" * 2000}}), 0),
    ("messages", in_chat({"type": "image", "source": {"data": "QUJD" * 2000, "type": "base64"}}), 0),
    ("messages", in_chat({"type": "document", "source": {"type": "content", "content": [{"a": 1}]}}), 0),
    ("messages", in_chat({"type": "container_upload", "file_id": "file_1"}), UNKNOWN),
    ("chat", in_chat({"type": "image_url", "image_url": {"url": URL, "detail": "high"}}), 1),
    (
        "chat",
        in_chat({"type": "image_url", "image_url": {"detail": "low", "url": "data:image/png;base64,Q"}}), 0,
    ),
    ("chat", in_chat({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,QUJD"}}), 0),
    ("chat", in_chat({"type": "document_url", "document_url": URL}), UNKNOWN),
    # what a tool is called with, what it found, and what it may be called with
    ("messages", in_chat({"type": "tool_use", "id": "t", "name": "f", "input": {"url": URL}}), 0),
    ("messages", in_chat({"type": "tool_use", "input": {"depth": 1, "container": "x", "file_id": "f"}}), 0),
    ("messages", in_chat({"type": "tool_use", "input": {"file_url": URL, "file_ids": ["x"]}}), 0),
    ("messages", in_chat({"type": "tool_use", "input": {"image_url": URL, "source": {"url": URL}}}), 0),
    ("messages", in_chat({"type": "web_search_tool_result", "content": [{"title": "a", "url": URL}]}), 0),
    ("messages", in_chat({"type": "search_result", "source": URL, "title": "a", "content": []}), 0),
    ("messages", in_chat({"type": "bash_code_execution_output", "file_id": "file_1"}), 0),
    ("messages", {"messages": [], "mcp_servers": [{"type": "url", "url": URL, "name": "x"}]}, 0),
    ("messages", {"tools": [{"input_schema": {"example": {"file_id": "x"}, "default": {"url": URL}}}]}, 0),
    ("responses", in_answer({"type": "url_citation", "start_index": 1, "url": URL, "title": "a"}), 0),
    ("responses", in_answer({"type": "file_citation", "file_id": "file-1", "index": 3}), 0),
    ("responses", in_answer({"file_id": "file-1", "filename": "[a]", "type": "container_file_citation"}), 0),
    ("responses", in_answer({"type": "file_citation", "file_id": "x", "type ": "input_file"}), 0),
    ("responses", {"input": {"file_id": "file-1"}}, UNKNOWN),
    ("messages", {"tools": [{"input_schema": {"properties": {"source": SCHEMA, "image_url": SCHEMA}}}]}, 0),
    ("messages", {"tools": [{"input_schema": {"properties": {"source": {"anyOf": [SCHEMA]}}}}]}, 0),
    ("responses", {"tools": [{"type": "mcp", "server_url": URL}]}, 0),
    ("messages", in_chat({"type": "document", "source": {"type": "file", "file_id": "file_1"}}), UNKNOWN),
    ("messages", {"messages": [], "container": {"id": "container_1"}}, UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "body", "expected"), CASES)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_a_body_refers_to(endpoint, body, expected, indent):
    text = json.dumps(body, indent=indent).encode()
    assert referred([text], endpoint) == expected
    for at in range(1, len(text), 1 + len(text) // 1000):
        assert referred([text[:at], text[at:]], endpoint) == expected
    assert referred([text[at : at + 1] for at in range(len(text))], endpoint) == expected


@pytest.mark.parametrize("is_one", [True, False])
def test_more_names_than_anybody_writes_are_not_looked_at(is_one):
    for count, expected in ((MOST_NAMES - 1, 0), (MOST_NAMES, UNKNOWN)):
        text = b'{"a":[%b0]}' % (b'"image_url",' * count)
        assert referred([text] if is_one else [text[:777], text[777:]], "chat") == expected


@pytest.mark.parametrize("text", [
    b'{"source":{"type":"base64","url":"http://a","data":""}}',
    b'{"source":{"type":"base64","TYPE":"url","Url":"http://a"}}',
    b'{"source":{"x":"%b","url":"http://a"}}' % (b"x" * 5000),
    b'{"source":{"x":%b"a","url":"http://a"}}' % (b" " * 5000),
    b'{"source":{"\\u0075rl":"http://a"}}',
    b'{"source":{"x":{},"url":"http://a"}}',
    b'{"source":{%b"url":"http://a"}}' % (b'"x":1,' * 9),
    b'{"source":{"data":"a","x":"%b","url":"http://a"}}' % (b"x" * 5000),
    b'{"type":"image","source":{"url":"http://a"},"type":"document"}',
    b'{"type":"document","type":"image","source":{"url":"http://a"}}',
    b'{"type":"file_citation","file_id":"file-1","type":"input_file"}',
    b'{"type":"file_citation","x":{},"file_id":"file-1"}',
    b'{"type":"file_citation","file_id":"file-1","t\\u0079pe":"input_file"}',
    b'{"x":"a\\"input\\":","y":[{"file_id":"file-1"}]}',
])  # fmt: skip
def test_who_plays_tricks(text):
    for endpoint in ("messages", "responses"):
        assert referred([text], endpoint) == UNKNOWN


@pytest.mark.parametrize("member", [
    b'"previous_response\\u005fid":"resp_1"', b'"\\u0063onversation":"conv_1"',
    b'"Previous_Response_ID":"resp_1"', b'"previous_response_id"%b:"resp_1"' % (b" " * 5000),
    b'"previous_response_id":%b"resp_1"' % (b" " * 5000),
    b'"input":[{"type":"item_r\\u0065ference","id":"msg_1"}]', b'"input":[{"file\\u005fid":"file-1"}]',
])  # fmt: skip
def test_other_spellings_refer_too(member):
    assert referred([b'{"model":"m",%b}' % member], "responses") == UNKNOWN


@pytest.mark.parametrize(("body", "has"), [
    (b'{"prompt":{"id":"pmpt_1"}}', True), (b'{"pro\\u006dpt": {"id":"pmpt_1"}}', True),
    (b'{"prompt":%b{"id":"pmpt_1"}}' % (b" " * 5000), True), (b'{"prompt":null}', False),
    (b'{"input":{"prompt":{}}}', False),
])  # fmt: skip
def test_a_stored_prompt(body, has):
    assert has_stored_prompt(body, keys_of(body)) is has
