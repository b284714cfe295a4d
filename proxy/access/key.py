"""The gateway's own keys: what a key may be set to, and how it is shown.

A key is ``th-`` and 32 random bytes. Only its SHA-256 is kept: it is random enough that a slow hash
would protect nothing, and one lookup by the hash takes the same time whatever was sent.

Money is integer nano-USD inside, dates are Unix seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from proxy.access.permits import Month
from proxy.config.usage_table import MAX_TAGS, TAG_NAME, is_tag_value
from proxy.config.values import nearest
from proxy.usage.calendar import DAY_S
from proxy.usage.tags import TagsError, read_tags

PREFIX = "th-"
# 32 bytes in the URL-safe alphabet of base64, without padding.
FORM = re.compile(r"th-[A-Za-z0-9_-]{43}")
# What ids look like (proxy.storage.key_table.make_key). Names must not: commands and the API take ids as well
# as names.
ID_FORM = re.compile(r"key_[0-9A-Fa-f]{16}")
# Of a day and of a month, UTC: the limits that ``soft`` is about.
WINDOWED = ("daily_usd", "daily_tokens", "monthly_usd", "monthly_tokens")
LIMITS = ("rpm", "tpm", "concurrency", *WINDOWED, "max_tokens")
FIELDS = ("name", *LIMITS, "soft", "group", "models", "expires", "on_disconnect", "tags")
ON_DISCONNECT = ("cancel", "drain")
NUSD = 1_000_000_000  # nano-USD in a USD

# No API has a limit above; and sums of it stay within the 64 bits of a number in memory or SQLite.
MAX_COUNT = 1_000_000_000_000
MAX_USD = 1_000_000_000
MAX_NAME_CHARS = 100
MAX_MODELS = 200
# Names of groups stand in paths, in the ledger and in commands as they are.
GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MODEL_NAME = re.compile(r"[!-~]{1,200}")
# The last second that a date can name.
MAX_UNIX_S = 253_402_300_799
# How long a former secret works beside the new one: a day to give its user the new one. Two live secrets
# are for changing over, so there is an end to it.
OVERLAP = "24h"
MAX_OVERLAP_S = 30 * DAY_S


class KeySettingsError(ValueError):
    """Settings that a key can't have; the text is one sentence for each mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """The limits of a key or a group; None is no limit.

    ``soft``: those of a day and of a month raise alerts, and refuse no request.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    daily_nusd: int | None = None
    daily_tokens: int | None = None
    monthly_nusd: int | None = None
    monthly_tokens: int | None = None
    max_tokens: int | None = None
    soft: bool = False

    def limits(self) -> dict[str, int | float | None]:
        """The limits by their names outside."""
        found = {name: getattr(self, field_of(name)) for name in LIMITS}
        for name in ("daily_usd", "monthly_usd"):
            found[name] = None if found[name] is None else found[name] / NUSD
        return found

    def has_windows(self) -> bool:
        """It has a limit of a day or a month, of whatever kind."""
        return any(getattr(self, field_of(name)) is not None for name in WINDOWED)

    def limits_money(self) -> bool:
        """It has a limit in dollars."""
        return self.daily_nusd is not None or self.monthly_nusd is not None


def field_of(name: str) -> str:
    """The field behind a name outside: money is in nano-USD inside."""
    return f"{name.removesuffix('usd')}nusd" if name.endswith("_usd") else name


@dataclass(frozen=True, slots=True)
class Key(KeyLimits):
    """A key as it is kept. ``models`` None: all.

    ``digest``: SHA-256 of the secret, which is what clients send. ``created``, ``expires``, ``revoked``,
    ``rotated``: Unix seconds. ``old_digest``: of the secret before the last rotation, which is let in until
    ``old_until``. ``group``: the name of the group whose limits hold for it too.
    """

    id: str
    name: str
    digest: bytes
    created: int
    expires: int | None = None
    revoked: int | None = None
    models: tuple[str, ...] | None = None
    on_disconnect: str | None = None
    rotated: int | None = None
    old_digest: bytes | None = None
    old_until: int | None = None
    group: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def is_in_use(self, unix_s: float) -> bool:
        """It is neither revoked nor past its end."""
        return self.revoked is None and (self.expires is None or unix_s < self.expires)

    def row(self, used: Month) -> dict[str, Any]:
        """The row of ``/admin/v1/keys``.

        :param used: what it has used in this month and on this day, UTC, and when.
        """
        return {
            "id": self.id,
            "name": self.name,
            "created": self.created,
            "expires": self.expires,
            "revoked": self.revoked,
            "models": None if self.models is None else list(self.models),
            "group": self.group,
            "limits": self.limits(),
            "soft": self.soft,
            "on_disconnect": self.on_disconnect,
            "tags": dict(self.tags),
            "rotated": self.rotated,
            "old_secret_until": self.old_until,
            **used_members(used),
        }


