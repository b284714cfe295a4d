"""What the tests of the admin API share: a gateway's configuration, one request, and its errors."""

from __future__ import annotations

import json
from typing import Any

from proxy.server.single import Server
from tests.support.fakes import RawClient

MODELS = """\
[providers.mock]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[models."mock/big"]
input_price = 2
output_price = 2
[models."mock/small"]
input_price = 1
output_price = 1
"""
TEXT = f"""
[server]
listen = ["127.0.0.1:0"]
[state]
path = ":memory:"
[admin]
listen = "127.0.0.1:0"
{MODELS}[aliases]
# the usual ones
both = ["mock/big", "mock/small"]  # in this order
cheap = {{ models = ["both"], strategy = "cost" }}
"""
WITH_TOKEN = TEXT.replace("[admin]", '[admin]\ntoken_env = "T"')
JSON = "Content-Type: application/json\r\n"
Answer = tuple[int, dict[bytes, bytes], bytes]


async def send(server: Server, head: str, body: bytes = b"") -> Answer:
    """The answer to a head as it stands, at the admin listener."""
    client = await RawClient.to(server.admin_address)
    await client.send(head.encode("latin-1") + b"\r\n" + body)
    answer = await client.response()
    client.close()
    return answer


async def ask(
    server: Server, method: str, path: str, body: object = None, extra: str = "", host: str = "localhost"
) -> Answer:
    """One request to the admin listener. Status, headers, body."""
    sent = b""
    if body is not None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra += f"{'' if 'Content-Type' in extra else JSON}Content-Length: {len(sent)}\r\n"
    return await send(server, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}", sent)


async def get(server: Server, path: str, **how: Any) -> dict[str, Any]:
    status, fields, body = await ask(server, "GET", f"/admin/v1{path}", **how)
    assert (status, fields[b"content-type"]) == (200, b"application/json")
    return json.loads(body)


def check_error(answer: Answer, status: int, code: str | None, said: str = "") -> dict[bytes, bytes]:
    """An error in the envelope, with ``said`` in its message; its header fields."""
    got, fields, body = answer
    error = json.loads(body)["error"]
    assert (got, error["code"]) == (status, code), error
    assert error.keys() == {"message", "type", "code", "param"}
    assert said in error["message"]
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"x-request-id"].startswith(b"req_")
    return fields


class Watcher:
    """One that reads the events of /admin/v1/live."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    @classmethod
    async def of(cls, server: Server, extra: str = "") -> Watcher:
        client = await RawClient.to(server.admin_address)
        await client.send(f"GET /admin/v1/live HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
        return cls(client)

    async def head(self) -> bytes:
        return await self._client.reader.readuntil(b"\r\n\r\n")

    async def event(self) -> tuple[str, dict[str, Any]]:
        reader, text = self._client.reader, b""
        while not text.endswith(b"\n\n"):
            size = int(await reader.readuntil(b"\r\n"), 16)
            assert size
            text += (await reader.readexactly(size + 2))[:-2]
        name, data = text.decode().strip().split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def end(self) -> bytes:
        return await self._client.reader.read()

    def leave(self) -> None:
        self._client.close()
