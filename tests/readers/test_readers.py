"""Real readers behind a real gateway: none runs a model, a length or a stream that the gateway did not see.

Each case of :mod:`tests.readers.cases` is sent to a gateway in front of each of :mod:`tests.readers.readers`,
by a key with limits and by one with a list of models alone, whose bodies are sent on before they are whole.
"""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

import pytest

from proxy.server.single import Server
from tests.readers.cases import CASES, EVIL_HOST, Case
from tests.readers.more import ASKED_FOR, MASTER_KEY
from tests.readers.oracle import MAX_TOKENS, MODEL, faults, seen_in
from tests.readers.readers import ANSWER_S, Reader, Reading, check_there, running
from tests.support.fakes import RawClient
from tests.support.keys import bearer, make

CONFIG = """
[providers.p]
base_url = "{url}"
{auth}
{settings}
[models."p/cheap"]
input_price = 1
output_price = 1
[models."p/dear"]
input_price = 100
output_price = 100
"""
# With limits of every kind, none of which any case comes near but for the length of an answer.
LIMITED = {"models": [MODEL], "max_tokens": MAX_TOKENS, "monthly_usd": 1000, "tpm": 10**9}
LISTED = {"models": [MODEL]}
# Bodies of more are written whole: byte by byte they would only take their time.
SLOW_BYTES = 300


class Answer(NamedTuple):
    """``code``: of the gateway's own error. ``model``: what the gateway says it asked for."""

    status: int
    code: str | None
    model: str


async def ask(server: Server, key: bytes, case: Case) -> Answer:
    client = await RawClient.connect(server)
    try:
        await send(client, key, case)
        status, fields, body = await asyncio.wait_for(client.response(), ANSWER_S)
    finally:
        client.close()
        RawClient.opened.remove(client)
    code = None
    if status >= 400 and b"x-inferoute-provider" not in fields:
        code = json.loads(body)["error"]["code"]
    return Answer(status, code, fields.get(b"x-inferoute-model", b"").decode())


def aimed(case: Case, behind: str) -> Case:
    """With the address that nobody may be sent to at a provider that would note it."""
    if not behind:
        return case
    host = behind.split("/")[2].encode()
    return case._replace(lines=tuple(line.replace(EVIL_HOST, host) for line in case.lines))


async def send(client: RawClient, key: bytes, case: Case) -> None:
    body, path = case.body, b"/v1/chat/completions" + (b"?" + case.query if case.query else b"")
    framing = b"Transfer-Encoding: chunked" if case.chunk else b"Content-Length: %d" % len(body)
    lines = [b"POST %b HTTP/1.1" % path, b"Host: gateway", bearer(key)[:-2], framing, *case.lines]
    if case.chunk:
        parts = [body[at : at + case.chunk] for at in range(0, len(body), case.chunk)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    try:
        if case.slowly and len(body) <= SLOW_BYTES:
            await client.send(b"\r\n".join(lines) + b"\r\n\r\n")
            for at in range(len(body)):
                await client.send(body[at : at + 1])
                await asyncio.sleep(0)
        else:
            await client.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    except ConnectionError:
        pass  # it was refused before it was whole


def judged(reader: Reader, case: Case, answer: Answer, read: list[Reading], limited: bool) -> list[str]:
    """What is wrong with a case at a reader, in words."""
    seen = seen_in(case.body)
    if answer.code is not None:  # ours: no reader got it
        if answer.status >= 500:
            return [f"the gateway answered {answer.status} {answer.code}, so it was not tried"]
        told = [f"{one['how']} got what the gateway refused: {one}" for one in read]
        return [*told, *([f"was refused: {answer.status} {answer.code}"] if case.runs else [])]
    found = []
    if answer.model != MODEL:
        found.append(f"the gateway says it asked for {answer.model!r}")
    for one in read:
        wrong = faults(seen, one, limited=limited)
        if wrong:
            found.append(f"{one['how']} {', '.join(wrong)}; the gateway saw {seen}")
    is_answered = answer.status == 200 or reader.is_gateway  # one of others may dislike the scripted answer
    if case.runs and not (read and is_answered):
        found.append(f"was answered {answer.status} and not run")
    return found


@pytest.mark.readers
@pytest.mark.parametrize("reader", ASKED_FOR, ids=lambda reader: reader.name.replace(" ", "-"))
async def test_it_runs_nothing_that_the_gateway_did_not_see(start, reader: Reader):
    check_there(reader)
    cases = [case for case in CASES if reader.takes_chunks or not (case.runs and case.chunk)]
    failed: list[str] = []
    ran = 0
    async with running(reader) as provider:
        settings = reader.settings.replace("{url}", provider.behind)
        config = CONFIG.format(url=provider.url, auth=reader.auth, settings=settings)
        server = await start(config, MASTER_KEY=MASTER_KEY)
        for name, granted in {"limited": LIMITED, "listed": LISTED}.items():
            _, key = await make(server, **{**granted, "name": name})
            for case in cases:
                answer = await ask(server, key, aimed(case, provider.behind))
                read = await provider.readings()
                ran += len(read)
                wrong = judged(reader, case, answer, read, name == "limited")
                failed += [
                    f"{reader.name} | {name} key | {case.name} | {what} | {sent(case)}" for what in wrong
                ]
        # What came late, if anything did, is of a request that was refused.
        failed += [f"{reader.name} | read afterwards | {one}" for one in await provider.readings()]
    assert not failed, f"{len(failed)} faults:\n" + "\n".join(failed)
    assert ran >= 2 * sum(case.runs for case in cases)


def sent(case: Case) -> str:
    shown = [repr(line) for line in case.lines] if case.lines != CASES[0].lines else []
    query = f" ?{case.query[:80]!r}" if case.query else ""
    return f"{case.body[:200]!r}{'…' if len(case.body) > 200 else ''}{query} {' '.join(shown)}".rstrip()
