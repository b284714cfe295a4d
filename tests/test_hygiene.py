"""Hostile clients and bad providers, through a running gateway on real sockets.

The tables are in :mod:`tests.hygienecases`. What one module refuses by itself is in its own tests; here is
what counts in the end: what a provider gets, how many answers there are, and that the connection is closed.
"""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests import hygienecases as cases
from tests.conftest import until
from tests.fakes import RawClient, ScriptedProvider

GOOD = cases.field()


def config(provider: ScriptedProvider, server: str = "", more: str = "") -> str:
    return (
        f'[server]\nlisten = ["127.0.0.1:0"]\n{server}\n[providers.mock]\nbase_url = "{provider.url}"\n'
        f'api_key_env = "MOCK_KEY"\n{more}\n[models."mock/m"]\n'
    )


async def send(client: RawClient, data: bytes, slowly: bool) -> None:
    """``slowly``: each byte is a read of its own. A gateway that has closed already is no fault here."""
    try:
        if not slowly:
            await client.send(data)
        for at in range(len(data) if slowly else 0):
            await client.send(data[at : at + 1])
            await asyncio.sleep(0)
    except ConnectionError:
        pass


def answers(received: bytes) -> list[int]:
    """The status of each answer in what came, whatever is in the bodies."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", received, re.MULTILINE)]


# ---------------------------------------------------------------------- what clients send


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("group", cases.REFUSED)
async def test_what_is_refused(provider, start, group, slowly):
    """One error, then the end: a good request behind it is not answered, and no provider gets any."""
    server = await start(config(provider), MOCK_KEY="k")
    for name, sent in cases.REFUSED[group].items():
        client = await RawClient.connect(server)
        await send(client, sent + GOOD, slowly and len(sent) < 1000)
        received = await asyncio.wait_for(client.rest(), 10)
        assert answers(received) == [400], name
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head, name
        assert json.loads(body)["error"]["type"] == "invalid_request_error", name
        # A body that comes slowly is begun upstream before it breaks; it never looks complete there.
        assert group == "chunks" or not provider.connections, name
        assert not provider.seen, name


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte by byte"])
async def test_what_is_taken(provider, start, slowly):
    """What a provider gets is the same, in whatever pieces it came, and a second request behind it too."""
    server = await start(config(provider), MOCK_KEY="k")
    for name, (sent, expected) in cases.TAKEN.items():
        client = await RawClient.connect(server)
        closes = b" HTTP/1.0\r\n" in sent
        await send(client, sent if closes else sent + GOOD, slowly and len(sent) < 1000)
        status, fields, body = await asyncio.wait_for(client.response(), 10)
        assert (status, body, fields.get(b"connection") == b"close") == (200, cases.SENT, closes), name
        if not closes:
            assert (await asyncio.wait_for(client.response(), 10))[2] == cases.SENT, name
        head, body = provider.seen[0]
        lines = head.replace(b"Host: 127.0.0.1:%d" % provider.port, b"Host: provider").split(b"\r\n")
        assert [lines[0], *sorted(lines[1:-2])] == expected, name
        assert body == cases.SENT, name
        provider.seen.clear()
        client.close()


async def test_what_is_handed_over(provider, start, caplog):
    """One answer, then the end; what stands behind it, as a request or as a body, is never one.

    And none is a way to fill the log.
    """
    server = await start(config(provider), MOCK_KEY="k")
    for name, (sent, status) in cases.HANDED_OVER.items():
        client = await RawClient.connect(server)
        await client.send(sent + GOOD)
        received = await asyncio.wait_for(client.rest(), 10)
        assert answers(received) == [status], name
        assert b"\r\nSet-Cookie" not in received, name
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head or head.startswith(b"HTTP/1.0"), name
        if status >= 400:
            assert json.loads(body)["error"]["message"], name
        assert not caplog.records, name
    assert not provider.connections


async def test_an_expectation_in_http_1_0_is_not_there(provider, start):
    """RFC 9110 section 10.1.1: an answer of 100 would be taken for the answer."""
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    sent = cases.TAKEN["Expect in 1.0"][0]
    at = len(sent) - len(cases.BODY)
    await client.send(sent[:at])
    await until(lambda: any(c._phase == 1 for c in server.gateway.connections))
    await client.send(sent[at:])
    assert answers(await asyncio.wait_for(client.rest(), 10)) == [200]
