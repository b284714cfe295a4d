"""What a configuration needs to run: keys, providers, whether the simulator stands in, and traces."""

from __future__ import annotations

import sys

import pytest
import trustme

from proxy.config.parse import parse
from proxy.config.settings import TracesConfig
from proxy.control.prepare import open_tracing, prepare, read_key, read_keys, simulates
from proxy.errors import StartError
from proxy.wire.request_head import read_request_head
from tests.support.gateway import mock_text


def provider_of(lines: str):
    text = f'[providers.p]\nbase_url = "http://127.0.0.1:1/v1"\n{lines}\n[models."p/m"]\n'
    return parse(text).providers["p"]


@pytest.mark.parametrize(("value", "key"), [
    ("sk-1", "sk-1"), ("  sk-1\n", "sk-1"), ("", None), (" \n", None),
    ("sk-!\"#$%&'()*+,-./", "sk-!\"#$%&'()*+,-./"),
])  # fmt: skip
def test_a_key_from_the_environment_or_a_file(tmp_path, value, key):
    assert read_key(provider_of('api_key_env = "K"'), {"K": value}) == key
    file = tmp_path / "key"
    file.write_text(value)
    assert read_key(provider_of(f'api_key_file = "{file}"'), {}) == key


def test_no_key_is_none(tmp_path):
    assert read_key(provider_of('api_key_env = "K"'), {}) is None
    assert read_key(provider_of('auth = "none"'), {"K": "k"}) is None


@pytest.mark.parametrize("value", ["two words", "a\r\nX-Evil: 1", "tab\tin", "ключ", "nul\0", "del\x7f"])
def test_a_key_that_is_no_headers_value_is_refused_without_being_told(value):
    with pytest.raises(StartError, match="provider 'p'") as caught:
        read_key(provider_of('api_key_env = "K"'), {"K": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "directory", "binary"])
def test_a_key_file_that_cannot_be_read(tmp_path, kind):
    file = tmp_path / "key"
    if kind == "directory":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartError, match=str(file)) as caught:
        read_key(provider_of(f'api_key_file = "{file}"'), {})
    assert "'p'" in str(caught.value)


@pytest.mark.parametrize(("mode", "key", "auth", "listen", "simulated"), [
    ("never", None, "bearer", "127.0.0.1:1", False),
    ("never", "k", "bearer", "127.0.0.1:1", False),
    ("always", None, "bearer", "127.0.0.1:1", True),
    ("always", "k", "none", "0.0.0.0:1", True),
    ("auto", None, "bearer", "127.0.0.1:1", True),
    ("auto", None, "bearer", "unix:/tmp/x.sock", True),
    ("auto", None, "x-api-key", "[::1]:1", True),
    ("auto", "k", "bearer", "127.0.0.1:1", False),
    ("auto", None, "none", "127.0.0.1:1", False),
    ("auto", None, "passthrough", "127.0.0.1:1", False),
    ("auto", None, "bearer", "0.0.0.0:1", False),
    ("auto", None, "bearer", '127.0.0.1:1", "0.0.0.0:1', False),
])  # fmt: skip
def test_when_the_simulator_answers(mode, key, auth, listen, simulated):
    text = mock_text("http://127.0.0.1:1/v1", f'listen = ["{listen}"]', more=f'[simulator]\nmode = "{mode}"')
    text = text.replace('api_key_env = "MOCK_KEY"', f'auth = "{auth}"')
    assert simulates(parse(text), {"mock": key}) is simulated


# ---------------------------------------------------------------------- providers

TWO = """
[providers.a]
base_url = "http://127.0.0.1:1/v1"
api_key_env = "A"
[providers.b]
base_url = "http://127.0.0.1:2/v1"
api_key_env = "B"
[models."a/m"]
"""


def prepared(text: str, previous=None, port: int = 0, **environ: str):
    config = parse(text)
    return prepare(config, read_keys(config, environ), port, previous)


