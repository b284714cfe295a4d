"""What the tests of ``tokenhub chat`` and ``bench`` share: a configuration, and scripted streams."""

from __future__ import annotations

import json
from typing import Any

from proxy.cli.bench_load import Plan
from proxy.cli.data_client import target_of
from proxy.cli.parser import url_of
from tests.support.fakes import EVENT_STREAM, Call, Script, ScriptedProvider

# What a load is answered with.
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 600}}
ANSWER = json.dumps({"choices": [], "usage": USAGE}).encode()
END = b"0\r\n\r\n"


def config(
    provider: ScriptedProvider, listen: str = "127.0.0.1:0", prices: str = "input_price = 1\noutput_price = 2"
) -> str:
    return (
        f'[server]\nlisten = ["{listen}"]\n[providers.mock]\nbase_url = "{provider.url}"\nauth = "none"\n'
        f'[models."mock/m"]\n{prices}\n[models."mock/n"]\n[aliases]\nboth = ["mock/m", "mock/n"]\n'
    )


def simulated(provider: ScriptedProvider) -> str:
    """The same, answered by the simulator, which takes no time."""
    quick = 'headers = { x-sim-latency-ms = "0", x-sim-delay-ms = "0" }'
    text = config(provider).replace('auth = "none"', f'auth = "none"\n{quick}')
    return f'{text}[simulator]\nmode = "always"\n'


def event(value: object) -> bytes:
    data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(text: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def stream_of(*events: object, end: bytes = END) -> bytes:
    """The bytes of an answer with these events; ``end``: what stands behind them."""
    return EVENT_STREAM + b"".join(map(event, events)) + end


def saying(data: bytes, stays: bool = True) -> Script:
    """A provider that answers each request with these bytes, or one, and closes."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(data)
        while stays:
            await call.request()
            await call.send(data)

    return script


async def answer(call: Call) -> None:
    while True:
        await call.request()
        await call.answer(ANSWER)


def plan_of(server, **more) -> Plan:
    given = {
        "target": target_of(url_of(server.addresses[0]), None), "model": "mock/m",
        "path": "/v1/chat/completions", "endpoint": "chat", "body": b'{"model":"mock/m","messages":[]}',
        "is_stream": False, "concurrency": 3, "rate": None, "requests": 10, "duration_s": None,
        "timeout_s": 10.0,
    }  # fmt: skip
    return Plan(**given | more)
