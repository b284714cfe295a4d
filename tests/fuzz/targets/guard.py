"""The admin listener's guard: only this host by its names, no foreign page, its query and Accept."""

from __future__ import annotations

import ipaddress
import re
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from multidict import CIMultiDict, MultiDict

from proxy.config.settings import Listen
from proxy.control.admin.guard import guard
from proxy.control.admin.inputs import QUERIES, prefers, query_of
from proxy.errors import GatewayError

LISTEN = Listen("127.0.0.1", 8081)
LET_THROUGH = guard(LISTEN, "")
WITH_TOKEN = guard(LISTEN, "s3cret")
PATHS = (*QUERIES, "/admin/v1/keys", "/", "/assets/a.js", "/metrics")
# path number, then lines: Host, Origin, target, query, Accept, Authorization, Sec-Fetch-Site
SEEDS = [
    b"\x00localhost:8081\nhttp://localhost:8081\n/\nstrategy=cost\n"
    b"application/json, text/csv;q=0.5\nBearer s3cret\n",
    b"\x01[::1]:1\n\nhttp://localhost/x\nkey=a&model=b&key=c\n*/*;q=x\nbearer  s3cret\ncross-site",
    b"\x02127.9.9.9\nhttp://127.9.9.9\n*\nby=day&since=&format=csv\ntext/*;q=0\n\nnone",
    b"\x01localhost\nhttp://localhost.evil\n/\n\n\n\n",
    b"\x01localhost\nhttps://localhost\n/\n\n\n\n",
    b"\x03evil.example\nnull\n/\n%00=%ff\n\nBasic s3cret\nsame-site",
    b"\x04localhost@evil\nhttp://localhost@evil\n//evil/x\n;=\n;q=1;q=2\nBearer s3cret\xff\nsame-origin",
    b"\x00[0:0:0:0:0:0:0:1]\nHTTP://[0:0:0:0:0:0:0:1]\nhttp://[::1/x\n\n\n\n",
    b"\x000x7f.1\nhttp://0x7f.1\nhttps://evil@localhost\n\n\n\n",
]
_PORT = re.compile(r"[0-9]{0,5}")


def test_one(data: bytes) -> None:
    if not data:
        return
    lines = [line.decode("utf-8", "surrogateescape") for line in data[1:].split(b"\n")]
    host, origin, target, query, accept, authorization, site = (lines + [""] * 7)[:7]
    path = PATHS[data[0] % len(PATHS)]
    request = made(path, host, origin, target or "/", query, authorization, site)
    prefers(accept, "text/csv", "application/json")
    assert all(query_of(request).values())
    is_open = passes(LET_THROUGH, request)
    if is_open:
        check_host(host)
        assert origin == "" or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
        if path.startswith("/admin/"):
            names = [name for name, _ in request.query.items()]
            assert len(names) == len(set(names)) and set(names) <= set(QUERIES.get(path, ()))
    if passes(WITH_TOKEN, request):
        assert is_open
        is_free = path in ("/", "/healthz") or path.startswith("/assets/")
        assert is_free or authorization.partition(" ")[2].strip() == "s3cret"


def made(path: str, host: str, origin: str, target: str, query: str, authorization: str, site: str) -> Any:
    """What the guard looks at of an aiohttp request."""
    headers = CIMultiDict([("Host", host)])
    fields = (("Origin", origin), ("Authorization", authorization), ("Sec-Fetch-Site", site))
    headers.extend([(name, value) for name, value in fields if value])
    resource = SimpleNamespace(canonical=path)
    return SimpleNamespace(
        headers=headers, raw_path=target, path=path, method="GET", body_exists=False,
        query=MultiDict(parse_qsl(query, keep_blank_values=True)),
        match_info=SimpleNamespace(route=SimpleNamespace(resource=resource)),
    )  # fmt: skip


def passes(middleware: Any, request: Any) -> bool:
    async def handler(_: Any) -> str:
        return "through"

    try:
        middleware(request, handler).send(None)
    except StopIteration as done:
        assert done.value == "through"
        return True
    except GatewayError as error:
        assert error.status in (400, 401, 403)
        return False
    raise AssertionError("it waits")


def check_host(host: str) -> None:
    """As a URL has it, it is this host and nothing else."""
    parts = urlsplit(f"http://{host}/")
    assert parts.username is None and parts.path == "/" and not parts.query and not parts.fragment
    name = (parts.hostname or "").removesuffix(".")
    assert name == "localhost" or ipaddress.ip_address(name).is_loopback, host
    assert _PORT.fullmatch(host.rpartition("]")[2].partition(":")[2])
