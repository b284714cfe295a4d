"""The commands that ask a running gateway through its admin API, and print tables."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from proxy.config import AdminConfig, Listen

TIMEOUT_S = 10.0
WATCH_S = 2.0
TOKEN_ENV = "TOKENHUB_ADMIN_TOKEN"  # noqa: S105  # the variable's name where no file names another
_CLEAR = "\x1b[H\x1b[2J"


class ConsoleError(Exception):
    """The command failed; the text is the one line that says why and what to do."""


class NoGateway(ConsoleError):
    """There is nobody to ask: certainly nothing was done. ``why``: in a few words."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class NotFound(ConsoleError):
    """The gateway knows no such thing."""


class Admin:
    """The admin API of a running gateway.

    :param url: ``http://host:port`` or ``unix:/path``.
    :param token: or "" for none.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._token = token

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer's JSON object. ``path`` is below ``/admin/v1``.

        :raises NotFound: it answered 404. :raises NoGateway: nobody answers there.
        :raises ConsoleError: it answered with an error, or not as the admin API does.
        """
        answer = self._exchange(method, path, body)
        with contextlib.suppress(ValueError):
            found = json.loads(answer)
            if isinstance(found, dict):
                return found
        raise self._is_other()

    def read(self, path: str) -> str:
        """The answer's text, as it is. Raises as :meth:`ask`."""
        try:
            return self._exchange("GET", path, None).decode()
        except UnicodeDecodeError:
            raise self._is_other() from None

    def _is_other(self) -> ConsoleError:
        return ConsoleError(f"what answers at {self.url} is no admin API of TokenHub")

    def _exchange(self, method: str, path: str, body: object) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        sent = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            sent = json.dumps(body)
        connection = self._connection()
        try:
            connection.request(method, f"/admin/v1{path}", sent, headers)
            response = connection.getresponse()
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            text = (
                f"no gateway's admin API at {self.url} ({reason}); start one with 'tokenhub serve', or name "
                "its address with --admin"
            )
            if isinstance(error, ConnectionRefusedError | FileNotFoundError):
                raise NoGateway(text, f"no gateway answers at {self.url}") from None
            raise ConsoleError(text) from None
        finally:
            connection.close()
        if status < 300:
            return answer
        message = f"{status}: {_message(answer)}"
        raise NotFound(message) if status == 404 else ConsoleError(message)

    def _connection(self) -> http.client.HTTPConnection:
        if self.url.startswith("unix:"):
            return _UnixConnection(self.url.removeprefix("unix:"))
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = None, None, None
        if parts is None or parts.scheme not in ("http", "https") or not host:
            raise ConsoleError(f"{self.url} is no address: http://127.0.0.1:8081 or unix:/path is")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def connect(url: str | None, admin: AdminConfig, environ: Mapping[str, str]) -> Admin:
    """The admin API at ``url``, else where the configuration has it.

    :raises NoGateway: the configuration has it nowhere.
    """
    token = environ.get(admin.token_env or TOKEN_ENV, "").strip()
    if url is not None:
        return Admin(url, token)
    listen = admin.listen
    if listen is None:
        why = "the admin API is switched off"
        raise NoGateway(f"{why}: [admin] listen in the configuration is empty", why)
    if not listen.path and not listen.port:
        why = "[admin] listen has port 0"
        raise NoGateway(f"{why}, so only the gateway's log knows the port: use --admin", why)
    return Admin(_url(listen), token)


def _url(listen: Listen) -> str:
    if listen.path:
        return f"unix:{listen.path}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return f"http://[{host}]:{listen.port}" if ":" in host else f"http://{host}:{listen.port}"


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode(errors="replace") or "an empty answer"


# ---------------------------------------------------------------------- tables


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns under each other; the first row is the head.

    :param right: the columns that end under each other.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show_routes(admin: Admin, *, watch: bool = False, pause: Callable[[float], None] = time.sleep) -> int:
    """Print the live rows; with ``watch`` again and again, until Ctrl-C."""
    try:
        while True:
            text = _routes_table(admin.ask("GET", "/routes")["data"])
            print(f"{_CLEAR}{text}" if watch and sys.stdout.isatty() else text, flush=True)
            if not watch:
                return 0
            pause(WATCH_S)
    except KeyboardInterrupt:
        return 0


