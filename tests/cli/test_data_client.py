"""The data plane from a client's side, without a gateway; with one: tests/cli/test_chat.py."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import data_client
from proxy.cli.data_client import Events, Target, content_of, session_of, target_of
from proxy.cli.parser import CommandError
from proxy.config.parse import parse

TEXT = '[server]\nlisten = ["{listen}"]\n[providers.p]\nbase_url = "http://h/v1"\n[models."p/m"]\n'


@pytest.mark.parametrize(("url", "target"), [
    ("http://h:1", Target("http://h:1", "http://h:1")),
    ("https://h/base/v1/", Target("https://h/base", "https://h/base")),
    ("http://[::1]:1/", Target("http://[::1]:1", "http://[::1]:1")),
    ("unix:/run/g.sock", Target("unix:/run/g.sock", "http://localhost", "/run/g.sock")),
])  # fmt: skip
def test_addresses(url, target):
    assert target_of(url, None) == target


@pytest.mark.parametrize(
    "url", ["h:1", "h", "", "ftp://h", "http://", "http://h:x", "http://h:0", "http://[::1"]
)
def test_what_is_no_address(url):
    with pytest.raises(CommandError, match="is not an address such as"):
        target_of(url, None)


@pytest.mark.parametrize(
    ("listen", "url"), [("0.0.0.0:1", "http://127.0.0.1:1"), ("unix:/run/g.sock", "http://localhost")]
)
def test_the_address_is_the_configurations(listen, url):
    assert target_of(None, parse(TEXT.format(listen=listen))).url == url


def test_a_configuration_that_does_not_tell():
    with pytest.raises(CommandError, match=r"port 0.*--url"):
        target_of(None, parse(TEXT.format(listen="127.0.0.1:0")))


@pytest.mark.parametrize("key", ["th-a\nb", "th-ü", "th-\x1b"])
def test_a_key_that_is_none_is_not_repeated(key):
    with pytest.raises(CommandError) as caught:
        session_of(Target("http://h", "http://h"), key, None)
    assert str(caught.value) == "$TOKENHUB_API_KEY holds characters that no key has"


STREAM = b': comment\ndata: {"a":1}\n\nevent: x\r\ndata:{"b":2}\r\n\r\ndata: [DONE]\n\n'
EVENTS = [b'{"a":1}', b'{"b":2}', b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_however_they_are_cut(places):
    places = [0, *sorted(places), len(STREAM)]
    events = Events()
    found = []
    for begin, end in pairwise(places):
        found += events.feed(STREAM[begin:end])
    assert found == EVENTS


def test_events_byte_by_byte_with_more_behind_and_without_an_end(monkeypatch):
    events = Events()
    assert [event for byte in STREAM for event in events.feed(bytes([byte]))] == EVENTS
    assert Events().feed(STREAM + b"data: half") == EVENTS
    monkeypatch.setattr(data_client, "MAX_EVENT_BYTES", 10)
    events = Events()
    assert events.feed(b"data: 1234") == []
    with pytest.raises(ValueError, match="more than 10 bytes"):
        events.feed(b"5")


@pytest.mark.parametrize(("event", "text"), [
    ({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}, "ab"),
    ({"choices": [{"delta": {"content": None}}]}, ""), ({"choices": [{"delta": None}, {}]}, ""),
    ({"choices": None}, ""), ({}, ""),
])  # fmt: skip
def test_the_text_of_an_event(event, text):
    assert content_of(event) == text


# ---------------------------------------------------------------------- TLS
def tls_config(folder, listen: str = "0.0.0.0:1"):
    text = TEXT.format(listen=listen).replace(
        "[providers.p]", f'tls_cert = "{folder}/c.pem"\ntls_key = "{folder}/k.pem"\n[providers.p]'
    )
    return parse(text)


def test_a_gateway_of_this_machine_with_a_certificate(tmp_path):
    target = target_of(None, tls_config(tmp_path))
    assert (target.url, target.certificate) == ("https://127.0.0.1:1", f"{tmp_path}/c.pem")
    assert not target_of("https://127.0.0.1:1", tls_config(tmp_path)).certificate  # any that is valid
    assert target_of(None, tls_config(tmp_path, "unix:/run/g.sock")).url == "http://localhost"


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("x", "can't be read")])
async def test_a_certificate_that_cant_be_read(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "c.pem").write_text(content)
    with pytest.raises(CommandError, match=f"{reason}.*use --url"):
        session_of(target_of(None, tls_config(tmp_path)), "", None)
