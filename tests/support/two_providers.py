"""Two providers behind one name, and what a client sees of the attempts at them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from proxy.deployments.deployment import Deployment
from proxy.routing.verdict import is_transient
from proxy.server.single import Server
from proxy.usage.line import row
from tests.support.fakes import RawClient, ScriptedProvider, until

# What comes before and behind the model must arrive as it is: spaces, escapes, numbers.
_BEFORE = b'{"messages":[{"role":"user","content":"h\\u00e9 \\/"}], "model" : '
_AFTER = b' ,"x":1.50}'


def body(model: str = "two", more: bytes = b"") -> bytes:
    return _BEFORE + json.dumps(model).encode() + more + _AFTER


SENT = body("m")  # what a provider has to get of it

NO_KEY = 'auth = "none"'


def config(
    a: ScriptedProvider | str,
    b: ScriptedProvider | str,
    *,
    alias: str = "",
    strategy: str = "cost",
    tables: str = "",
    a_more: str = "",
    more: str = "",
) -> str:
    """Providers ``a`` and ``b``, each with the models ``m`` and ``n``, and ``two``, which asks a/m first.

    :param alias: further keys of ``two``. :param tables: whole tables, before. :param a_more: further keys of
        provider a. :param more: what follows after the aliases.
    """
    a, b = (p if isinstance(p, str) else p.url for p in (a, b))
    return f"""
{tables}
[providers.a]
base_url = "{a}"
{"" if re.search("^(auth|api_key)", a_more, re.M) else NO_KEY}
{a_more}
[providers.b]
base_url = "{b}"
auth = "none"
[models."a/m"]
input_price = 1
output_price = 1
[models."b/m"]
input_price = 100
output_price = 100
[models."a/n"]
input_price = 10_000
output_price = 10_000
[models."b/n"]
input_price = 100_000
output_price = 100_000
[aliases]
two = {{ models = ["a/m", "b/m"], strategy = "{strategy}"{", " + alias if alias else ""} }}
{more}
"""


class Reply(NamedTuple):
    """An answer as the client got it."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def story(self) -> str:
        """``X-Inferoute-Attempts`` without the times; "" if there is none."""
        told = self.fields.get(b"x-inferoute-attempts", b"").decode()
        for part in told.split(", ") if told else ():
            assert re.fullmatch(r"[a-z]+:[a-z0-9-]+:\d+ms", part), told
        return re.sub(r":\d+ms", "", told)

    @property
    def error(self) -> dict[str, Any]:
        error = json.loads(self.body)["error"]
        assert error.keys() == {"message", "type", "code", "param"}
        return error

    @property
    def kind(self) -> tuple[int, str, str]:
        """Status, type and code of an error of the gateway's own."""
        assert self.fields[b"content-type"] == b"application/json"
        assert self.fields[b"x-request-id"] == self.fields[b"x-inferoute-request-id"]
        again = self.status == 408 or self.status >= 429
        if self.error["code"] == "all_attempts_failed":
            again = is_transient([part.rpartition(":")[2] for part in self.story.split(", ")])
        assert self.fields[b"x-should-retry"] == (b"true" if again else b"false")
        return self.status, self.error["type"], self.error["code"]


async def ask(server: Server, model: str = "two", *headers: str, more: bytes = b"", **options: Any) -> Reply:
    """One request on a connection of its own.

    :param headers: such as ``X-Inferoute-Fallback: b/m``. :param more: further members of the body.
    """
    client = await RawClient.connect(server)
    await client.post(body(model, more), extra="".join(f"{line}\r\n" for line in headers).encode(), **options)
    reply = Reply(*await client.response())
    client.close()
    return reply


def deployment(server: Server, name: str = "a/m") -> Deployment:
    return server.gateway.catalog.deployments[name]


def strikes(server: Server, *names: str) -> list[int]:
    """Failures in a row of these deployments."""
    return [deployment(server, name).breaker.failures for name in names or ("a/m", "b/m")]


def rows(server: Server) -> list[dict[str, Any]]:
    """The table of finished requests, oldest first."""
    return [
        row(line, server.gateway.keys.name_of) for line in reversed(list(server.gateway.completions.recent))
    ]


def exchange(server: Server) -> Any:
    """The only request that runs."""
    running = [c._exchange for c in server.gateway.connections if c._exchange is not None]
    assert len(running) == 1
    return running[0]


async def sending(server: Server) -> Any:
    """Wait until the attempt of the only request that runs has its connection; the attempt."""
    found: list[Any] = []

    def is_connected() -> bool:
        found[:] = [c._exchange.attempt for c in server.gateway.connections if c._exchange is not None]
        return bool(found and found[0] is not None and found[0].connection is not None)

    await until(is_connected)
    return found[0]


async def close_idle(server: Server) -> None:
    """So that a provider's next request begins its script anew."""
    for provider in server.gateway.providers.values():
        await provider.pool.close()
    await until(lambda: are_open(server) == [0, 0])


def are_open(server: Server, names: Iterable[str] = ("a", "b")) -> list[int]:
    """Connections to these providers, open or being opened."""
    pools = [server.gateway.providers[name].pool.snapshot() for name in names]
    return [pool["open"] + pool["dialling"] for pool in pools]