@pytest.mark.parametrize(("change", "port", "keys", "kept"), [
    (("", ""), 0, {"A": "1", "B": "2"}, "ab"),
    (("", ""), 0, {"A": "1", "B": "3"}, "a"),
    (("", ""), 0, {"A": "1"}, "a"),
    (("127.0.0.1:2", "127.0.0.1:3"), 0, {"A": "1", "B": "2"}, "a"),
    (('[models."a/m"]', '[timeouts]\nconnect = "1s"\n[models."a/m"]'), 0, {"A": "1", "B": "2"}, ""),
    (("", ""), 9, {"A": "1", "B": "2"}, ""),
    (('[models."a/m"]', '[models."a/n"]'), 0, {"A": "1", "B": "2"}, "ab"),
])  # fmt: skip
def test_a_provider_that_is_as_it_was_stays_the_same_object(change, port, keys, kept):
    before = prepared(TWO, A="1", B="2")
    after = prepared(TWO.replace(*change), before, port, **keys)
    assert "".join(n for n in "ab" if after.providers[n] is before.providers[n]) == kept
    assert after.simulated is bool(port)
    assert after.usable == {"a": True, "b": bool(port) or "B" in keys}


def test_a_provider_whose_authorities_are_others_is_another_one(tmp_path):
    file = tmp_path / "ca.pem"
    text = TWO.replace('"http://127.0.0.1:2/v1"', f'"https://127.0.0.1:2/v1"\nca_file = "{file}"')
    trustme.CA().cert_pem.write_to_path(file)
    before = prepared(text)
    assert prepared(text, before).providers == before.providers
    trustme.CA().cert_pem.write_to_path(file)
    after = prepared(text, before)
    assert after.providers["a"] is before.providers["a"]
    assert after.providers["b"] is not before.providers["b"]
    assert before.authorities != after.authorities == {"b": file.read_bytes()}
    file.unlink()
    with pytest.raises(StartError, match="ca_file of provider 'b' can't be used"):
        prepared(text, after)


def test_what_simulates_is_told_how_and_has_no_key_at_any_endpoint():
    text = TWO.replace('api_key_env = "A"', 'api_key_env = "A"\nendpoints = ["chat", "messages"]\n'
                       'auth = { messages = "x-api-key" }')  # fmt: skip
    assert text != TWO
    made = prepared(text, port=9, A="secret")
    head = made.providers["a"].head(b"/chat/completions", b"")
    assert b"secret" not in head and b"POST /a/v1/chat/completions " in head
    head = read_request_head(b"POST /v1/messages HTTP/1.1\r\nHost: g\r\nX-Sim-Status: 503\r\nX-Team: 1")
    sent, _, _ = made.providers["a"].prepare(head, b"/messages")
    assert b"\r\nX-Sim-Status: 503\r\n" in sent
    assert b"secret" not in sent and b"api-key" not in sent and b"X-Team" not in sent


@pytest.mark.parametrize(("auth", "simulated"), [
    ('{ messages = "x-api-key", default = "none" }', True),
    ('{ messages = "none", default = "bearer" }', True), ('{ messages = "none", default = "none" }', False),
])  # fmt: skip
def test_a_provider_with_a_table_needs_a_key_where_one_endpoint_does(auth, simulated):
    text = (
        f'[providers.p]\nbase_url = "http://h/v1"\nauth = {auth}\nendpoints = ["chat", "messages"]\n'
        '[models."p/m"]\n[simulator]\nmode = "auto"\n'
    )
    assert simulates(parse(text), {"p": None}) is simulated


def test_traces_that_are_switched_off_or_can_not_be_switched_on(monkeypatch):
    assert open_tracing(TracesConfig(endpoint="http://127.0.0.1:1", sample=1.0), None) is None
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(StartError, match="max_queue_size must be"):
        open_tracing(TracesConfig(enabled=True), None)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    for module in ("proxy.control.telemetry.otlp", "proxy.control.telemetry.spans"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(StartError, match=r"enabled.*not installed.*pip install '/path/to/rep.*\[otel\]'"):
        open_tracing(TracesConfig(enabled=True), None)
