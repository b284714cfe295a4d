"""The grammars of single settings; test_sections and test_routes have their mistakes in whole files."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import values

GRAMMARS = [
    values.flag,
    values.text,
    values.filled,
    values.choice(("a", "b"), "letter"),
    values.whole(0, 9),
    values.number(0, 1),
    values.price,
    values.seconds,
    values.positive_seconds,
    values.size,
    values.positive_size,
    values.octal_mode,
    values.listen,
    values.base_url,
    values.url(("http",)),
    values.origin,
    values.env_name,
    values.hedge,
]
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


@pytest.mark.parametrize(
    ("written", "expected"),
    [("1ms", 0.001), ("30s", 30.0), ("1.5m", 90.0), ("24h", 86400.0), ("0s", 0.0), ("5 s", 5.0)],
)
def test_seconds(written: str, expected: float) -> None:
    assert values.seconds(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"), [("1KiB", 1024), ("64MiB", 64 << 20), ("0.5GiB", 512 << 20)]
)
def test_size(written: str, expected: int) -> None:
    assert values.size(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080, "")),
        ("[0:0::1]:0", ("::1", 0, "")),
        ("LOCALHOST:80", ("localhost", 80, "")),
        ("unix:/run/x.sock", ("", 0, "/run/x.sock")),
    ],
)
def test_listen(written: str, expected: tuple[str, int, str]) -> None:
    assert values.listen(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("https://api.x.com", ("https://api.x.com", "https", "api.x.com", 443, "")),
        ("http://API.x.com/v1//", ("http://API.x.com/v1", "http", "api.x.com", 80, "/v1")),
        ("https://[::1]:8443/a/b", ("https://[::1]:8443/a/b", "https", "::1", 8443, "/a/b")),
    ],
)
def test_base_url(written: str, expected: tuple[str, str, str, int, str]) -> None:
    assert values.base_url(written) == expected


LONG = "a" * 63


@pytest.mark.parametrize("host", ["a", "a.b.", "_x.y-z", f"{LONG}.{LONG}.{LONG}.b", "1a.0"])
def test_names_of_hosts(host: str) -> None:
    assert values.listen(f"{host}:80") == (host, 80, "")


@pytest.mark.parametrize(
    "host",
    # The last one is refused at once, and not after having been cut into labels in every way.
    [
        "-a",
        "a..b",
        ".a",
        "a b",
        "a/b",
        f"{LONG}a",
        ".".join([LONG] * 4),
        "q" * 60 + "." + "é" * 50 + "q" * 80,
    ],
)
def test_no_names_of_hosts(host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        values.listen(f"{host}:80")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.3.2.1", True), ("::1", True), ("localhost", True), ("a.localhost", True), ("10.0.0.1", False),
     ("example.com", False), ("0.0.0.0", False), ("::", False)],
)  # fmt: skip
def test_is_loopback(host: str, expected: bool) -> None:
    assert values.is_loopback(host) is expected


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


def test_octal_mode_spellings() -> None:
    assert [values.octal_mode(mode) for mode in ("660", "0660", "0o660")] == [0o660] * 3


def test_origin() -> None:
    assert values.origin("*") == "*"
    assert values.origin("https://chat.example.com:8443") == "https://chat.example.com:8443"
    for app in ("app://obsidian.md", "tauri://localhost", "chrome-extension://abc", "capacitor://localhost"):
        assert values.origin(app) == app
    for none in ("app://", "app://a/", "app://a/b", "app://u@a", "APP://a", "app:a", "app://a:1", "null"):
        with pytest.raises(ValueError, match="must be"):
            values.origin(none)
