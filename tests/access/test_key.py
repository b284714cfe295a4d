"""What a key may be set to, and how it is shown."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.key import (
    FIELDS,
    FORM,
    ID_FORM,
    LIMITS,
    NUSD,
    PREFIX,
    Key,
    KeySettingsError,
    check_models,
    digest_of,
    is_glob,
    read_rotation,
    read_settings,
)
from proxy.storage.key_table import make_key

NOW = 1_780_315_200.0  # 2026-06-01 12:00 UTC


def mistakes(given: dict) -> str:
    with pytest.raises(KeySettingsError) as caught:
        read_settings(given, NOW)
    return str(caught.value)


def test_every_field():
    given = {
        "name": "  prod  ",
        "rpm": 60,
        "tpm": 10_000.0,
        "concurrency": 1,
        "monthly_usd": 12.5,
        "monthly_tokens": 1_000_000_000_000,
        "max_tokens": 4096,
        "models": ["openai/*", "premium", "openai/*"],
        "expires": "2027-01-31",
        "on_disconnect": "drain",
    }
    assert set(given) == set(FIELDS)
    found = read_settings(given, NOW)
    assert found == {
        "name": "prod",
        "rpm": 60,
        "tpm": 10_000,
        "concurrency": 1,
        "monthly_nusd": 12_500_000_000,
        "monthly_tokens": 1_000_000_000_000,
        "max_tokens": 4096,
        "models": ("openai/*", "premium"),
        "expires": int(datetime(2027, 1, 31, tzinfo=UTC).timestamp()),
        "on_disconnect": "drain",
    }
    assert all(type(found[name]) is int for name in ("rpm", "tpm", "monthly_nusd"))
    Key(id="key_1", digest=b"", created=0, **found)  # they are its fields
    assert read_settings({}, NOW) == {}


def test_null_lifts_a_limit_but_no_name():
    nothing = dict.fromkeys((*FIELDS[1:],))
    found = read_settings(nothing, NOW)
    assert set(found.values()) == {None}
    assert "monthly_nusd" in found and "monthly_usd" not in found
    assert mistakes({"name": None}) == "'name' must be text that says whose key it is."


def test_limits_may_stand_together_as_rows_show_them():
    limits = {"rpm": 1, "tpm": 2, "concurrency": 3, "monthly_usd": 4, "monthly_tokens": 5, "max_tokens": None}
    assert set(limits) == set(LIMITS)
    found = read_settings({"limits": limits}, NOW)
    assert found == {
        "rpm": 1, "tpm": 2, "concurrency": 3, "monthly_nusd": 4 * NUSD, "monthly_tokens": 5,
        "max_tokens": None,
    }  # fmt: skip
    assert read_settings({"limits": {"rpm": 1}, "rpm": 7}, NOW) == {"rpm": 7}  # the plain one counts
    assert mistakes({"limits": {"rpm": 0}, "rpm": 7}).startswith("'rpm' must be a whole number")
    assert mistakes({"limits": [1]}) == "'limits' must be an object."
    assert mistakes({"limits": None}) == "'limits' must be an object."
    assert mistakes({"limits": {"rmp": 1}}) == "There is no limit 'rmp'; did you mean 'rpm'?"
    text = mistakes({"limits": {"name": "x"}})  # it is a setting, but no limit
    assert text.startswith("There is no limit 'name'; there are rpm, tpm, ")


def test_a_row_can_be_sent_back():
    key = Key(id="k", name="n", digest=b"", created=1, rpm=5, monthly_nusd=NUSD // 10, models=("a/*",))
    row = key.row(3, 4, None)
    given = {name: row[name] for name in ("name", "models", "expires", "on_disconnect", "limits")}
    found = read_settings(given, NOW)
    assert (found["rpm"], found["monthly_nusd"], found["models"]) == (5, NUSD // 10, ("a/*",))


def test_all_mistakes_are_told_at_once():
    text = mistakes({"rpm": 0, "tmp": 1, "zzzzzz": 1, "monthly_usd": -1, "models": [], "on_disconnect": "x"})
    assert text.startswith("There is no setting 'tmp'; did you mean 'tpm'?; there is no setting 'zzzzzz'; ")
    for part in ("there are name, rpm", "'rpm' must be", "'monthly_usd' must be", "'models' must be"):
        assert part in text
    assert text.endswith("'on_disconnect' must be 'cancel' or 'drain', or null for what the alias says.")


def test_a_name_that_is_none_is_not_repeated_whole():
    assert len(mistakes({"x" * 10_000: 1})) < 300


@pytest.mark.parametrize("name", ["rpm", "tpm", "concurrency", "monthly_tokens", "max_tokens"])
@pytest.mark.parametrize(
    "value", [0, -1, True, False, 1.5, "5", [], {}, 10**13, 1e300, float("nan"), float("inf")]
)
def test_what_is_no_count(name, value):
    assert mistakes({name: value}).startswith(f"'{name}' must be a whole number from 1 to ")


@pytest.mark.parametrize("value", [0, -1, True, "5", [], 10**9 + 1, float("nan"), float("inf"), 1e300])
def test_what_is_no_money(value):
    assert mistakes({"monthly_usd": value}).startswith("'monthly_usd' must be a number of dollars above 0")


def test_money_is_exact():
    def nusd(value: float) -> int:
        return read_settings({"monthly_usd": value}, NOW)["monthly_nusd"]

    assert [nusd(value) for value in (0.1, 0.3, 1, 10**9)] == [10**8, 3 * 10**8, NUSD, 10**18]
    assert nusd(1e-9) == 1
    assert nusd(123456.789012345) == 123_456_789_012_345
    assert "nine decimals" in mistakes({"monthly_usd": 1e-10})
    assert "nine decimals" in mistakes({"monthly_usd": 0.1234567891})


@given(st.integers(1, 10**15))
def test_money_there_and_back(nusd):
    value = float(Decimal(nusd) / NUSD)
    assert read_settings({"monthly_usd": value}, NOW) == {"monthly_nusd": nusd}
    assert Key("i", "n", b"", 0, monthly_nusd=nusd).limits()["monthly_usd"] == value


@pytest.mark.parametrize("value", ["", "  ", 5, None, "a\nb", "a\x00", "x" * 101, "\u202e", ["a"]])
def test_what_is_no_name(value):
    assert mistakes({"name": value}).startswith("'name' must be ")


@pytest.mark.parametrize(
    "value", [[], "", "a,,b", [1], ["a b"], ["é"], [""], {"a": 1}, 5, ["m"] * 201, ["x" * 201], True]
)
def test_what_is_no_list_of_models(value):
    assert mistakes({"models": value}).startswith("'models' must ")


def test_models_as_text_or_list():
    for value in ("a/b, premium ,c*", ["a/b", "premium", "c*"], ("a/b", "premium", "c*")):
        assert read_settings({"models": value}, NOW) == {"models": ("a/b", "premium", "c*")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        (" 2027-01-31 ", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:00:00Z", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00+02:00", datetime(2027, 1, 31, 16, tzinfo=UTC)),
        ("2027-01-31 18:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("30d", datetime(2026, 7, 1, 12, tzinfo=UTC)),
        ("36h", datetime(2026, 6, 3, 0, tzinfo=UTC)),
        (1_800_000_000, datetime.fromtimestamp(1_800_000_000, UTC)),
        (1_800_000_000.9, datetime.fromtimestamp(1_800_000_000, UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (NOW + 1, datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC)),
    ],
)
def test_dates_spans_and_unix_seconds(value, expected):
    assert read_settings({"expires": value}, NOW)["expires"] == int(expected.timestamp())


@pytest.mark.parametrize(
    "value",
    ["", "soon", "2027-13-01", "2027-02-30", "0d", "-5d", "1.5d", "30 days", "1234567d", "9999999h", True, [],
     -1, 10**12, 1e300, float("nan"), float("inf"), "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
     "1969-12-31", {}],
)  # fmt: skip
def test_what_is_no_moment(value):
    assert mistakes({"expires": value}).startswith("'expires' must be a date such as 2027-01-31 ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "1970-01-01 00:00 UTC"),
        (NOW, "2026-06-01 12:00 UTC"),
        ("2026-06-01", "2026-06-01 00:00 UTC"),
        ("2026-06-01T13:59:00+02:00", "2026-06-01 11:59 UTC"),
    ],
)
def test_an_end_in_the_past_is_refused(value, said):
    assert mistakes({"expires": value}) == (
        f"'expires' must not be in the past ({said}): 'tokenhub keys revoke' ends a key now."
    )


@pytest.mark.parametrize("name", ["key_0123456789abcdef", " key_0123456789ABCDEF\n"])
def test_a_name_like_an_id_is_refused(name):
    """It could be that of another key, which commands would take it for."""
    key, _ = make_key({"name": "a"}, NOW)
    assert ID_FORM.fullmatch(key.id)
    assert "must not look like the id of a key" in mistakes({"name": name})
    for other in ("key_1", "my key_0123456789abcdef", "key_0123456789abcdef0", "key_0123456789abcdeg"):
        assert read_settings({"name": other}, NOW) == {"name": other}


def test_a_span_of_ages_is_none():
    assert read_settings({"expires": "999999d"}, NOW)["expires"] > NOW
    with pytest.raises(KeySettingsError):
        read_settings({"expires": "999999d"}, 253_402_300_799.0)


@given(st.datetimes(), st.integers(-1439, 1439))
def test_any_date_there_is(date, minutes):
    aware = date.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    stamp = (date.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    stamp -= minutes * 60
    if NOW < stamp <= 253_402_300_799:
        assert abs(read_settings({"expires": aware.isoformat()}, NOW)["expires"] - stamp) <= 1
    else:
        mistakes({"expires": aware.isoformat()})


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "limits"]) | st.text(), _ANYTHING, max_size=4))
def test_whatever_comes_is_read_or_refused(given):
    try:
        found = read_settings(given, NOW)
    except KeySettingsError:
        assert mistakes(given).endswith((".", "?"))
    else:
        Key(**{"id": "i", "name": "n", "digest": b"", "created": 0, **found})


def test_the_form_of_a_key():
    assert FORM.fullmatch(PREFIX + "aZ09_-" + "x" * 37)
    for other in ("th-" + "x" * 42, "th-" + "x" * 44, "sk-" + "x" * 43, "th-" + "+" * 43):
        assert not FORM.fullmatch(other)
    assert len(digest_of(b"th-x")) == 32
    assert digest_of(b"th-x") != digest_of(b"th-y")


def test_a_row():
    key = Key(
        id="key_1", name="prod", digest=b"\x01" * 32, created=5, expires=9, revoked=7, models=("a", "b*"),
        rpm=1, monthly_nusd=100_000_000, on_disconnect="drain",
    )  # fmt: skip
    assert key.row(12, 1_500_000_000, 1234.56789) == {
        "id": "key_1",
        "name": "prod",
        "created": 5,
        "expires": 9,
        "revoked": 7,
        "last_used": 1234.568,
        "models": ["a", "b*"],
        "limits": {
            "rpm": 1, "tpm": None, "concurrency": None, "monthly_usd": 0.1, "monthly_tokens": None,
            "max_tokens": None,
        },
        "on_disconnect": "drain",
        "rotated": None,
        "old_secret_until": None,
        "month": {"tokens": 12, "usd": 1.5},
    }  # fmt: skip
    rotated = dataclasses.replace(key, rotated=6, old_digest=b"\x02" * 32, old_until=8).row(0, 0, None)
    assert (rotated["rotated"], rotated["old_secret_until"]) == (6, 8)
    bare = Key(id="key_1", name="prod", digest=b"", created=5).row(0, 0, None)
    assert bare["models"] is bare["last_used"] is bare["expires"] is bare["revoked"] is None
    assert set(bare["limits"].values()) == {None}


def test_models_that_are_not_there():
    known = ["openai/gpt-4o", "premium", "gpt-4o", "auto"]
    check_models(["openai/gpt-4o", "premium", "gpt-4o", "auto", "nothing/*", "o[pq]*"], known)
    check_models([], known)
    with pytest.raises(
        KeySettingsError, match=r"'models' has an unknown model 'premiun'; did you mean 'premium'\?$"
    ):
        check_models(["premiun"], known)
    with pytest.raises(KeySettingsError, match="'tokenhub models' lists them"):
        check_models(["zzzzzzzz"], known)
    with pytest.raises(
        KeySettingsError, match=r"unknown model 'premiun'; .*; 'models' has an unknown model 'zzzzzzzz'"
    ):
        check_models(["premiun", "zzzzzzzz"], known)
    assert [is_glob(name) for name in ("a*", "a?", "a[b]", "a/b", "")] == [True] * 3 + [False] * 2


# ---------------------------------------------------------------------- rotations


@pytest.mark.parametrize(
    ("given", "span_s"),
    [
        ({}, 86_400),
        ({"overlap": None}, 86_400),
        ({"overlap": "24h"}, 86_400),
        ({"overlap": " 90s "}, 90),
        ({"overlap": "30m"}, 1800),
        ({"overlap": "30d"}, 30 * 86_400),
        ({"overlap": "0"}, 0),
        ({"overlap": "0h"}, 0),
        ({"overlap": 0}, 0),
    ],
)
def test_how_long_a_former_secret_works_on(given, span_s):
    assert read_rotation(given) == span_s


@pytest.mark.parametrize(
    "value",
    ["", "1", "-1h", "1.5h", "1w", "31d", "2592001s", "9999999d", "24 h", 1, 3600, True, False, [], {}, 1e3],
)
def test_what_is_no_overlap(value):
    with pytest.raises(
        KeySettingsError, match=r"^'overlap' must be a span such as 24h or 7d, up to 30d, or 0"
    ):
        read_rotation({"overlap": value})


def test_what_a_rotation_knows_nothing_of():
    with pytest.raises(KeySettingsError, match="There is no setting 'overlab'; did you mean 'overlap'"):
        read_rotation({"overlab": "24h"})


def test_a_key_in_use():
    key = Key(id="k", name="n", digest=b"", created=1)
    assert key.is_in_use(1e12)
    assert not dataclasses.replace(key, revoked=5).is_in_use(1)
    expires = dataclasses.replace(key, expires=5)
    assert expires.is_in_use(4.99) and not expires.is_in_use(5)
