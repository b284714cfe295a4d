"""The grammars of single settings in routes.toml: a TOML value in, a checked Python value out.

Every function here takes what :mod:`tomllib` gave (or makes a function that does) and raises ``ValueError``
with the end of a sentence that the reader starts with the setting's name: ``must be …``. No message repeats
a value that may hold a secret (addresses with credentials, header values, what stands where a variable's
name belongs).
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from proxy.config.settings import P99

MAX_SECONDS = 24 * 3600.0  # no timeout or pace of a gateway is longer than a day
MAX_BYTES = 64 << 30
MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path is 108 bytes with its closing NUL on Linux
MAX_NAME_CHARS = 200  # of models and aliases: they travel in headers and metric labels

_WORD = re.compile(r"[a-z0-9_.-]{1,100}")
_QUANTITY = re.compile(r"(-?)([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-zµ]*)")
_APP_ORIGIN = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://[a-z0-9][a-z0-9._-]*")
# Labels with a dot between two, which leaves one way to read a name, so that a wrong one is found at once.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_-]{1,63})*+\.?")


@dataclass(frozen=True, slots=True)
class _Measure:
    """A kind of quantity that is written as text with a unit."""

    what: str
    example: str
    usual_unit: str  # what a number without unit most likely meant
    units: dict[str, float]
    most: float
    most_text: str


_DURATION = _Measure(
    "a duration", '"30s"', "s", {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}, MAX_SECONDS, '"24h"'
)
_SIZE = _Measure("a size", '"64MiB"', "MiB", {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}, MAX_BYTES, '"64GiB"')


Read = Callable[[object], object]


class Url(NamedTuple):
    """A provider's base address. ``text`` is as written, without a trailing slash."""

    text: str
    scheme: str
    host: str
    port: int
    path: str


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like `word`, whatever the case; None where none is similar."""
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def kind(value: object) -> str:
    """A TOML value's type in plain words."""
    for types, words in (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
    ):
        if isinstance(value, types):
            return words
    return "a date or time"


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"must be true or false (without quotes), not {kind(value)}")


def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {kind(value)}")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def filled(value: object) -> str:
    """Text that says something."""
    if not text(value).strip():
        raise ValueError("must not be empty")
    return text(value)


def choice(options: Iterable[str], what: str, former: Container[str] = ()) -> Callable[[object], str]:
    """One of `options`; `what` is the word for it in the message ("strategy"). `former` ones are read, but
    not offered."""
    names = tuple(options)

    def read(value: object) -> str:
        word = text(value)
        if word in names or word in former:
            return word
        close = nearest(word, names)
        hint = f"did you mean '{close}'? " if close else ""
        raise ValueError(f"has an unknown {what} '{word}'; {hint}Valid: {', '.join(names)}")

    return read


def whole(least: int, most: int) -> Callable[[object], int]:
    """A whole number from `least` to `most`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            given = f"{value!r}" if isinstance(value, float) else kind(value)
            raise ValueError(f"must be a whole number, not {given}")
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}, not {_short(value)}")
        return value

    return read


def number(least: float, most: float, *, above: bool = False) -> Callable[[object], float]:
    """A number from `least` (not `least` itself if `above`) to `most`; never infinite or nan."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, not {kind(value)}")
        if math.isnan(value) or not least <= value <= most or (above and value == least):
            low = f"above {least:g} and at most" if above else f"from {least:g} to"
            raise ValueError(f"must be {low} {most:g}, not {_short(value)}")
        return float(value)

    return read


def price(value: object) -> float:
    """USD per million tokens."""
    if isinstance(value, int | float) and value < 0:
        raise ValueError("must not be negative: it is a price in USD per million tokens")
    return number(0, 100_000)(value)


def seconds(value: object) -> float:
    """A duration such as "30s", in seconds; zero is allowed."""
    return _quantity(value, _DURATION)


def positive_seconds(value: object) -> float:
    if (result := seconds(value)) > 0:
        return result
    raise ValueError('must be longer than zero, for example "30s"')


def size(value: object) -> int:
    """A size such as "1MiB", in bytes; zero is allowed."""
    return int(_quantity(value, _SIZE))


def positive_size(value: object) -> int:
    if (result := size(value)) > 0:
        return result
    raise ValueError('must be more than zero, for example "64MiB"')


def _quantity(value: object, measure: _Measure) -> float:
    known = ", ".join(measure.units)
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'needs a unit and quotes: "{_short(value)}{measure.usual_unit}" ({known})')
    expected = f"must be {measure.what} such as {measure.example}: a number and one of {known}"
    match = _QUANTITY.fullmatch(text(value))
    if not match:
        raise ValueError(expected)
    minus, amount, unit = match.groups()
    if minus:
        raise ValueError("must not be negative")
    if unit not in measure.units:
        close = nearest(unit, measure.units) or nearest(f"{unit[:1]}iB", measure.units)
        hint = f'; did you mean "{amount}{close}"?' if unit and close else ""
        raise ValueError(f"{expected}{hint}")
    result = float(amount) * measure.units[unit]
    if result > measure.most:
        raise ValueError(f"must be at most {measure.most_text}")
    return result


def octal_mode(value: object) -> int:
    """Permission bits written as octal text: "0660"."""
    if isinstance(value, str) and re.fullmatch(r"(?:0o?)?[0-7]{3}", value):
        return int(value.removeprefix("0o"), 8)
    raise ValueError('must be permissions as octal text such as "0660"')


