"""The admin API of a running gateway, for commands."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proxy.cli.parser import CommandError, error_message, load_if_needed, url_of
from proxy.cli.unreachable import unreachable
from proxy.config.settings import AdminConfig

TIMEOUT_S = 10.0
TOKEN_ENV = "TOKENHUB_ADMIN_TOKEN"  # noqa: S105  # the variable's name where no file names another


class ConsoleError(CommandError):
    """The command failed; the text is the one line that says why and what to do."""


class Unanswered(ConsoleError):
    """The gateway did not answer, or not to the end."""


class NoGateway(Unanswered):
    """No gateway was reached, so nothing was done. ``why``: the reason in a few words."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class AdminNotFound(ConsoleError):
    """The gateway answered 404."""


class Admin:
    """The admin API of a running gateway.

    :param url: ``http://host:port`` or ``unix:/path``.
    :param token: or "" for none.
    :param token_env: the variable that holds the token.
    :raises ConsoleError: the token has characters that no token has.
    """

    def __init__(self, url: str, token: str, token_env: str = TOKEN_ENV) -> None:
        if not (token.isascii() and token.isprintable()):
            raise ConsoleError(f"${token_env} holds characters that no token has")
        self.url = url.rstrip("/")
        self._token = token
        self._token_env = token_env
        self.timeout_s = TIMEOUT_S

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request; returns the JSON object of the response. ``path`` is below ``/admin/v1``.

        :raises NotFound: it answered 404. :raises NoGateway: no gateway answers there.
        :raises ConsoleError: it answered with an error, or not as the admin API does.
        """
        answer = self._exchange(method, path, body)
        with contextlib.suppress(ValueError):
            found = json.loads(answer)
            if isinstance(found, dict):
                return found
        raise self._is_other()

    def rows(self, path: str) -> list[dict[str, Any]]:
        """Get a list. Raises as :meth:`ask`."""
        rows = self.ask("GET", path).get("data")
        if isinstance(rows, list):
            return rows
        raise self._is_other()

    def read(self, path: str) -> str:
        """Get a text. Raises as :meth:`ask`."""
        try:
            return self._exchange("GET", path, None).decode()
        except UnicodeDecodeError:
            raise self._is_other() from None

    def _is_other(self) -> ConsoleError:
        return ConsoleError(
            f"what answers at {self.url} is not TokenHub's admin API: name its address with --admin, or in "
            "[admin] listen of the configuration"
        )

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
            text = unreachable(error, "gateway's admin API", self.url, "--admin")
            if isinstance(error, ConnectionRefusedError | FileNotFoundError):
                raise NoGateway(text, f"no gateway answers at {self.url}") from None
            raise Unanswered(text) from None
        finally:
            connection.close()
        if status < 300:
            return answer
        message = error_message(answer)
        if message is None:
            raise self._is_other()
        if status == 401:
            what = f"refuses the token of ${self._token_env}" if self._token else "needs its token"
            raise ConsoleError(
                f"401: the admin API at {self.url} {what}: set ${self._token_env} to the gateway's"
            )
        message = f"{status}: {message}"
        raise AdminNotFound(message) if status == 404 else ConsoleError(message)

    def _connection(self) -> http.client.HTTPConnection:
        if self.url.startswith("unix:"):
            return _UnixConnection(self.url.removeprefix("unix:"), self.timeout_s)
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = None, None, None
        if parts is None or parts.scheme not in ("http", "https") or not host:
            raise self._no_address()
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            return kind(host, port, timeout=self.timeout_s)
        except http.client.InvalidURL:
            raise self._no_address() from None

    def _no_address(self) -> ConsoleError:
        return ConsoleError(f"{self.url} is not an address such as http://127.0.0.1:8081 or unix:/path")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connect(url: str | None, admin: AdminConfig, environ: Mapping[str, str]) -> Admin:
    """The admin API at ``url``, else where the configuration has it.

    :raises NoGateway: the configuration has it nowhere.
    """
    token_env = admin.token_env or TOKEN_ENV
    token = environ.get(token_env, "").strip()
    if url is not None:
        return Admin(url, token, token_env)
    listen = admin.listen
    if listen is None:
        why = "the admin API is switched off"
        raise NoGateway(f"{why}: [admin] listen in the configuration is empty", why)
    if not listen.path and not listen.port:
        why = "[admin] listen has port 0"
        raise NoGateway(f"{why}, so only the gateway's log knows the port: use --admin", why)
    return Admin(url_of(listen), token, token_env)


def admin_of(args: argparse.Namespace) -> Admin:
    """The admin API of the gateway that runs, for a command of :meth:`proxy.cli.parser.Commands.add_admin`.

    :raises CommandError: nothing says where it is.
    """
    config = load_if_needed(args)
    return connect(args.admin, AdminConfig() if config is None else config.admin, os.environ)
