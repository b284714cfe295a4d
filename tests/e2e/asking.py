"""Requests to a gateway of :mod:`tests.e2e`, its processes, and waiting for what becomes of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tests.e2e import Gateway

TEXT = """
[server]
{server}
[providers]
p = {{ base_url = "https://api.example.com/v1", api_key_env = "P_API_KEY" }}
[models]
"p/m" = {{ input_price = 1, output_price = 1 }}
[simulator]
mode = "{mode}"
"""
CHAT = "/v1/chat/completions"
NUMBERS = count()  # what fails only for one body is not blamed on the provider


def text(server: str = "", mode: str = "always") -> str:
    return TEXT.format(server=server, mode=mode)


def wait_for(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---------------------------------------------------------------------- requests


def request(
    gateway: Gateway, method: str, path: str, body: object = None, *, admin: bool = False, **headers: str
) -> http.client.HTTPResponse:
    """An answer whose body is still to be read; :func:`close` it then.

    :param admin: it is a request to the admin API. :param headers: "_" is read as "-".
    """
    host, _, port = (gateway.admin if admin else gateway.address).rpartition("//")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    sent, lines = None, {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent, lines = json.dumps(body), {"Content-Type": "application/json"} | lines
    connection.request(method, path, sent, lines)
    response = connection.getresponse()
    response.connection = connection  # lives as long as its response
    return response


def close(*responses: http.client.HTTPResponse) -> None:
    for response in responses:
        response.connection.close()
        response.close()


def fetch(
    gateway: Gateway, method: str, path: str, body: object = None, **more: Any
) -> http.client.HTTPResponse:
    """An answer in full, on a connection of its own; its body is ``.body``."""
    response = request(gateway, method, path, body, **more)
    response.body = response.read()
    close(response)
    return response


def ask(gateway: Gateway, model: str = "p/m", key: str = "", **headers: str) -> int:
    """Send a small request, to a provider that takes no time if it is simulated; its status."""
    body = {"model": model, "messages": [{"role": "user", "content": f"hi {next(NUMBERS)}"}], "max_tokens": 5}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    return fetch(gateway, "POST", CHAT, body, x_sim_latency_ms="0", x_sim_delay_ms="0", **headers).status


def stream(gateway: Gateway, delay_ms: int, chunks: int) -> http.client.HTTPResponse:
    """A simulated stream that has begun."""
    body = {"model": "p/m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    controls = {"x_sim_latency_ms": "0", "x_sim_delay_ms": str(delay_ms), "x_sim_chunks": str(chunks)}
    response = request(gateway, "POST", CHAT, body, **controls)
    assert response.status == 200
    assert response.readline().startswith(b"data: ")
    return response


def is_whole(response: http.client.HTTPResponse) -> bool:
    """Whether a stream comes to its end."""
    whole = response.read().endswith(b"data: [DONE]\n\n")
    close(response)
    return whole


# ---------------------------------------------------------------------- processes


def stat_of(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none of a process that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def is_running(pid: int) -> bool:
    return stat_of(pid)[:1] not in ([], ["Z"])


def processes(field: int, value: int) -> list[int]:
    """Those that have not ended and have this value in a field of their stat."""
    stats = {int(name): stat_of(name) for name in filter(str.isdecimal, os.listdir("/proc"))}
    return sorted(pid for pid, stat in stats.items() if stat and stat[0] != "Z" and int(stat[field]) == value)


def workers_of(pid: int) -> list[int]:
    """The child processes."""
    return processes(1, pid)
