"""Parsers in the process of the tests, as an oracle for what is generated: a body that the scanner takes says
the same to each of them.

Those that the tests are not installed with are left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import orjson

from tests.readers.oracle import UPSTREAM_MODEL, faults, seen_in
from tests.readers.programs.reading import first_of_each, reading

PARSERS: dict[str, Callable[[bytes], Any]] = {
    "json.loads(bytes)": json.loads,  # guesses UTF-16 and UTF-32
    "json.loads(text)": lambda body: json.loads(body.decode("utf-8-sig", "replace"), strict=False),
    "json.loads, the first of several keys": lambda body: json.loads(
        body, object_pairs_hook=lambda pairs: dict(reversed(pairs))
    ),
    "json, the first value": lambda body: json.JSONDecoder().raw_decode(
        body.decode("utf-8", "replace").lstrip()
    )[0],
    "orjson": orjson.loads,
}
with contextlib.suppress(ImportError):
    import msgspec

    PARSERS["msgspec"] = msgspec.json.decode
with contextlib.suppress(ImportError):
    import simdjson

    PARSERS["simdjson"] = lambda body: simdjson.Parser().parse(body, True)
    PARSERS["simdjson, the first of several keys"] = lambda body: first_of_each(simdjson.Parser().parse(body))


def disagreements(body: bytes, *, limited: bool = True) -> list[str]:
    """What parsers run of a body that the gateway did not see, where it takes the body: it has a model then.

    :param limited: lengths and the stream count, too.
    """
    seen = seen_in(body)
    if seen is None or seen.model is None:
        return []
    sent = body[: seen.start] + b'"%b"' % UPSTREAM_MODEL.encode() + body[seen.end :]
    found = []
    for how, one in readings(sent).items():
        if not limited:
            one = {**one, "limits": {}}  # noqa: PLW2901
        found += [f"{how} {what}" for what in faults(seen, one, limited=False)]
    return found


def readings(body: bytes) -> dict[str, dict[str, Any]]:
    """What each makes of a body that it takes for an object."""
    told = {}
    for how, parse in PARSERS.items():
        try:
            one = reading(how, parse(body))
        except (ValueError, LookupError, RuntimeError, TypeError, OverflowError):  # it would be refused
            continue
        if one is not None:
            told[how] = one
    return told


def check_models(body: bytes, model: str) -> None:
    """Each sees this model and no other in what a provider gets."""
    for how, one in readings(body).items():
        assert one["model"] == model, f"{how} ran model {one['model']!r} in place of {model!r}: {body!r}"
