"""Which parameters of a query pass, and in which bytes."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.wire.query import PASSING_PARAMETERS, flag, is_never_passed, passing, passing_names

LISTED = passing_names((), ())


@pytest.mark.parametrize(("query", "kept", "dropped"), [
    (b"", b"", []), (b"beta=true", b"beta=true", []),
    (b"api-version=1&after=a&limit=5&order=asc", b"api-version=1&after=a&limit=5&order=asc", []),
    (b"include[]=a&include%5B%5D=b&include%5b]=c", b"include[]=a&include%5B%5D=b&include%5b]=c", []),
    (b"b%65ta=%74rue", b"b%65ta=%74rue", []),  # the server reads it as we do
    (b"beta", b"beta", []), (b"beta=1&beta=2", b"beta=1&beta=2", []),
    (b"beta=a%26model%3Db", b"beta=a%26model%3Db", []), (b"beta=a=b?c", b"beta=a=b?c", []),
    (b"&&beta=1&&", b"beta=1", []), (b"model=dear", b"", [b"model"]),
    (b"MODEL=dear&Model=dear", b"", [b"MODEL", b"Model"]),
    (b"%6dodel=dear&m%6Fdel=dear&%6D%6F%64%65%6C=dear", b"", [b"model"] * 3),
    (b"model[]=a&model%5B0%5D=b", b"", [b"model[]", b"model[0]"]),
    (b"key=AIza&api_key=a&api%5Fkey=a&api+key=a", b"", [b"key", b"api_key", b"api_key", b"api key"]),
    (b"%25%36beta=1&%2562eta=1", b"", [b"%6beta", b"%62eta"]),  # decoded once, as servers do
    (b"Beta=1&BETA=1&+beta=1&beta+=1&beta%00=1", b"", [b"Beta", b"BETA", b" beta", b"beta ", b"beta\0"]),
    (b"=1&=", b"", [b"", b""]), (b"beta=true;model=dear", b"", [b"beta=true;"]),
    (b"beta;model=dear&limit=1", b"limit=1", [b"beta;"]), (b"limit=1&;model=dear", b"limit=1", [b";"]),
    (b"beta=a%3Bb", b"beta=a%3Bb", []), (b"include=a&include[0]=a", b"", [b"include", b"include[0]"]),
    (b"?beta=1", b"", [b"?beta"]), (b"b\xe9ta=1&%FF=1", b"", [b"b\xe9ta", b"\xff"]),
])  # fmt: skip
def test_parameters(query, kept, dropped):
    assert passing(query, LISTED) == (kept, dropped)


def test_a_providers_own_are_never_a_clients():
    assert passing_names((), ("api-version",)) == LISTED - {b"api-version"}
    assert passing_names((), ("API-Version", "z")) == LISTED - {b"api-version"}
    names = passing_names(("x", "y"), ("Y",))
    assert names == LISTED | {b"x"}
    assert passing(b"x=1&y=2&%78=3", names) == (b"x=1&%78=3", [b"y"])


def test_what_names_a_model_or_a_key_is_never_let_through():
    for name in (
        "model", "Model", "MODELS", "key", "api_key", "api-key", "API.KEY", "apiKey", "access_token",
    ):  # fmt: skip
        assert is_never_passed(name), name
        assert passing_names((name,), ()) == LISTED
    for name in (*PASSING_PARAMETERS, "model_group", "monkey", "user"):
        assert not is_never_passed(name), name


names = st.one_of(st.sampled_from([*PASSING_PARAMETERS, "model", "Model", "key", "api_key", "x"]), st.text())


@given(st.lists(st.tuples(names, st.text(), st.sampled_from(["", "[]", "%5B%5D", "ALL", ";"])), max_size=5))
def test_a_server_sees_no_other_name_however_it_is_spelled(pairs):
    """Of those that separate at ``&``, and those that separate at ``;`` as well."""
    parts = []
    for name, value, how in pairs:
        all_escaped = "".join(f"%{byte:02x}" for byte in name.encode())
        spelled = all_escaped if how == "ALL" else quote(name, safe="[];") + how
        parts.append(f"{spelled}={quote(value, safe=';=+')}")
    query = "&".join(parts).encode()
    kept, dropped = passing(query, LISTED)
    text = kept.decode()
    for separator in ("&", ";"):
        seen = parse_qsl(text.replace(separator, "&"), keep_blank_values=True)
        assert {name for name, _ in seen} <= set(PASSING_PARAMETERS)
    assert len(dropped) + len([part for part in kept.split(b"&") if part]) == len([p for p in parts if p])
    assert all(part in query.split(b"&") for part in kept.split(b"&") if part)


@pytest.mark.parametrize(("query", "says"), [
    (b"", False), (b"x=all", False), (b"xall=1", False), (b"all=", False), (b"all", True),
    *((b"all=" + word, True) for word in (b"1", b"true", b"TRUE", b"yes", b"on", b"%74rue")),
    *((b"a=b&all=" + word, False) for word in (b"0", b"false", b"False", b"no", b"off")), (b"%61ll=1", True),
    (b"all=1;b=2", False),  # the latter has a name that none has
])  # fmt: skip
def test_flags(query, says):
    assert flag(query, b"all") is says


@pytest.mark.parametrize(("query", "said"), [
    (b"all=2", "must be true or false"), (b"all=tru", "must be true or false"),
    (b"all=1=1", "must be true or false"), (b"all=%FF", "must be true or false"),
    (b"all=1&all=0", "more than once"), (b"all=&all", "more than once"),
])  # fmt: skip
def test_flags_that_say_neither(query, said):
    with pytest.raises(BadRequest, match=f"^'all' .*{said}") as caught:
        flag(query, b"all")
    assert (caught.value.code, caught.value.param) == ("invalid_query", "all")