def _routes_table(data: Iterable[Mapping[str, Any]]) -> str:
    head = (
        "MODEL", "ENDPOINT", "STATE", "FIRST BYTE", "TOKENS/S", "$/REQUEST", "SUCCESS", "IN FLIGHT", "DONE",
        "AGE", "LAST ERROR",
    )  # fmt: skip
    rows: list[Sequence[str]] = [head]
    for entry in data:
        row = entry["row"] or {}
        endpoint = f"{entry['endpoint'] or '-'}{' stream' if entry['stream'] else ''}"
        state = entry["state"]
        if entry["ejected_until"] is not None:
            state += f" {max(0.0, entry['ejected_until'] - time.time()):.0f} s"
        rows.append(
            (
                entry["id"],
                endpoint,
                state,
                _number(row.get("first_byte_s"), "{:.3f} s"),
                _number(row.get("output_tokens_per_s"), "{:.1f}"),
                _number(row.get("usd_per_request"), "{:.6f}"),
                _number(row.get("success"), "{:.1%}"),
                _number(row.get("in_flight"), "{:d}"),
                _number(row.get("finished"), "{:d}"),
                _number(row.get("age_s"), "{:.0f} s"),
                (row.get("last_error") or entry["reason"] or "")[:60],
            )
        )
    return table(rows, right=range(3, 10))


def _number(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def show_explanation(
    admin: Admin,
    model: str,
    *,
    body: str | None = None,
    strategy: str | None = None,
    endpoint: str | None = None,
    stream: bool = False,
) -> int:
    """Print where a request for ``model`` would go.

    :param body: a file with the request's body, "-" for standard input; None: a short one.
    """
    sent: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}]}
    if body is not None:
        sent = _read_body(body)
    sent["model"] = model
    if stream:
        sent["stream"] = True
    asked = {"body": sent, "strategy": strategy, "endpoint": endpoint}
    answer = admin.ask("POST", "/explain", asked)
    rows: list[Sequence[str]] = [("", "CANDIDATE", "SCORE", "")]
    for candidate in answer["candidates"]:
        score = _score(candidate["score"], candidate["unit"])
        arrow = "→" if candidate["id"] == answer["choice"] else ""
        rows.append((arrow, candidate["id"], score, candidate["skipped"] or ""))
    print(f"{model} ({answer['kind']}) by {answer['strategy']}, {answer['endpoint']}: {answer['why']}")
    print(table(rows))
    return 0


def _score(score: float | None, unit: str | None) -> str:
    if score is None:
        return "-"
    form = {"s": "{:.3f} s", "USD": "${:.6f}", "ratio": "{:.1%}"}.get(unit or "", "{:g}")
    return form.format(score) + (" turns" if unit == "turns" else "")


def _read_body(path: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise ConsoleError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConsoleError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConsoleError(f"{path} must hold one JSON object, the body of a request")
    return found


# ---------------------------------------------------------------------- aliases


def list_aliases(admin: Admin) -> int:
    """Print the aliases."""
    rows: list[Sequence[str]] = [("ALIAS", "STRATEGY", "MODELS", "MORE")]
    for alias in admin.ask("GET", "/aliases")["data"]:
        shares = [f"{model}={weight}" for model, weight in (alias["split"] or {}).items()]
        more = [f"split {', '.join(shares)}"] if shares else []
        more += [
            f"{key} {'' if alias[key] is True else alias[key]}".rstrip()
            for key in ("sticky", "peek", "hedge", "keepalive", "on_disconnect")
            if alias[key]
        ]
        rows.append((alias["name"], alias["strategy"] or "-", ", ".join(alias["models"]), "; ".join(more)))
    print(table(rows))
    return 0


def set_alias(
    admin: Admin, name: str, models: Sequence[str], *, strategy: str | None, split: Sequence[str]
) -> int:
    """Make an alias, or change what is given of one that exists.

    :param strategy: "" for the configured default.
    :param split: ``MODEL=WEIGHT`` each.
    """
    path = f"/aliases/{quote(name, safe='')}"
    try:
        settings = admin.ask("GET", path)
    except NotFound:
        settings = {}
    if models:
        settings["models"] = list(models)
    if strategy is not None:
        settings["strategy"] = strategy or None
    if split:
        settings["split"] = dict(map(_share, split))
    answer = admin.ask("PUT", path, settings)
    print(f"{answer['name']}: {', '.join(answer['models'])}")
    return 0


def _share(text: str) -> tuple[str, int]:
    model, _, weight = text.rpartition("=")
    if not model or not (weight.isascii() and weight.isdecimal()):
        raise ConsoleError(f"--split takes MODEL=WEIGHT, such as openai/gpt-4o=90, not '{text}'")
    return model, int(weight)


def remove_alias(admin: Admin, name: str) -> int:
    """Remove an alias."""
    admin.ask("DELETE", f"/aliases/{quote(name, safe='')}")
    print(f"{name} removed")
    return 0
