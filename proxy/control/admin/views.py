"""Views of the admin API: rows of the live tables and of the configuration, as JSON values."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from proxy.config.settings import P99, AliasConfig, TimeLimits
from proxy.routing.catalog import Catalog
from proxy.wire.query import QueryError

MAX_REQUESTS = 1000
DEFAULT_REQUESTS = 100
FILTERS = ("limit", "key", "model", "status")


def route_rows(catalog: Catalog, now: float, unix_s: float) -> Iterator[dict[str, Any]]:
    """Every deployment with each of its live rows; one that was never asked has one row of nulls.

    :param now: monotonic seconds. :param unix_s: the same moment for people.
    """
    for deployment in catalog.deployments.values():
        health = deployment.health(now)
        left_s = health["ejected_until_s"]
        common = {
            "id": deployment.id,
            "provider": deployment.provider.name,
            "model": deployment.short,
            "usable": deployment.usable,
            "state": health["state"],
            "reason": health["reason"],
            "ejected_until": None if left_s is None else unix_s + left_s,
        }
        live = sorted(deployment.rows().items())
        for (endpoint, streamed), row in live:
            yield common | {"endpoint": endpoint, "stream": streamed, "row": row.snapshot(now)}
        if not live:
            yield common | {"endpoint": None, "stream": None, "row": None}


def alias_row(alias: AliasConfig) -> dict[str, Any]:
    """An alias as the file has it; what it doesn't set is null. The row can be sent back as it is."""
    hedge = alias.hedge
    return {
        "name": alias.name,
        "models": list(alias.models),
        "fallback": list(alias.fallback) or None,
        "strategy": alias.strategy,
        "split": dict(alias.split) or None,
        "sticky": alias.sticky,
        "peek": alias.peek,
        "fail_on": None if alias.fail_on is None else [_entry(entry) for entry in alias.fail_on],
        "hedge": _duration(hedge) if isinstance(hedge, float) else hedge,
        "max_first_token": None if alias.max_first_token_s is None else _duration(alias.max_first_token_s),
        "keepalive": None if alias.keepalive_s is None else _duration(alias.keepalive_s),
        "on_disconnect": alias.on_disconnect,
        "deadline": None if alias.deadline_s is None else _duration(alias.deadline_s),
        **_times(alias.times),
    }


def _times(times: TimeLimits) -> dict[str, str | None]:
    given = {
        "connect": times.connect_s, "first_byte": times.first_byte_s, "first_token": times.first_token_s,
        "idle": times.idle_s, "total": times.total_s,
    }  # fmt: skip
    return {
        name: None if value is None else "p99" if value == P99 else _duration(value)
        for name, value in given.items()
    }


def _entry(entry: str) -> str | int:
    return int(entry) if entry.isdigit() else entry


def _duration(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def select_requests(
    newest_first: Iterable[dict[str, Any]], query: Mapping[str, str]
) -> Generator[None, None, list[dict[str, Any]]]:
    """The rows of finished requests that ``limit``, ``key``, ``model`` and ``status`` let through; in steps.

    :raises QueryError: a value can't be read; the text is a sentence.
    """
    unknown = query.keys() - set(FILTERS)
    if unknown:
        name = min(unknown)
        raise QueryError(name, f"There is no filter '{name}'; known: {', '.join(FILTERS)}.")
    limit = limit_of(query)
    wanted = query.get("status")
    status = None if wanted in (None, "error") else _whole("status", str(wanted), 999)
    key, model = query.get("key"), query.get("model")
    found: list[dict[str, Any]] = []
    for row in newest_first:
        if len(found) == limit:
            break
        if (
            (key is None or key in (row["key"], row["key_id"]))
            and (model is None or model in (row["model"], row["model_requested"]))
            and (status is None or row["status"] == status)
            and (wanted != "error" or row["status"] >= 400)
        ):
            found.append(row)
        yield
    return found


def limit_of(query: Mapping[str, str]) -> int:
    """The number of rows that a query asks for. :raises QueryError: it is no number, or too large."""
    return _whole("limit", query.get("limit", str(DEFAULT_REQUESTS)), MAX_REQUESTS)


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= most or len(text) > 9:
        also = ", or 'error'" if name == "status" else ""
        raise QueryError(name, f"'{name}' must be a whole number from 1 to {most}{also}.")
    return int(text)
