"""The commands that call a running gateway's admin API: routes, explain, aliases."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxy.cli.admin_client import Admin, AdminNotFound, ConsoleError
from proxy.cli.tables import BAD, FAINT, GOOD, NOTHING, PLAIN, WARN, Column, TextTable
from proxy.cli.terminal import print_json, show, show_lines
from proxy.cli.watch import watch

# ---------------------------------------------------------------------- routes

# By the first word of a state; the others are between good and bad.
_TONES = {"ok": GOOD, "ejected": BAD, "no": FAINT}


def show_routes(admin: Admin, *, is_watched: bool = False, as_json: bool = False) -> int:
    """Print the live rows; watched: again and again, until Ctrl-C."""

    def read() -> list[dict[str, Any]]:
        return admin.rows("/routes")

    if is_watched:
        return watch(read, routes_table, title=f"routes of {admin.url}", as_json=as_json)
    rows = read()
    if as_json:
        print_json({"data": rows})
    else:
        show(routes_table(rows))
    return 0


def _state_tone(text: str) -> str:
    return _TONES.get(text.split(" ", maxsplit=1)[0], WARN)


def _success_tone(text: str) -> str:
    share = float(text.removesuffix("%"))
    return BAD if share < 50 else WARN if share < 95 else PLAIN


_ROUTES = (
    Column("MODEL"),
    Column("ENDPOINT", rank=1),
    Column("STATE", tone=_state_tone),
    Column("FIRST BYTE", is_number=True, rank=2),
    Column("TOKENS/S", is_number=True, rank=5),
    Column("$/REQUEST", is_number=True, rank=6),
    Column("SUCCESS", is_number=True, rank=3, tone=_success_tone),
    Column("IN FLIGHT", is_number=True, rank=4),
    Column("DONE", is_number=True, rank=7),
    Column("AGE", is_number=True, rank=8, tone=lambda text: FAINT),
    Column("LAST ERROR", rank=4, least=16, is_cut=True, tone=lambda text: BAD),
)


def routes_table(data: Iterable[Mapping[str, Any]]) -> TextTable:
    """The rows of ``/admin/v1/routes``."""
    rows = []
    for entry in data:
        row = entry["row"] or {}
        state = entry["state"]
        if entry["ejected_until"] is not None:
            state += f" {max(0.0, entry['ejected_until'] - time.time()):.0f} s"
        rows.append(
            (
                entry["id"],
                f"{entry['endpoint'] or NOTHING}{' stream' if entry['stream'] else ''}",
                state,
                _number(row.get("first_byte_s"), "{:.3f} s"),
                _number(row.get("output_tokens_per_s"), "{:.1f}"),
                _number(row.get("usd_per_request"), "{:.6f}"),
                _number(row.get("success") if row.get("finished") else None, "{:.1%}"),  # else the prior
                _number(row.get("in_flight"), "{:d}"),
                _number(row.get("finished"), "{:d}"),
                _number(row.get("age_s"), "{:.0f} s"),
                row.get("last_error") or entry["reason"] or "",
            )
        )
    return TextTable(_ROUTES, rows)


def _number(value: Any, form: str) -> str:
    return NOTHING if value is None else form.format(value)


# ---------------------------------------------------------------------- explain


def show_explanation(
    admin: Admin,
    model: str | None,
    *,
    body: str | None = None,
    strategy: str | None = None,
    endpoint: str | None = None,
    stream: bool = False,
    headers: Sequence[str] | None = None,
    query: str | None = None,
    as_json: bool = False,
) -> int:
    """Print where a request for ``model`` would go.

    :param model: None: as the body says, or nothing.
    :param body: a file with the request's body, "-" for standard input; None: a short one.
    :param headers: of the request, ``Name: value`` or ``@file`` each; an empty list: the usual ones. None:
        nothing is asked of them.
    :param query: of the request; None: nothing is asked of it.
    """
    sent: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}]}
    if body is not None:
        sent = read_body(body)
    if model is not None:
        sent["model"] = model
    if stream:
        sent["stream"] = True
    asked: dict[str, Any] = {"body": sent, "strategy": strategy, "endpoint": endpoint}
    if headers is not None or query is not None:
        asked |= {"headers": read_header_lines(headers or ()), "query": query}
        if not headers and query is None:
            asked["headers"] = USUAL_HEADERS
    answer = admin.ask("POST", "/explain", asked)
    if as_json:
        print_json(answer)
        return 0
    name = model or answer["model"] or answer["default_model"] or "no model"
    why = f"{name} ({answer['kind']}) by {answer['strategy']}, {answer['endpoint']}: {answer['why']}"
    show_lines([[(why, PLAIN)]])
    rows = []
    for candidate in answer["candidates"]:
        arrow = "→" if candidate["id"] == answer["choice"] else ""
        score = _score(candidate["score"], candidate["unit"])
        rows.append((arrow, candidate["id"], score, candidate["skipped"] or ""))
    show(TextTable(_CANDIDATES, rows))
    if answer["forwarding"] is not None:
        show_lines([[]])
        show(forwarding_table(answer["forwarding"]))
    return 0


_CANDIDATES = (
    Column("", tone=lambda text: GOOD),
    Column("MEMBER"),
    Column("SCORE", is_number=True),
    Column("SKIPPED", least=16, tone=lambda text: WARN),
)


_FORWARDING = (
    Column("HEADER OR PARAMETER", least=12),
    Column("PROVIDER", least=12, rank=1),
    Column("PASSES", tone=lambda text: GOOD if text == "yes" else WARN),
    Column("WHY NOT", least=16),
)
# Headers that SDKs, coding agents and browsers send: shown unless others are given.
USUAL_HEADERS = [
    "Authorization: x", "X-Api-Key: x", "Content-Type: application/json", "Accept: x", "User-Agent: x",
    "Idempotency-Key: x", "OpenAI-Beta: x", "OpenAI-Organization: x", "OpenAI-Project: x",
    "anthropic-version: x", "anthropic-beta: x", "X-Stainless-Lang: x", "X-Claude-Code-Session-Id: x",
    "Session-Id: x", "session_id: x", "X-Session-Affinity: x", "traceparent: x", "X-Request-Id: x",
    "HTTP-Referer: x", "X-Title: x", "Origin: x", "Referer: x", "Cookie: x", "X-Forwarded-For: x",
]  # fmt: skip


def forwarding_table(rows: Iterable[Mapping[str, Any]]) -> TextTable:
    """The table of which parts of a head reach which providers; providers that do the same share a row."""
    found: dict[tuple[str, str, str], list[str]] = {}
    everybody: dict[str, None] = {}
    for row in rows:
        name = row["name"] if row["kind"] == "header" else f"?{row['name']}"
        verdict = name, "yes" if row["passes"] else "no", row["reason"] or ""
        found.setdefault(verdict, []).append(row["provider"])
        everybody[row["provider"]] = None
    told = [
        (name, "all" if 1 < len(providers) == len(everybody) else ", ".join(providers), passes, reason)
        for (name, passes, reason), providers in found.items()
    ]
    return TextTable(_FORWARDING, told)


def read_header_lines(given: Sequence[str]) -> list[str]:
    """Header lines as they are written, and those of each ``@file`` (``@-``: standard input).

    :raises ConsoleError: a file can't be read.
    """
    lines: list[str] = []
    for text in given:
        if text.startswith("@"):
            lines += [line for line in _read_text(text[1:]).splitlines() if line.strip()]
        else:
            lines.append(text)
    return lines


def _read_text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConsoleError(f"can't read {path}: {error.strerror}") from None
    except ValueError:
        raise ConsoleError(f"{path} is not UTF-8") from None


def _score(score: float | None, unit: str | None) -> str:
    if score is None:
        return NOTHING
    form = {"s": "{:.3f} s", "USD": "${:.6f}", "ratio": "{:.1%}"}.get(unit or "", "{:g}")
    return form.format(score) + (" turns" if unit == "turns" else "")


def read_body(path: str) -> dict[str, Any]:
    """The body of a request from a file, "-" for standard input.

    :raises ConsoleError: it can't be read, or is none.
    """
    text = _read_text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConsoleError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConsoleError(f"{path} must hold one JSON object, the body of a request")
    return found


# ---------------------------------------------------------------------- aliases

_ALIASES = (
    Column("ALIAS"),
    Column("STRATEGY", rank=2),
    Column("MODELS", least=24),
    Column("MORE", rank=1, least=16),
)


# What the last column lists, where it is set.
_ALIAS_SETTINGS = (
    "sticky", "peek", "hedge", "keepalive", "on_disconnect", "deadline", "connect", "first_byte",
    "first_token", "idle", "total",
)  # fmt: skip


def list_aliases(admin: Admin, *, as_json: bool = False) -> int:
    """Print the aliases."""
    aliases = admin.rows("/aliases")
    if as_json:
        print_json({"data": aliases})
        return 0
    rows = []
    for alias in aliases:
        shares = [f"{model}={weight}" for model, weight in (alias["split"] or {}).items()]
        more = [f"split {', '.join(shares)}"] if shares else []
        more += [f"fallback {', '.join(alias['fallback'])}"] if alias["fallback"] else []
        more += [
            f"{key} {'' if alias[key] is True else alias[key]}".rstrip()
            for key in _ALIAS_SETTINGS
            if alias[key]
        ]
        rows.append(
            (alias["name"], alias["strategy"] or NOTHING, ", ".join(alias["models"]), "; ".join(more))
        )
    show(TextTable(_ALIASES, rows))
    return 0


def set_alias(
    admin: Admin,
    name: str,
    models: Sequence[str],
    *,
    strategy: str | None,
    split: Sequence[str],
    as_json: bool = False,
) -> int:
    """Make an alias, or change what is given of one that exists.

    :param strategy: "" for the configured default.
    :param split: ``MODEL=WEIGHT`` each.
    """
    path = f"/aliases/{quote(name, safe='')}"
    try:
        settings = admin.ask("GET", path)
    except AdminNotFound:
        settings = {}
    if models:
        settings["models"] = list(models)
    if strategy is not None:
        settings["strategy"] = strategy or None
    if split:
        settings["split"] = dict(map(_share, split))
    answer = admin.ask("PUT", path, settings)
    if as_json:
        print_json(answer)
    else:
        show_lines([[(f"{answer['name']}: {', '.join(answer['models'])}", PLAIN)]])
    return 0


def _share(text: str) -> tuple[str, int]:
    model, _, weight = text.rpartition("=")
    if not model or not (weight.isascii() and weight.isdecimal()):
        raise ConsoleError(f"--split takes MODEL=WEIGHT, such as openai/gpt-4o=90, not '{text}'")
    return model, int(weight)


def remove_alias(admin: Admin, name: str, *, as_json: bool = False) -> int:
    """Remove an alias."""
    answer = admin.ask("DELETE", f"/aliases/{quote(name, safe='')}")
    if as_json:
        print_json(answer)
    else:
        show_lines([[(f"{name} removed", PLAIN)]])
    return 0
