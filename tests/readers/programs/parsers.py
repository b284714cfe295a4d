"""Parsers in Python: a line of base64 in, what each of them reads out, as a line of JSON.

Also those that take more than JSON: comments, single quotes, trailing commas; and keys in either case, as the
decoders of Go and .NET read them, the first or the last of several.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import json5
import msgspec
import orjson
import rapidjson
import simdjson
import simplejson
import ujson
from reading import first_of_each, reading

COMMENTS = rapidjson.PM_COMMENTS | rapidjson.PM_TRAILING_COMMAS
NUMBERS = rapidjson.NM_NAN | rapidjson.NM_NATIVE


class Chat(msgspec.Struct):
    model: str
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None


def struct(body: bytes) -> Any:
    return msgspec.to_builtins(msgspec.json.decode(body, type=Chat, strict=False))


def first_wins(body: bytes) -> Any:
    return json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def first_object(body: bytes) -> Any:
    """What follows behind the object is left for later."""
    return json.JSONDecoder().raw_decode(body.decode("utf-8", "replace").lstrip())[0]


def fold(key: str) -> str:
    """Each letter for itself, as Go does: the Kelvin sign is a k, the long s an s; a ligature stays one."""
    return "".join(folded if len(folded := letter.upper().lower()) == 1 else letter for letter in key)


def folded(body: bytes) -> Any:
    return json.loads(body, object_pairs_hook=lambda pairs: {fold(key): value for key, value in pairs})


def folded_first(body: bytes) -> Any:
    return json.loads(
        body, object_pairs_hook=lambda pairs: {fold(key): value for key, value in reversed(pairs)}
    )


PARSERS: dict[str, Callable[[bytes], Any]] = {
    "json.loads(bytes)": json.loads,
    "json.loads(text)": lambda body: json.loads(body.decode("utf-8-sig", "replace")),
    "json, not strict": lambda body: json.loads(body.decode("utf-8", "ignore"), strict=False),
    "json, the first of several keys": first_wins, "json, the first object": first_object,
    "orjson": orjson.loads, "msgspec": msgspec.json.decode, "msgspec struct": struct,
    "simdjson": lambda body: simdjson.Parser().parse(body, True),
    "simdjson, the first of several keys": lambda body: first_of_each(simdjson.Parser().parse(body)),
    "ujson": ujson.loads,
    "simplejson": simplejson.loads, "rapidjson": rapidjson.loads,
    "rapidjson with comments": lambda body: rapidjson.loads(body, parse_mode=COMMENTS, number_mode=NUMBERS),
}  # fmt: skip
# Of a provider with case_insensitive_keys.
FOLDING: dict[
    str, Callable[[bytes], Any],
] = {"keys in either case": folded, "keys in either case, the first of several": folded_first}  # fmt: skip
# In Python, and slow: not for what is long.
LENIENT = {"json5": lambda body: json5.loads(body.decode("utf-8", "replace"))}
LENIENT_BYTES = 4096


def readings(body: bytes, parsers: dict[str, Callable[[bytes], Any]]) -> list[dict[str, Any]]:
    told = []
    for how, parse in parsers.items():
        try:
            found = reading(how, parse(body))
        except (ValueError, LookupError, RuntimeError, TypeError, OverflowError, msgspec.MsgspecError):
            continue
        if found is not None:
            told.append(found)
    return told


if __name__ == "__main__":
    parsers = FOLDING if sys.argv[1:] == ["folding"] else PARSERS
    for line in sys.stdin:
        body = base64.b64decode(line)
        lenient = LENIENT if parsers is PARSERS and len(body) <= LENIENT_BYTES else {}
        print(json.dumps(readings(body, {**parsers, **lenient})), flush=True)
