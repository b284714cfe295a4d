"""What explain says of a request's head is what a provider gets of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.forwarding import NOT_LISTED, PARAMETER_NOT_LISTED, TOO_LONG
from proxy.config.parse import parse
from proxy.control.admin.forwarding import forwarding
from proxy.errors import BadRequest
from proxy.relay.upstream.provider import Provider
from proxy.wire.header_lines import CREDENTIAL_HEADERS, HOP_HEADERS, PASSING_HEADERS
from proxy.wire.request_head import read_request_head

TEXT = """
[providers.a]
base_url = "http://a/v1"
[providers.b]
base_url = "http://b/v1"
pass_headers = ["x-team-*", "x-user"]
drop_headers = ["user-agent"]
pass_query = ["user"]
query = { limit = "1" }
headers = { X-Title = "ours" }
[providers.c]
base_url = "http://c/v1"
auth = "passthrough"
compression = "pass"
[models."a/m"]
"""
CONFIGS = parse(TEXT).providers


def told(lines, query=None, names="abc") -> dict[tuple[str, str], str | None]:
    """Reasons by provider and name."""
    rows = forwarding(lines, query, [CONFIGS[name] for name in names])
    assert all(row["passes"] == (row["reason"] is None) for row in rows)
    return {(row["provider"], row["name"]): row["reason"] for row in rows}


def test_headers():
    lines = [
        "User-Agent: a", "X-Team-A: a", "X-Title: a", "Authorization: Bearer sk-1", "Accept-Encoding: gzip",
    ]  # fmt: skip
    credential = "is a credential, and those stay at the gateway"
    own = "is written by the gateway itself"
    assert told(lines) == {
        ("a", "User-Agent"): None,
        ("a", "X-Team-A"): NOT_LISTED,
        ("a", "X-Title"): None,
        ("a", "Authorization"): credential,
        ("a", "Accept-Encoding"): own,
        ("b", "User-Agent"): "is in 'drop_headers' of the provider",
        ("b", "X-Team-A"): None,
        ("b", "X-Title"): "is set by 'headers' of the provider",
        ("b", "Authorization"): credential,
        ("b", "Accept-Encoding"): own,
        ("c", "User-Agent"): None,
        ("c", "X-Team-A"): NOT_LISTED,
        ("c", "X-Title"): None,
        ("c", "Authorization"): None,
        ("c", "Accept-Encoding"): None,
    }


def test_what_hangs_on_values_of_which_none_is_told():
    assert told(["Authorization: Bearer th-1"], names="c") == {
        ("c", "Authorization"): "holds a key of this gateway"
    }
    lines = ["X-User: 1", "Connection: x-user"]
    assert told(lines, names="b")["b", "X-User"] == "is named by the Connection header"
    assert told(["X-Request-Id: " + "z" * 600], names="a") == {("a", "X-Request-Id"): TOO_LONG}
    assert told(["X-Request-Id: z"], names="a") == {("a", "X-Request-Id"): None}
    rows = forwarding(["X-Team: s3cret", "Authorization: s3cret", "s: s3cret"], "a=s3cret", CONFIGS.values())
    assert "s3cret" not in json.dumps(rows)


def test_parameters():
    found = told(None, "beta=1&user=2&limit=3&m%6fdel=x&beta=2")
    assert found["a", "beta"] is found["b", "beta"] is found["b", "user"] is found["a", "limit"] is None
    assert found["a", "user"] == PARAMETER_NOT_LISTED
    assert found["b", "limit"] == "is set by 'query' of the provider"
    assert found["a", "model"] == "names a model or holds a secret"


@pytest.mark.parametrize(("lines", "query", "said"), [
    ("X: 1", None, "must be a list of lines"),
    ([1], None, "must be a list of lines"),
    (["X"], None, "must be a list of lines"),
    ([": x"], None, "must be a list of lines"),
    (["X: 1\r\nHost: b"], None, "must be a list of lines"),
    ({}, None, "must be a list of lines"),
    (["X Y: 1"], None, "is not a header field"),
    (["X: \x00"], None, "holds a control character"),
    (["Host: a", "Host: b"], None, "Exactly one Host"),
    (["Content-Type: text/html"], None, r"refused \(415\)"),
    (["Content-Encoding: gzip"], None, r"refused \(400\)"),
    (["X-Inferoute-Strategy: fast"], None, "Unknown strategy"),
    ([f"X-{number}: 1" for number in range(300)], None, r"refused \(431\)"),
    (["X: " + "x" * 40_000], None, "larger than 32 KiB"),
    (None, 1, "must be text as it stands"),
    (None, "a b", "must be text as it stands"),
    (None, "a#b", "must be text as it stands"),
    (None, "é", "must be text as it stands"),
    (None, "a\r\nb", "must be text as it stands"),
])  # fmt: skip
def test_what_is_no_head(lines, query, said):
    with pytest.raises(BadRequest, match=said) as raised:
        forwarding(lines, query, CONFIGS.values())
    assert (raised.value.status, raised.value.code) == (400, "invalid_headers")


PROVIDERS = [Provider(config, None, 1.0, simulated=False) for config in CONFIGS.values()]
names = st.one_of(
    st.sampled_from([name.decode() for name in (*PASSING_HEADERS, *CREDENTIAL_HEADERS, *HOP_HEADERS)]),
    st.sampled_from(
        ["x-team-a", "X-User", "x_user", "origin", "Accept-Encoding", "openai-beta", "x-inferoute-a"]
    ),
    st.text("abx-_", min_size=1, max_size=6),
)


@given(
    st.lists(names, max_size=4, unique_by=str.lower),
    st.lists(st.sampled_from(["beta", "user", "key", "%75ser"])),
)
def test_it_is_what_a_provider_gets(given_names, parameters):
    value_of = {name: "gzip" if name == "Accept-Encoding" else "1" for name in given_names}
    lines = [f"{name}: {value}" for name, value in value_of.items()]
    query = "&".join(f"{name}=1" for name in parameters)
    head = read_request_head(
        f"POST /v1/x?{query} HTTP/1.1\r\n".encode() + "\r\n".join(["Host: g", *lines]).encode()
    )
    found = told(lines, query)
    for provider in PROVIDERS:
        sent = provider.prepare(head, b"/x")[0].decode()
        for name in given_names:
            passes = f"\r\n{name}: {value_of[name]}\r\n".lower() in sent.lower()
            assert (found[provider.config.name, name] is None) == passes, (provider.config.name, name)
        target = sent.split(" ")[1]
        for name in parameters:
            plain = name.replace("%75", "u")
            assert (found[provider.config.name, plain] is None) == (f"{name}=1" in target)
