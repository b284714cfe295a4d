"""The ledger's line: one finished request as JSON, as it is written and as people are shown it.

``id``, ``t`` (Unix seconds), ``key`` (its id), ``endpoint``, ``stream``, ``asked`` (the name in the request),
``status``, ``attempts`` and ``ms`` stand in every line; ``model`` and ``provider`` where it was sent to
somebody. Where there is anything to say: ``group`` (of the key), ``tags`` and ``client_tags``
(:mod:`proxy.usage.tags`), ``alias`` (where ``asked`` is one), ``ttft_ms``, ``overhead_us``, ``input`` and
``output`` (tokens), ``nusd``, ``source``, ``cached``, ``cache_write``, ``reasoning``, ``audio_input``,
``audio_output``, ``saved`` (nano-USD that cached tokens cost less than others), ``failed`` (the attempts, in
words) and ``hedged`` (the charges of attempts that another overtook). :mod:`proxy.usage.tally` adds lines up.

A line is kept as it is written, and not built of objects: what is usual is one format, which costs half of
what a dictionary made into JSON does where caches are full of other things, as under load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from proxy.usage.tokens import Usage

# Fractions come from tables: a float takes six times as long to write as two integers.
_START: Final = b'{"id":"%b","t":%d.%b,"key":%b,%b,"status":%d,"attempts":%d,"ms":%d.%b'
_USUAL: Final = (
    _START + b',"ttft_ms":%d.%b,"overhead_us":%d,"input":%d,"output":%d,"nusd":%d,"source":"%b"}\n'
)
_HUNDREDTHS: Final = [b"%02d" % number for number in range(100)]
_THOUSANDTHS: Final = [b"%03d" % number for number in range(1000)]
_SOURCES: Final = (b"provider", b"estimated")


def hundredths(seconds: float) -> int:
    """A duration in hundredths of a millisecond, as lines have it."""
    return int(seconds * 1e5 + 0.5)


def usual_line(
    id: bytes, unix_s: float, key: bytes, what: bytes, status: int, attempts: int, took: int, waited: int,
    overhead_us: int, usage: Usage, nusd: int,
) -> bytes:  # fmt: skip
    """The line of a request that one attempt answered, and whose usage has no parts.

    :param key: the id of its key as JSON, or ``null``; and the members that say for whom it was.
    :param what: the members that :func:`asked_of` or :func:`sent_to` returns.
    :param took: hundredths of a millisecond in all; ``waited``: to the first byte of the response.
    """
    at_ms = int(unix_s * 1000.0 + 0.5)
    return _USUAL % (
        id, at_ms // 1000, _THOUSANDTHS[at_ms % 1000], key, what, status, attempts,
        took // 100, _HUNDREDTHS[took % 100], waited // 100, _HUNDREDTHS[waited % 100],
        overhead_us, usage.input_tokens, usage.output_tokens, nusd, _SOURCES[usage.estimated],
    )  # fmt: skip


def any_line(
    id: bytes, unix_s: float, key: bytes, what: bytes, status: int, attempts: int, took: int,
    more: dict[str, Any],
) -> bytes:  # fmt: skip
    """The line of any request; parameters as for :func:`usual_line`. ``more``: what else there is to say."""
    at_ms = int(unix_s * 1000.0 + 0.5)
    start = _START % (
        id, at_ms // 1000, _THOUSANDTHS[at_ms % 1000], key, what, status, attempts,
        took // 100, _HUNDREDTHS[took % 100],
    )  # fmt: skip
    return b"%b%b}\n" % (start, b"," + orjson.dumps(more)[1:-1] if more else b"")


def asked_of(endpoint: str, stream: bool, name: str | None, alias: str) -> bytes:
    """The members of a line that say what was asked. ``alias``: "" where the name is none."""
    asked: dict[str, Any] = {"endpoint": endpoint, "stream": stream, "asked": name}
    if alias:
        asked["alias"] = alias
    return orjson.dumps(asked)[1:-1]


def sent_to(asked: bytes, model: str, provider: str) -> bytes:
    """Those, and whom it was sent to."""
    return b"%b,%b" % (asked, orjson.dumps({"model": model, "provider": provider})[1:-1])


def used(usage: Usage, cost_nusd: int | None) -> dict[str, Any]:
    """The members that say what was used, and its parts where there are any."""
    found: dict[str, Any] = {"input": usage.input_tokens, "output": usage.output_tokens, "nusd": cost_nusd}
    found["source"] = _SOURCES[usage.estimated].decode()
    parts = {
        "cached": usage.cached_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "audio_input": usage.audio_input_tokens,
        "audio_output": usage.audio_output_tokens,
    }
    return found | {name: tokens for name, tokens in parts.items() if tokens}


def overtaken(model: str, provider: str, usage: Usage, cost_nusd: int | None) -> dict[str, object]:
    """One of those in ``hedged``."""
    return {
        "model": model,
        "provider": provider,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "nusd": cost_nusd,
    }


def row(line: bytes, name_of: Callable[[str], str | None]) -> dict[str, Any]:
    """The row of ``/admin/v1/requests``.

    :param line: with or without its LF.
    :param name_of: the name of the key with an id.
    """
    told = orjson.loads(line)
    get = told.get
    costs = [one.get("nusd") for one in (told, *get("hedged", ()))]
    costs = [cost for cost in costs if cost is not None]
    has_usage = "input" in told
    return {
        "id": told["id"],
        "time": round(told["t"], 3),
        "key": None if told["key"] is None else name_of(told["key"]),
        "key_id": told["key"],
        "group": get("group"),
        "tags": get("tags", {}) | get("client_tags", {}),
        "endpoint": told["endpoint"],
        "stream": told["stream"],
        "model_requested": told["asked"],
        "alias": get("alias"),
        "model": get("model"),
        "provider": get("provider"),
        "status": told["status"],
        "attempts": told["attempts"],
        "failed_attempts": get("failed", ""),
        "ttft_ms": _rounded(get("ttft_ms"), 3),
        "total_ms": _rounded(told["ms"], 3),
        "overhead_us": _rounded(get("overhead_us"), None),
        "input_tokens": get("input"),
        "cached_tokens": get("cached", 0) if has_usage else None,
        "output_tokens": get("output"),
        "usd": sum(costs) / 1e9 if costs else None,
        "usage_source": get("source"),
    }


def _rounded(value: float | None, digits: int | None) -> float | None:
    return None if value is None else round(value, digits)
