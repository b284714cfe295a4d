"""Which Content-Types of a request say JSON in UTF-8."""

from __future__ import annotations

import time
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.content_type import is_json

JSON = [
    "application/json", "Application/JSON", "application/json;", "application/json ; ;",
    "application/json;charset=utf-8", "application/json; charset=UTF-8", 'application/json;\tCharset="utf-8"',
    "application/json; charset=utf8", r'application/json; charset="\u\t\f-8"', "application/json; profile=a",
    'application/json; a="b;charset=utf-7"', 'application/json; a="\\";charset=utf-7"',
    "application/vnd.api+json", "application/problem+json; charset=utf-8", "text/plain", "TEXT/PLAIN ;",
    "text/plain; format=flowed",
]  # fmt: skip
OTHER = [
    "", " ", "json", "application", "application/", "/json", "application/json/x", "application /json",
    "application/ json", "application/jsonp", "application/json5", "application/ld-json", "image/svg+json",
    "text/json", "text/html", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a",
    "application/octet-stream", "*/*", "application/json; charset=utf-7", "application/json; charset=utf-16",
    "application/json; charset=utf-16le", "application/json; charset=latin1",
    "application/json; charset=us-ascii", "application/json; charset=", 'application/json; charset=""',
    "application/json; charset", "application/json; charset =utf-8", "application/json; charset= utf-8",
    'application/json; charset="utf-8', "application/json; charset='utf-8'",
    "application/json; charset=utf-8; charset=utf-8", "application/json; charset=utf-8; charset=utf-7",
    'application/json; a="; charset=utf-8', "application/json charset=utf-8", "application/json, text/plain",
    "application/json; charset*=utf-8''utf-7", "application/json; charset*0=utf; charset*1=-7",
    "application/json; charset=utf-8, application/json", "application/json; a=b c",
    "text/plain; charset=utf-8", "text/plain;charset=UTF-8", "text/plain; charset=us-ascii",
    "application/jsön",
]  # fmt: skip


@pytest.mark.parametrize("value", JSON)
def test_json_in_utf_8(value):
    assert is_json(value.encode())


@pytest.mark.parametrize("value", OTHER)
def test_anything_else(value):
    assert not is_json(value.encode("latin-1"))


pieces = st.sampled_from([
    *'application/json;charset="utf-8"', "application/json", "charset=", "utf-8", "utf-7", ";", '"', "\\",
    " ", "*",
])  # fmt: skip


@given(st.lists(pieces, max_size=12).map("".join), st.booleans())
@settings(max_examples=500)
def test_what_is_taken_means_the_same_to_others(text, is_whole):
    """As Python's own reader of such headers has it, which is lax: it must not see another charset."""
    value = "application/json" + text if is_whole else text
    if is_json(value.encode()):
        message = Message()
        message["Content-Type"] = value
        assert message.get_content_type() in ("text/plain", "application/json") or "+json" in value
        assert (message.get_content_charset() or "utf-8").replace("utf8", "utf-8") == "utf-8"


@pytest.mark.parametrize("value", [
    b"application/json" + b";" * 32_000 + b",", b'application/json;a="' + b"\\a" * 16_000,
    b"application/json" + b" \t" * 16_000, b"a" * 32_000, b"application/json" + b";a=b" * 8000 + b",",
    b"application/json" + b" ;\t" * 10_000 + b"x", b'application/json;a="' + b"\\" * 32_000,
])  # fmt: skip
def test_a_long_one_is_read_once(value):
    begun = time.process_time()
    assert not is_json(value)
    assert time.process_time() - begun < 0.1