def listen(value: object) -> tuple[str, int, str]:
    """A listening address as (host, port, path): "host:port", "[::1]:8080" or "unix:/path"."""
    address = text(value)
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/") or path.endswith("/"):
            raise ValueError('must name a file with its whole path: "unix:/run/tokenhub.sock"')
        if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"has a socket path over {MAX_SOCKET_PATH_BYTES} bytes, the system's limit")
        return "", 0, path
    host, colon, port_text = address.rpartition(":")
    if not colon or not host:
        raise ValueError('must be "host:port" or "unix:/path", for example "127.0.0.1:8080"')
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
        raise ValueError("must end in a port from 0 (any free one) to 65535")
    return _host(host), int(port_text), ""


def _host(host: str) -> str:
    """An address without its brackets, or a name in lower case."""
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError("has brackets around something that is not an IPv6 address") from None
    if ":" in host:
        raise ValueError('must have an IPv6 address in brackets: "[::1]:8080"')
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("has a wrong IPv4 address") from None
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("has a wrong host name")
    return host.lower()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "localhost.") or host.endswith(".localhost")


def base_url(value: object) -> Url:
    """The address that a provider's endpoints are appended to."""
    example = 'an address such as "https://api.example.com/v1"'
    written = filled(value)
    if not written.isascii() or any(char <= " " or char == "\x7f" for char in written):
        raise ValueError("must not contain white space, control or non-ASCII characters")
    try:
        parts = urlsplit(written)
        port = parts.port
    except ValueError:
        raise ValueError(f"must be {example}") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"must be {example}, starting with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not contain credentials: use api_key_env or api_key_file")
    if "?" in written or "#" in written:
        raise ValueError('must not contain "?" or "#": parameters belong into query')
    if port == 0 or parts.netloc.endswith(":") or not parts.hostname:
        raise ValueError(f"must be {example}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = 443 if parts.scheme == "https" else 80
    return Url(written.rstrip("/"), parts.scheme, _host(host), port or default_port, parts.path.rstrip("/"))


def url(schemes: tuple[str, ...]) -> Callable[[object], str]:
    """An address of one of `schemes`, or "" for none. It may hold a secret, so no message repeats it."""

    def read(value: object) -> str:
        written = text(value)
        if not written:
            return written
        try:
            parts = urlsplit(written)
            usable = bool(parts.hostname or (parts.scheme == "unix" and parts.path)) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.scheme not in schemes or not written.isprintable() or " " in written:
            starts = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ValueError(f"must be an address that starts with {starts}, followed by a host")
        return written

    return read


def origin(value: object) -> str:
    """A CORS origin, "*" or scheme://host[:port], as browsers write it; of apps too, as app://obsidian.md."""
    written = text(value)
    if written == "*" or _APP_ORIGIN.fullmatch(written):
        return written
    try:
        address = base_url(written)
    except ValueError as error:
        raise ValueError(f'{error} (or "*")') from None
    if address.path or written.endswith("/"):
        raise ValueError('must be an origin without a path, such as "https://chat.example.com"')
    host = f"[{address.host}]" if ":" in address.host else address.host
    is_usual = address.port == {"http": 80, "https": 443}[address.scheme]
    return f"{address.scheme}://{host}" if is_usual else f"{address.scheme}://{host}:{address.port}"


def env_name(value: object) -> str:
    """The name of an environment variable; "" for none."""
    if re.fullmatch(r"(?:[A-Za-z_][A-Za-z0-9_]*)?", text(value)):
        return text(value)
    raise ValueError("must name an environment variable (letters, digits, _), not hold the secret itself")


def name(value: str) -> str:
    """A model id or alias: printable ASCII without spaces and commas, since headers list names."""
    if not 0 < len(value) <= MAX_NAME_CHARS or not re.fullmatch(r"[!-+\--~]+", value):
        raise ValueError(
            f"must have a name of 1 to {MAX_NAME_CHARS} printable ASCII characters without spaces and commas"
        )
    return value


def provider_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        raise ValueError("must have a name of letters, digits, '.', '_' and '-' (at most 63)")
    return value


def hedge(value: object) -> str | float:
    """Read the wait before a hedge: "auto", "off", "p95", or a duration in seconds."""
    if isinstance(value, str) and value in ("auto", "off", "p95"):
        return value
    return _read_or(positive_seconds, value, '"auto", "off" or "p95"')


def fail_on(value: object) -> str:
    """Read an entry of ``fail_on``: a status from 300 to 599, "3xx" to "5xx", or an error's code or type."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    word = _short(value) if isinstance(value, int) and is_number else text(value).lower()
    if (is_number or word.isdigit()) and not (len(word) == 3 and 300 <= int(word) <= 599):
        raise ValueError('must be a status from 300 to 599, a class such as "5xx", or an error\'s code')
    if word[1:] == "xx" and word not in ("3xx", "4xx", "5xx"):
        raise ValueError(f"has the unknown class '{word}'; Valid: 3xx, 4xx, 5xx")
    if not _WORD.fullmatch(word):
        raise ValueError('must be a status, a class such as "5xx", or an error\'s code without spaces')
    return word


def first_token(value: object) -> float:
    """A duration, "0s" for off; or "p99"."""
    if value == "p99":
        return P99
    return _read_or(seconds, value, '"p99"')


def _read_or(read: Callable[[object], float], value: object, words: str) -> float:
    """Read a value in whose place certain words are taken too, and name these where it can't be read."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{error}; or {words}") from None


def _short(value: float) -> str:
    """A number as text, with a cut: integers of TOML may have thousands of digits."""
    try:
        written = repr(value)
    except ValueError:  # over sys.get_int_max_str_digits(), which hexadecimal integers may be
        return "that"
    return written if len(written) <= 24 else f"{written[:20]}…"