def used_members(used: Month) -> dict[str, Any]:
    """The members of a row that say what was used, and when last."""
    return {
        "last_used": round(used.last_used, 3) if used.last_used else None,
        "day": {"tokens": used.day_tokens, "usd": used.day_nusd / NUSD},
        "month": {"tokens": used.tokens, "usd": used.nusd / NUSD},
    }


def digest_of(secret: bytes) -> bytes:
    """Return the digest that is kept of a key."""
    return sha256(secret).digest()


def read_settings(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The fields of a :class:`Key` that settings from outside name; null lifts a limit.

    :param given: by :data:`FIELDS`; the limits may also stand together below ``limits``, as rows show them.
    :param now: Unix seconds, for a span such as ``30d`` in ``expires``.
    :raises KeySettingsError: an unknown setting, or a value that is not allowed.
    """
    return read_fields(given, now, _READERS)


def read_fields(given: Mapping[str, Any], now: float, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """The same for settings that ``readers`` read, by their names outside."""
    fields = tuple(readers)
    wrong: list[str] = []
    flat = dict(given)
    inner = flat.pop("limits", {})
    if not isinstance(inner, dict):
        wrong.append("'limits' must be an object")
        inner = {}
    wrong += [_unknown("limit", name, LIMITS) for name in inner if name not in LIMITS]
    wrong += [_unknown("setting", name, fields) for name in flat if name not in fields]
    below = [(name, value) for name, value in inner.items() if name in LIMITS]
    found: dict[str, Any] = {}
    for name, value in (*below, *flat.items()):  # what is given twice has to be right twice
        read = readers.get(name)
        if read is None:
            continue
        try:
            is_lifted = value is None and name not in _NEVER_NULL
            found[field_of(name)] = None if is_lifted else read(value, now)
        except ValueError as error:
            wrong.append(f"'{name}' {error}")
    if wrong:
        raise KeySettingsError(_sentence("; ".join(wrong)))
    return found


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    close = nearest(name, known)
    hint = f"did you mean '{close}'?" if close else f"there are {', '.join(known)}"
    return f"there is no {what} '{name[:60]}'; {hint}"


def _name(value: Any, _now: float) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text that says whose key it is")
    text = value.strip()
    if len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise ValueError(f"must be up to {MAX_NAME_CHARS} printable characters")
    if ID_FORM.fullmatch(text):
        raise ValueError(
            "must not look like the id of a key (key_ and 16 hexadecimal digits): commands take names and ids"
        )
    return text


def _count(value: Any, _now: float) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        raise ValueError(f"must be a whole number from 1 to {MAX_COUNT}, or null for no limit")
    return int(value)


def _usd(value: Any, _now: float) -> int:
    if type(value) not in (int, float) or not 0 < value <= MAX_USD:
        raise ValueError(f"must be a number of dollars above 0, up to {MAX_USD}, or null for no limit")
    nusd = Decimal(repr(value)) * NUSD  # of repr: 0.1 is meant as it is written
    if nusd != nusd.to_integral_value():
        raise ValueError("can't have more than nine decimals")
    return int(nusd)


def _soft(value: Any, _now: float) -> bool:
    if value is not None and type(value) is not bool:
        raise ValueError("must be true or false")
    return bool(value)


def _group(value: Any, _now: float) -> str:
    if not isinstance(value, str) or not GROUP_NAME.fullmatch(value.strip()):
        raise ValueError("must be the name of a group, or null for none")
    return value.strip()


def _models(value: Any, _now: float) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("must be a list of ids, aliases or globs such as openai/*, or null for all models")
    if len(names) > MAX_MODELS or not all(
        isinstance(name, str) and MODEL_NAME.fullmatch(name) for name in names
    ):
        raise ValueError(f"must hold up to {MAX_MODELS} names, without white space")
    return tuple(dict.fromkeys(names))


_SPAN = re.compile(r"([1-9][0-9]{0,5})([hd])")


def _expires(value: Any, now: float) -> int:
    """A date is the moment at which it begins, in UTC."""
    moment: float | None = None
    if type(value) in (int, float):
        moment = value
    elif isinstance(value, str):
        span = _SPAN.fullmatch(value.strip())
        if span:
            moment = now + int(span[1]) * {"h": 3600, "d": DAY_S}[span[2]]
        else:
            try:
                date = datetime.fromisoformat(value.strip())
                moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                moment = None
    if moment is None or not 0 <= moment <= MAX_UNIX_S:
        raise ValueError("must be a date such as 2027-01-31 or 2027-01-31T18:00:00Z, or a span such as 90d")
    if moment <= now:
        passed = f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
        raise ValueError(f"must not be in the past ({passed}): 'tokenhub keys revoke' ends a key now")
    return int(moment)


_OVERLAP = re.compile(r"0|([0-9]{1,7})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}


def read_rotation(given: Mapping[str, Any]) -> int:
    """Read the settings of a rotation: the seconds for which the former secret goes on working.

    :param given: at most ``overlap``, a span such as ``24h``, or 0; null or nothing: :data:`OVERLAP`.
    :raises KeySettingsError: it is not a span, or too long.
    """
    wrong = [_unknown("setting", name, ("overlap",)) for name in given if name != "overlap"]
    value = given.get("overlap")
    found = _OVERLAP.fullmatch(OVERLAP if value is None else value.strip() if isinstance(value, str) else "")
    if found:
        span = int(found[1]) * _SECONDS[found[2]] if found[1] else 0
    else:
        span = 0 if type(value) is int and value == 0 else -1
    if not 0 <= span <= MAX_OVERLAP_S:
        days = MAX_OVERLAP_S // DAY_S
        wrong.append(f"'overlap' must be a span such as 24h or 7d, up to {days}d, or 0 for none")
    if wrong:
        raise KeySettingsError(_sentence("; ".join(wrong)))
    return span


def _on_disconnect(value: Any, _now: float) -> str:
    if value not in ON_DISCONNECT:
        raise ValueError("must be 'cancel' or 'drain', or null for what the alias says")
    return str(value)


def _tags(value: Any, _now: float) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        try:
            value = read_tags(value.encode())
        except TagsError as error:
            raise ValueError(f"can't be read: {error}") from None
    if not isinstance(value, dict) or len(value) > MAX_TAGS:
        raise ValueError(f"must be up to {MAX_TAGS} tags such as team=search,feature=rag, or null for none")
    for name, word in value.items():
        if not TAG_NAME.fullmatch(name) or not isinstance(word, str) or not is_tag_value(word):
            raise ValueError(f"has a tag '{str(name)[:40]}' with a name or a value that it can't have")
    return tuple(sorted(value.items()))


Reader = Callable[[Any, float], Any]
LIMIT_READERS: dict[str, Reader] = {name: _usd if name.endswith("_usd") else _count for name in LIMITS}
LIMIT_READERS["soft"] = _soft
_READERS: dict[str, Reader] = {
    "name": _name,
    **LIMIT_READERS,
    "group": _group,
    "models": _models,
    "expires": _expires,
    "on_disconnect": _on_disconnect,
    "tags": _tags,
}
_NEVER_NULL = ("name", "soft", "tags")


def is_glob(pattern: str) -> bool:
    """Return whether an entry of ``models`` stands for several ids."""
    return any(character in pattern for character in "*?[")


def check_models(models: Iterable[str], known: Iterable[str]) -> None:
    """Entries that are no globs must name something.

    :param known: ids, aliases and short names.
    :raises KeySettingsError: some that don't.
    """
    names = set(known)
    wrong = []
    for name in models:
        if name not in names and not is_glob(name):
            close = nearest(name, names)
            hint = f"did you mean '{close}'?" if close else "'tokenhub models' lists them"
            wrong.append(f"'models' has an unknown model '{name}'; {hint}")
    if wrong:
        raise KeySettingsError(_sentence("; ".join(wrong)))


def check_tags(tags: Iterable[tuple[str, str]], listed: Collection[str]) -> None:
    """Tags must be among those that ``[usage] tags`` lists, else they would count nowhere.

    :raises KeySettingsError: some are not.
    """
    wrong = [_unknown("tag", name, listed) for name, _ in tags if name not in listed]
    if wrong:
        way_out = "[usage] tags lists them" if listed else "[usage] tags lists none: list it there first"
        raise KeySettingsError(
            _sentence(f"{'; '.join(wrong) if listed else wrong[0].partition(';')[0]}; {way_out}")
        )
