"""The grammars of single settings; test_sections and test_routes have their mistakes in whole files."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import values

GRAMMARS = [
    values.flag, values.text, values.filled, values.choice(("a", "b"), "letter"), values.whole(0, 9),
    values.number(0, 1), values.price, values.seconds, values.positive_seconds, values.size,
    values.positive_size, values.octal_mode, values.listen, values.base_url, values.url(("http",)),
    values.origin, values.env_name, values.hedge,
]  # fmt: skip
toml_values = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(":/.@[]?#unixhtps019 -smhKiB%", max_size=20),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.just(datetime.time(7, 32)),
)


@given(st.sampled_from(GRAMMARS), toml_values)
def test_any_value_is_read_or_refused_with_a_sentence(read: values.Read, value: object) -> None:
    said = "must "
    try:
        read(value)
    except ValueError as error:
        said = str(error)
    assert said.startswith(("must ", "has ", "needs "))


LONG = "a" * 63
HOSTS = ("a", "a.b.", "_x.y-z", f"{LONG}.{LONG}.{LONG}.b", "1a.0")
READ = [
    (values.seconds, {"1ms": 0.001, "30s": 30.0, "1.5m": 90.0, "24h": 86400.0, "0s": 0.0, "5 s": 5.0}),
    (values.size, {"1KiB": 1024, "64MiB": 64 << 20, "0.5GiB": 512 << 20}),
    (values.listen, {
        "127.0.0.1:8080": ("127.0.0.1", 8080, ""), "[0:0::1]:0": ("::1", 0, ""),
        "LOCALHOST:80": ("localhost", 80, ""), "unix:/run/x.sock": ("", 0, "/run/x.sock"),
        **{f"{host}:80": (host, 80, "") for host in HOSTS},
    }),
    (values.base_url, {
        "https://api.x.com": ("https://api.x.com", "https", "api.x.com", 443, ""),
        "http://API.x.com/v1//": ("http://API.x.com/v1", "http", "api.x.com", 80, "/v1"),
        "https://[::1]:8443/a/b": ("https://[::1]:8443/a/b", "https", "::1", 8443, "/a/b"),
    }),
    (values.octal_mode, dict.fromkeys(("660", "0660", "0o660"), 0o660)),
    (values.is_loopback, {
        **dict.fromkeys(("127.3.2.1", "::1", "localhost", "a.localhost"), True),
        **dict.fromkeys(("10.0.0.1", "example.com", "0.0.0.0", "::"), False),
    }),
]  # fmt: skip
CASES = [(read, written, expected) for read, cases in READ for written, expected in cases.items()]


@pytest.mark.parametrize(("read", "written", "expected"), CASES)
def test_what_is_written_is_read(read: values.Read, written: str, expected: object) -> None:
    assert read(written) == expected
    assert isinstance(read(written), type(expected))


NO_HOSTS = [
    "-a", "a..b", ".a", "a b", "a/b", f"{LONG}a", ".".join([LONG] * 4),
    # This one is refused at once, and not after having been cut into labels in every way.
    "q" * 60 + "." + "é" * 50 + "q" * 80,
]  # fmt: skip


@pytest.mark.parametrize("host", NO_HOSTS)
def test_no_names_of_hosts(host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        values.listen(f"{host}:80")


def test_nearest_ignores_case_and_gives_the_name_as_it_is() -> None:
    assert values.nearest("STRATEGI", ["Strategy", "x"]) == "Strategy"
    assert values.nearest("zzz", ["Strategy"]) is None
    assert values.nearest("x", []) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [(True, "true or false"), (1, "a number"), ("", "text"), ([], "a list"), ({}, "a table"),
     (datetime.date(2026, 1, 1), "a date or time")],
)  # fmt: skip
def test_kind(value: object, words: str) -> None:
    assert values.kind(value) == words


def test_origin() -> None:
    assert values.origin("*") == "*"
    assert values.origin("https://chat.example.com:8443") == "https://chat.example.com:8443"
    for app in ("app://obsidian.md", "tauri://localhost", "chrome-extension://abc", "capacitor://localhost"):
        assert values.origin(app) == app
    for none in ("app://", "app://a/", "app://a/b", "app://u@a", "APP://a", "app:a", "app://a:1", "null"):
        with pytest.raises(ValueError, match="must be"):
            values.origin(none)
