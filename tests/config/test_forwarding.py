"""What of a client's head passes to a provider, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.forwarding import NOT_LISTED, PARAMETER_NOT_LISTED, HeaderNames, Passing, listed, why_never
from proxy.config.parse import parse
from proxy.wire.header_lines import (
    CREDENTIAL_HEADERS,
    HOP_HEADERS,
    OWN_HEADERS,
    PASSING_HEADERS,
    PASSING_PREFIXES,
)
from tests.support.heads import request


def passing(lines: str = "") -> Passing:
    text = f'[providers.p]\nbase_url = "https://api.example.com/v1"\n{lines}\n[models."p/m"]\n'
    return Passing(parse(text).providers["p"])


def test_names():
    names = HeaderNames(("X-Team", "x-user-*"))
    assert names
    assert not HeaderNames(())
    for name in (b"x-team", b"x-user-", b"x-user-a"):
        assert names.has(name)
    for name in (b"x-team-a", b"x-user", b"x-tea", b""):
        assert not names.has(name)
        assert not HeaderNames(()).has(name)
    assert HeaderNames(("*",)).has(b"anything")


def test_a_provider_that_changes_nothing_gets_the_heads_own_lines():
    head = request(b"Accept: a", b"X-Title: b")
    lines, dropped = passing().lines(head)
    assert lines is head.lines
    assert dropped == []
    head = request(b"Accept: a", b"X-Team: b", b"x-team: c", b"X_B: d")
    lines, dropped = passing().lines(head)
    assert lines is head.lines
    assert dropped == [b"x-team", b"x-team", b"x_b"]


def test_what_is_let_through_is_as_it_was_sent():
    head = request(b"X-Team:  A ", b"Accept: a", b"x-TEAM: B", b"X-Other: c")
    passed = passing('pass_headers = ["X-team"]').lines(head)
    assert passed == ([b"Accept: a", b"X-Team:  A ", b"x-TEAM: B"], [b"x-other"])
    assert head.lines == [b"Accept: a"]  # it is shared


NEVER = [
    "origin", "referer", "cookie", "forwarded", "via", "x-forwarded-for", "x-real-ip", "x-inferoute-strategy",
    "authorization", "x-api-key", "openai-project", "content-type", "content-length", "host", "connection",
    "te", "sec-fetch-mode", "access-control-request-method", "cf-access-jwt-assertion", "cf-connecting-ip",
    "x-portkey-custom-host", "x-portkey-config", "helicone-target-url", "helicone-auth", "x-a-token",
    "x_team", "x-tokenhub-key", "x-auth-request-email", "x-goog-iap-jwt-assertion", "x-team-api-key",
]  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_some_never_pass_whatever_is_let_through(name):
    open_to_all = passing('pass_headers = ["x-*", "o*", "r*", "c*", "f*", "h*", "s*", "a*", "t*", "v*"]')
    for spelled in (name, name.upper(), name.title()):
        line = spelled.encode() + b": 1"
        if name not in ("content-length", "host", "connection"):  # those a head needs well-formed
            assert open_to_all.lines(request(line))[0] == []
    assert why_never(name.encode())
    assert open_to_all.why_no_header(name.encode()) == why_never(name.encode())


listed_names = st.sampled_from([*PASSING_HEADERS, *(prefix + b"x" for prefix in PASSING_PREFIXES)])
any_names = st.one_of(
    listed_names,
    st.sampled_from([*HOP_HEADERS, *OWN_HEADERS, *CREDENTIAL_HEADERS, *(name.encode() for name in NEVER)]),
    st.text("abcdexyz-_019", min_size=1, max_size=16).map(str.encode),
)
RULES = [
    "", 'pass_headers = ["x-*"]', 'drop_headers = ["x-*", "accept"]', 'drop_headers = ["*"]',
    'headers = { X-Title = "a" }\npass_headers = ["a*", "x"]', 'auth = "passthrough"',
    'auth = "passthrough"\ndrop_headers = ["openai-*"]',
]  # fmt: skip


@given(any_names, st.sampled_from(RULES))
def test_what_is_said_of_a_header_is_what_becomes_of_it(name, rules):
    made = passing(rules)
    if name in (b"content-length", b"transfer-encoding", b"host", b"connection"):
        assert made.why_no_header(name)
        return
    head = request(name + b": 1")
    lines, dropped = made.lines(head)
    given = [field for field, _ in head.credentials if field != b"x-tokenhub-key" and made.lets(field)]
    passes = bool(lines) or (made.is_passthrough and bool(given))
    assert (made.why_no_header(name) is None) == passes
    assert dropped == ([name] if head.aside and not passes else [])


def test_the_reasons():
    made = passing('headers = { x-a = "1" }\ndrop_headers = ["accept"]')
    for name, reason in (
        (b"user-agent", None),
        (b"x-team", NOT_LISTED),
        (b"x-a", NOT_LISTED),
        (b"accept", "is in 'drop_headers' of the provider"),
        (b"content-type", "is written by the gateway itself"),
        (b"authorization", "is a credential, and those stay at the gateway"),
        (b"cookie", "is between the client and the gateway"),
        (b"x-forwarded-for", "is between the client and the gateway"),
        (b"x-inferoute-a", "is for the gateway alone"),
        (b"x_a", "has a '_', which some servers read as '-'"),
        (b"referer", "tells who or where a user is"),
        (b"x-session-token", "looks like a secret by its name"),
        (b"x-portkey-config", "tells another gateway where to send the operator's key"),
    ):
        assert made.why_no_header(name) == reason, name
    made = passing('headers = { accept = "1" }')
    assert made.why_no_header(b"accept") == "is set by 'headers' of the provider"
    made = passing('query = { q = "1" }')
    for name, reason in (
        (b"beta", None),
        (b"x", PARAMETER_NOT_LISTED),
        (b"q", "is set by 'query' of the provider"),
        (b"Q", "is set by 'query' of the provider"),
        (b"MODEL", "names a model or holds a secret"),
        (b"beta=1;", "holds a ';', which some servers read as '&'"),
    ):
        assert made.why_no_parameter(name) == reason, name


def test_the_list_as_people_read_it():
    assert {"accept", "user-agent", "anthropic-*", "session-id"} <= set(listed())
    for name in listed():
        assert passing().why_no_header(name.replace("*", "x").encode()) is None


def test_a_value_that_is_too_long_passes_where_its_name_is_listed():
    line = b"X-Request-Id: " + b"z" * 600
    head = request(line, b"X-Title: a")
    assert passing().lines(head) == ([b"X-Title: a"], [b"x-request-id"])
    assert passing('pass_headers = ["x-request-id"]').lines(head) == ([b"X-Title: a", line], [])
