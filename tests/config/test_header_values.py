"""The grammars of settings about headers, parameters and where a key goes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import header_values
from proxy.config.parse import parse
from proxy.config.tables import ConfigError
from proxy.config.values import Read
from proxy.wire.header_lines import may_pass
from tests.config.test_values import toml_values

AUTH = header_values.auth(("bearer", "x-api-key", "none", "passthrough"), ("chat", "messages"))
GRAMMARS = [
    header_values.header_value, header_values.passed_header, header_values.dropped_header,
    header_values.passed_parameter, header_values.sticky, AUTH,
]  # fmt: skip


@given(st.sampled_from(GRAMMARS), toml_values)
def test_any_value_is_read_or_refused_with_a_sentence(read: Read, value: object) -> None:
    said = "must "
    try:
        read(value)
    except ValueError as error:
        said = str(error)
    assert said.startswith(("must ", "has ", "needs ", "can't "))


def test_headers_that_may_be_let_through():
    for name in ("x-team", "X-Team", "x-team-*", "X-*", "baggage", "user-agent", "cf-aig-metadata"):
        assert header_values.passed_header(name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("*", "name them, or a prefix"),
        ("X-Api-Key", 'with auth = "passthrough", and a fixed value goes with headers = { X-Api-Key = "…" }'),
        ("x-vendor-token", 'take it out; a fixed value goes with headers = { x-vendor-token = "…" }'),
        ("x-forwarded-*", "name single headers, or a longer prefix"),
        ("x-real-ip", "; take it out"),
        ("x-inferoute-timeout", "; take it out"),
        ("Host", "; take it out"),
        ("X_Team", "let clients send 'X-Team' and name that"),
        ("x_api_key", "; take it out; a fixed value"),
        ("*", "can't be all"),
        ("", "names of headers"),
        ("x team", "names of headers"),
        ("x-team:", "names of headers"),
        ("x-*-team", "names of headers"),
        ("x-**", "names of headers"),
        ("Authorization", "a credential"),
        ("x-api-key", "a credential"),
        ("openai-organization", "a credential"),
        ("Content-Type", "the gateway itself"),
        ("transfer-encoding", "the gateway itself"),
        ("host", "the gateway itself"),
        ("TE", "between the client and the gateway"),
        ("cookie", "between the client and the gateway"),
        ("x-forwarded-for", "between the client and the gateway"),
        ("x-forwarded-*", "between the client and the gateway"),
        ("x-inferoute-*", "the gateway alone"),
        ("X_Team", "has a '_'"),
        ("x_*", "has a '_'"),
        ("Origin", "who or where a user is"),
        ("referer", "who or where a user is"),
        ("sec-*", "who or where a user is"),
        ("cf-access-*", "who or where a user is"),
        ("x-vendor-token", "looks like a secret"),
        ("x-portkey-custom-host", "another gateway"),
    ],
)
def test_headers_that_may_not(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        header_values.passed_header(name)


@given(st.text("abxyz-_", min_size=1, max_size=10))
def test_what_is_let_through_can_pass(name):
    try:
        header_values.passed_header(name)
    except ValueError:
        assert not may_pass(name.encode())
    else:
        assert may_pass(name.encode())


def test_headers_that_are_dropped():
    for name in ("*", "user-agent", "X-Stainless-*", "cookie", "openai-project"):
        assert header_values.dropped_header(name) == name
    for name in ("Content-Type", "host"):
        with pytest.raises(ValueError, match="the gateway itself writes it"):
            header_values.dropped_header(name)


def test_parameters():
    for name in ("user", "filter[name]", "a.b", "$top"):
        assert header_values.passed_parameter(name) == name
    for name in ("", "*", "a&b", "a=b", "a;b", "a b", "a+b", "%61", "é", "a#", "x" * 101):
        with pytest.raises(ValueError, match="names of parameters, each by itself: without values"):
            header_values.passed_parameter(name)
    for name in ("model", "MODEL", "key", "api-key"):
        said = f'names a model or holds a secret; take it out, .* into query = {{ {name} = "…" }}'
        with pytest.raises(ValueError, match=said):
            header_values.passed_parameter(name)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("x-api-key", {"default": "x-api-key"}),
        ("passthrough", {"default": "passthrough"}),
        ({"messages": "x-api-key"}, {"messages": "x-api-key", "default": "bearer"}),
        ({"messages": "none", "default": "x-api-key"}, {"messages": "none", "default": "x-api-key"}),
    ],
)
def test_where_a_key_goes(value, found):
    assert AUTH(value) == found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "a table by endpoint"),
        ("baerer", "did you mean 'bearer'"),
        ({}, "an empty table"),
        ({"message": "bearer"}, "did you mean 'messages'"),
        ({"messages": "x-api-kye"}, "did you mean 'x-api-key'"),
        ({"messages": 1}, "must be text"),
        ({"messages": "passthrough"}, "for some endpoints only"),
        ({"default": "passthrough"}, "for some endpoints only"),
    ],
)
def test_what_is_no_place_for_a_key(value, said):
    with pytest.raises(ValueError, match=said):
        AUTH(value)


def test_a_header_that_is_set():
    assert header_values.header_name("X-Team") == "X-Team"
    for name in ("a b", "", "Content-Type", "HOST", "te"):
        with pytest.raises(ValueError, match="must not set the header"):
            header_values.header_name(name)
    with pytest.raises(ValueError, match="line breaks"):
        header_values.header_value("a\r\nb")


def test_what_a_sticky_split_goes_by():
    for written in ("key", "header:x-user", "header:session_id"):
        assert header_values.sticky(written) == written
    for written in ("header:cookie", "header:authorization", "header:content-type"):
        with pytest.raises(ValueError, match="which is not kept"):
            header_values.sticky(written)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('pass_headers = ["x-a", "cookie"]', "3:24: 'pass_headers' can't let 'cookie' pass"),
        ('pass_headers = "*"', "3:16: 'pass_headers' can't be all"),
        ('pass_headers = ["x-a"]\ndrop_headers = ["X-A"]', "'drop_headers' has too: take it out of one"),
        ('pass_headers = ["x-a"]\nheaders = { X-A = "1" }', "'headers' has too: take it out of one"),
        ('pass_query = ["model"]', "3:15: 'pass_query' can't let 'model' pass"),
        ('pass_query = ["q"]\nquery = { Q = "1" }', "'query' sets: take it out of one"),
        ('auth = { messages = "x-api-key" }', "'endpoints' lacks 'messages'"),
        ('auth = { count_tokens = "x-api-key" }', "'endpoints' lacks 'messages'"),
        ('auth = { default = "none" }\napi_key_env = "K"', "'api_key_env' has no use with auth = \"none\""),
        ('headers = { content-type = "a" }', "must not set the header 'content-type'"),
    ],
)
def test_mistakes_of_a_provider(lines, said):
    text = f'[providers.p]\nbase_url = "https://api.example.com/v1"\n{lines}\n[models."p/m"]\n'
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert said in str(raised.value), str(raised.value)
    assert len(raised.value.mistakes) == 1


def test_settings_of_a_provider():
    text = (
        '[providers.p]\nbase_url = "https://api.example.com/v1"\npass_headers = ["x-team-*", "X-User"]\n'
        'drop_headers = "user-agent"\npass_query = ["user"]\nendpoints = ["chat", "messages"]\n'
        'auth = { messages = "x-api-key", chat = "bearer", default = "bearer" }\n[models."p/m"]\n'
    )
    provider = parse(text).providers["p"]
    assert provider.pass_headers == ("x-team-*", "X-User")
    assert (provider.drop_headers, provider.pass_query) == (("user-agent",), ("user",))
    assert (provider.auth, provider.auth_at) == ("bearer", (("messages", "x-api-key"),))
    found = [provider.auth_of(name) for name in ("chat", "messages", "count_tokens")]
    assert found == ["bearer", "x-api-key", "x-api-key"]
