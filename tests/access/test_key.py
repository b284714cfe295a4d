"""What a key may be set to, and how it is shown."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access import key as key_module
from proxy.access.key import FIELDS, NUSD, Key, KeySettingsError, check_tags, read_settings
from proxy.access.permits import Month
from proxy.storage.key_table import make_key

NOW = 1_780_315_200.0  # 2026-06-01 12:00 UTC


def mistakes(given: dict) -> str:
    with pytest.raises(KeySettingsError) as caught:
        read_settings(given, NOW)
    return str(caught.value)


def test_every_field():
    given = {
        "name": "  prod  ", "rpm": 60, "tpm": 10_000.0, "concurrency": 1, "monthly_usd": 12.5,
        "daily_usd": 0.5, "daily_tokens": 7, "soft": True, "group": " a.B-1_ ",
        "monthly_tokens": 1_000_000_000_000, "max_tokens": 4096,
        "models": ["openai/*", "premium", "openai/*"], "expires": "2027-01-31", "on_disconnect": "drain",
        "tags": {"team": "a", "app": "b"},
    }  # fmt: skip
    assert set(given) == set(FIELDS)
    found = read_settings(given, NOW)
    assert found == {
        "name": "prod", "rpm": 60, "tpm": 10_000, "concurrency": 1, "monthly_nusd": 12_500_000_000,
        "daily_nusd": 500_000_000, "daily_tokens": 7, "soft": True, "group": "a.B-1_",
        "monthly_tokens": 1_000_000_000_000, "max_tokens": 4096, "models": ("openai/*", "premium"),
        "expires": int(datetime(2027, 1, 31, tzinfo=UTC).timestamp()), "on_disconnect": "drain",
        "tags": (("app", "b"), ("team", "a")),
    }  # fmt: skip
    assert all(type(found[name]) is int for name in ("rpm", "tpm", "monthly_nusd"))
    Key(id="key_1", digest=b"", created=0, **found)  # they are its fields


ALL = {
    "rpm": 1, "tpm": 2, "concurrency": 3, "monthly_usd": 4, "monthly_tokens": 5, "max_tokens": None,
    "daily_usd": 6, "daily_tokens": 7,
}  # fmt: skip
USD = {"monthly_usd", "daily_usd"}


@pytest.mark.parametrize(("given", "found"), [
    ({}, {}),
    (dict.fromkeys((*FIELDS[1:],)),
     dict.fromkeys({*FIELDS[1:], "monthly_nusd", "daily_nusd"} - USD) | {"soft": False, "tags": ()}),
    ({"tags": "team=a b, app = x"}, {"tags": (("app", "x"), ("team", "a b"))}),
    # As rows show them; the plain one counts.
    ({"limits": ALL},
     {name: ALL[name] for name in {*key_module.LIMITS} - USD}
     | {"monthly_nusd": 4 * NUSD, "daily_nusd": 6 * NUSD}),
    ({"limits": {"rpm": 1}, "rpm": 7}, {"rpm": 7}),
    # Money is exact.
    *(({"monthly_usd": usd}, {"monthly_nusd": nusd}) for usd, nusd in (
        (0.1, 10**8), (0.3, 3 * 10**8), (1, NUSD), (10**9, 10**18), (1e-9, 1),
        (123456.789012345, 123_456_789_012_345),
    )),
    *(({"models": models}, {"models": ("a/b", "premium", "c*")}) for models in (
        "a/b, premium ,c*", ["a/b", "premium", "c*"], ("a/b", "premium", "c*"),
    )),
    *(({"name": name}, {"name": name}) for name in (
        "key_1", "my key_0123456789abcdef", "key_0123456789abcdef0", "key_0123456789abcdeg",
    )),
    *(({"expires": given}, {"expires": int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())})
      for given, moment in (
        ("2027-01-31", "2027-01-31"), (" 2027-01-31 ", "2027-01-31"), ("30d", "2026-07-01T12:00"),
        ("2027-01-31T18:00:00Z", "2027-01-31T18:00"), ("2027-01-31T18:00:00+02:00", "2027-01-31T16:00"),
        ("2027-01-31 18:00", "2027-01-31T18:00"), ("36h", "2026-06-03"), (NOW + 1, "2026-06-01T12:00:01"),
        (1_800_000_000, "2027-01-15T08:00"), (1_800_000_000.9, "2027-01-15T08:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59"),
    )),
])  # fmt: skip
def test_settings_are_read(given, found):
    assert read_settings(given, NOW) == found


def test_a_row_can_be_sent_back():
    key = Key(id="k", name="n", digest=b"", created=1, rpm=5, monthly_nusd=NUSD // 10, models=("a/*",))
    row = key.row(Month(3, 4, 0.0))
    names = ("name", "models", "expires", "on_disconnect", "limits", "soft", "group", "tags")
    given = {name: row[name] for name in names}
    found = read_settings(given, NOW)
    assert (found["rpm"], found["monthly_nusd"], found["models"]) == (5, NUSD // 10, ("a/*",))


def test_all_mistakes_are_told_at_once():
    text = mistakes({"rpm": 0, "tmp": 1, "zzzzzz": 1, "monthly_usd": -1, "models": [], "on_disconnect": "x"})
    assert text.startswith("There is no setting 'tmp'; did you mean 'tpm'?; there is no setting 'zzzzzz'; ")
    for part in ("there are name, rpm", "'rpm' must be", "'monthly_usd' must be", "'models' must be"):
        assert part in text
    assert text.endswith("'on_disconnect' must be 'cancel' or 'drain', or null for what the alias says.")
    assert len(mistakes({"x" * 10_000: 1})) < 300  # which is not repeated whole


NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, -1, True, False, 1.5, "5", [], {}, 10**13, 1e300, NAN, INF]
# A setting, what it may not be, and what the mistake begins with.
REFUSED = [
    *((name, NO_COUNTS, f"'{name}' must be a whole number from 1 to ")
      for name in ("rpm", "tpm", "concurrency", "monthly_tokens", "max_tokens")),
    ("monthly_usd", [0, -1, True, "5", [], 10**9 + 1, NAN, INF, 1e300],
     "'monthly_usd' must be a number of dollars above 0"),
    ("name", ["", "  ", 5, None, "a\nb", "a\x00", "x" * 101, "\u202e", ["a"]], "'name' must be "),
    ("daily_usd", [0, "5"], "'daily_usd' must be a number of dollars above 0"),
    ("daily_tokens", [0, 1.5], "'daily_tokens' must be a whole number from 1 to "),
    ("soft", [1, "yes", []], "'soft' must be true or false"),
    ("group", ["", "-a", "a b", "a/b", "\u00e9", "x" * 65, 5, []], "'group' must be the name of a group"),
    ("models", [[], "", "a,,b", [1], ["a b"], ["é"], [""], {"a": 1}, 5, ["m"] * 201, ["x" * 201], True],
     "'models' must "),
    ("expires", [
        "", "soon", "2027-13-01", "2027-02-30", "0d", "-5d", "1.5d", "30 days", "1234567d", "9999999h", True,
        [], -1, 10**12, 1e300, NAN, INF, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
        "1969-12-31", {},
    ], "'expires' must be a date such as 2027-01-31 "),
    ("limits", [{"rpm": 0}], "'rpm' must be a whole number"),
    # It is a setting, but no limit.
    ("limits", [{"name": "x"}], "There is no limit 'name'; there are rpm, tpm, "),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), [
    (name, value, said) for name, values, said in REFUSED for value in values
])  # fmt: skip
def test_what_a_setting_may_not_be(name, value, said):
    assert mistakes({name: value}).startswith(said)


PAST = "'expires' must not be in the past ({} UTC): 'tokenhub keys revoke' ends a key now."


@pytest.mark.parametrize(("given", "said"), [
    ({"name": None}, "'name' must be text that says whose key it is."),
    ({"limits": [1]}, "'limits' must be an object."), ({"limits": None}, "'limits' must be an object."),
    ({"limits": {"rmp": 1}}, "There is no limit 'rmp'; did you mean 'rpm'?"),
    ({"expires": 0}, PAST.format("1970-01-01 00:00")), ({"expires": NOW}, PAST.format("2026-06-01 12:00")),
    ({"expires": "2026-06-01"}, PAST.format("2026-06-01 00:00")),
    ({"expires": "2026-06-01T13:59:00+02:00"}, PAST.format("2026-06-01 11:59")),
])  # fmt: skip
def test_what_is_said_to_the_letter(given, said):
    assert mistakes(given) == said


@pytest.mark.parametrize("usd", [1e-10, 0.1234567891])
def test_money_has_nine_decimals(usd):
    assert "nine decimals" in mistakes({"monthly_usd": usd})


@given(st.integers(1, 10**15))
def test_money_there_and_back(nusd):
    value = float(Decimal(nusd) / NUSD)
    assert read_settings({"monthly_usd": value}, NOW) == {"monthly_nusd": nusd}
    assert Key("i", "n", b"", 0, monthly_nusd=nusd).limits()["monthly_usd"] == value


@pytest.mark.parametrize("name", ["key_0123456789abcdef", " key_0123456789ABCDEF\n"])
def test_a_name_like_an_id_is_refused(name):
    """It could be that of another key, which commands would take it for."""
    key, _ = make_key({"name": "a"}, NOW)
    assert key_module.ID_FORM.fullmatch(key.id)
    assert "must not look like the id of a key" in mistakes({"name": name})


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
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*FIELDS, "limits"]) | st.text(), _ANYTHING, max_size=4))
def test_whatever_comes_is_read_or_refused(given):
    try:
        found = read_settings(given, NOW)
    except KeySettingsError:
        assert mistakes(given).endswith((".", "?"))
    else:
        Key(**{"id": "i", "name": "n", "digest": b"", "created": 0, **found})


def test_the_form_of_a_key():
    assert key_module.FORM.fullmatch(key_module.PREFIX + "aZ09_-" + "x" * 37)
    for other in ("th-" + "x" * 42, "th-" + "x" * 44, "sk-" + "x" * 43, "th-" + "+" * 43):
        assert not key_module.FORM.fullmatch(other)
    assert len(key_module.digest_of(b"th-x")) == 32
    assert key_module.digest_of(b"th-x") != key_module.digest_of(b"th-y")


def test_a_row():
    key = Key(
        id="key_1", name="prod", digest=b"\x01" * 32, created=5, expires=9, revoked=7, models=("a", "b*"),
        rpm=1, monthly_nusd=100_000_000, daily_nusd=2 * NUSD, on_disconnect="drain", group="g", soft=True,
        tags=(("team", "a"),),
    )  # fmt: skip
    limits = dict.fromkeys(key_module.LIMITS)
    assert key.row(Month(12, 1_500_000_000, 1234.56789, 3, 500_000_000)) == {
        "id": "key_1", "name": "prod", "created": 5, "expires": 9, "revoked": 7, "last_used": 1234.568,
        "models": ["a", "b*"], "group": "g", "soft": True, "tags": {"team": "a"},
        "limits": limits | {"rpm": 1, "monthly_usd": 0.1, "daily_usd": 2.0},
        "on_disconnect": "drain", "rotated": None, "old_secret_until": None,
        "day": {"tokens": 3, "usd": 0.5}, "month": {"tokens": 12, "usd": 1.5},
    }  # fmt: skip
    rotated = dataclasses.replace(key, rotated=6, old_digest=b"\x02" * 32, old_until=8).row(Month(0, 0, 0.0))
    assert (rotated["rotated"], rotated["old_secret_until"]) == (6, 8)
    bare = Key(id="key_1", name="prod", digest=b"", created=5).row(Month(0, 0, 0.0))
    assert bare["models"] is bare["last_used"] is bare["expires"] is bare["revoked"] is bare["group"] is None
    assert bare["limits"] == limits


@pytest.mark.parametrize(("limits", "has_windows", "limits_money"), [
    ({}, False, False), ({"rpm": 1, "max_tokens": 1}, False, False), ({"daily_tokens": 1}, True, False),
    ({"monthly_tokens": 1}, True, False), ({"daily_nusd": 1}, True, True), ({"monthly_nusd": 1}, True, True),
])  # fmt: skip
def test_kinds_of_limits(limits, has_windows, limits_money):
    key = Key(id="key_1", name="prod", digest=b"", created=5, **limits)
    assert (key.has_windows(), key.limits_money()) == (has_windows, limits_money)


def test_models_that_are_not_there():
    known = ["openai/gpt-4o", "premium", "gpt-4o", "auto"]
    key_module.check_models(["openai/gpt-4o", "premium", "gpt-4o", "auto", "nothing/*", "o[pq]*"], known)
    key_module.check_models([], known)
    for names, said in (
        (["premiun"], r"'models' has an unknown model 'premiun'; did you mean 'premium'\?$"),
        (["zzzzzzzz"], "'tokenhub models' lists them"),
        (["premiun", "zzzzzzzz"], "unknown model 'premiun'; .*; 'models' has an unknown model 'zzzzzzzz'"),
    ):
        with pytest.raises(KeySettingsError, match=said):
            key_module.check_models(names, known)
    assert [key_module.is_glob(name) for name in ("a*", "a?", "a[b]", "a/b", "")] == [True] * 3 + [False] * 2


# ---------------------------------------------------------------------- rotations


@pytest.mark.parametrize(("given", "span_s"), [
    ({}, 86_400), ({"overlap": None}, 86_400), ({"overlap": "24h"}, 86_400), ({"overlap": " 90s "}, 90),
    ({"overlap": "30m"}, 1800), ({"overlap": "30d"}, 30 * 86_400), ({"overlap": "0"}, 0),
    ({"overlap": "0h"}, 0), ({"overlap": 0}, 0),
])  # fmt: skip
def test_how_long_a_former_secret_works_on(given, span_s):
    assert key_module.read_rotation(given) == span_s


@pytest.mark.parametrize(("name", "value", "said"), [
    ("overlab", "24h", "There is no setting 'overlab'; did you mean 'overlap'"),
    *(("overlap", value, "^'overlap' must be a span such as 24h or 7d, up to 30d, or 0") for value in (
        "", "1", "-1h", "1.5h", "1w", "31d", "2592001s", "9999999d", "24 h", 1, 3600, True, False, [], {},
        1e3,
    )),
])  # fmt: skip
def test_what_is_no_overlap(name, value, said):
    with pytest.raises(KeySettingsError, match=said):
        key_module.read_rotation({name: value})


def test_a_key_in_use():
    key = Key(id="k", name="n", digest=b"", created=1)
    assert key.is_in_use(1e12)
    assert not dataclasses.replace(key, revoked=5).is_in_use(1)
    expires = dataclasses.replace(key, expires=5)
    assert expires.is_in_use(4.99) and not expires.is_in_use(5)


def test_tags_are_those_that_are_listed():
    check_tags([("team", "a")], ("team", "app"))
    for tags, listed, said in (
        ([("teem", "a")], ["team"], "There is no tag 'teem'; did you mean 'team'?; [usage] tags lists them."),
        ([("x", "a")], [], "There is no tag 'x'; [usage] tags lists none: list it there first."),
    ):
        with pytest.raises(KeySettingsError) as caught:
            check_tags(tags, listed)
        assert str(caught.value) == said
