"""What bodies refer to, and what only looks like it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.outline import keys_of
from proxy.references import UNKNOWN, has_stored_prompt, referred

URL = "https://example.com/x"
PICTURE = {"type": "image_url", "image_url": {"url": URL}}
SOURCE = {"type": "image", "source": {"type": "url", "url": URL}}
DOCUMENT = {"type": "document", "source": {"type": "url", "url": URL}}


def in_chat(*parts: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, *parts]}]}


CASES: list[tuple[str, Any, int]] = [
    ("chat", in_chat(), 0),
    ("chat", in_chat(PICTURE), 1),
    ("chat", in_chat(PICTURE, PICTURE), 2),
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
        {"tools": [{"properties": {"container": {"type": "string"}}, "required": ["url", "file_id"]}]},
        0,
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
    ("messages", in_chat(SOURCE, SOURCE), 2),
    ("messages", in_chat(DOCUMENT), UNKNOWN),
    ("messages", in_chat({**SOURCE, "x": "document"}), UNKNOWN),
    ("messages", in_chat({"type": "document", "source": {"type": "file", "file_id": "file_1"}}), UNKNOWN),
    ("messages", {"messages": [], "container": {"id": "container_1"}}, UNKNOWN),
]


@pytest.mark.parametrize(("endpoint", "body", "expected"), CASES)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_a_body_refers_to(endpoint, body, expected, indent):
    text = json.dumps(body, indent=indent).encode()
    assert referred([text], endpoint) == expected
    for at in range(1, len(text)):
        assert referred([text[:at], text[at:]], endpoint) == expected
    assert referred([text[at : at + 1] for at in range(len(text))], endpoint) == expected


@pytest.mark.parametrize(
    "member",
    [
        b'"previous_response\\u005fid":"resp_1"',
        b'"\\u0063onversation":"conv_1"',
        b'"Previous_Response_ID":"resp_1"',
        b'"previous_response_id"%b:"resp_1"' % (b" " * 5000),
        b'"previous_response_id":%b"resp_1"' % (b" " * 5000),
        b'"input":[{"type":"item_r\\u0065ference","id":"msg_1"}]',
        b'"input":[{"file\\u005fid":"file-1"}]',
    ],
)
def test_other_spellings_refer_too(member):
    assert referred([b'{"model":"m",%b}' % member], "responses") == UNKNOWN


@pytest.mark.parametrize(
    ("body", "has"),
    [
        (b'{"prompt":{"id":"pmpt_1"}}', True),
        (b'{"pro\\u006dpt": {"id":"pmpt_1"}}', True),
        (b'{"prompt":%b{"id":"pmpt_1"}}' % (b" " * 5000), True),
        (b'{"prompt":null}', False),
        (b'{"input":{"prompt":{}}}', False),
    ],
)
def test_a_stored_prompt(body, has):
    assert has_stored_prompt(body, keys_of(body)) is has
