"""``tokenhub chat`` against a real gateway."""

from __future__ import annotations

import asyncio
import json
import socket
import sys

import pytest

from proxy.cli.chat import ChatError, chat
from proxy.cli.data_client import Target, target_of
from proxy.cli.parser import CommandError, url_of
from proxy.config.parse import parse
from proxy.config.settings import Listen
from tests.support.fakes import Call, ScriptedProvider

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def config(provider, listen: str = "127.0.0.1:0", prices: str = "input_price = 1\noutput_price = 2") -> str:
    return (
        f'[server]\nlisten = ["{listen}"]\n[providers.mock]\nbase_url = "{provider.url}"\nauth = "none"\n'
        f'[models."mock/m"]\n{prices}\n[models."mock/n"]\n[aliases]\nboth = ["mock/m", "mock/n"]\n'
    )


def event(value: object) -> bytes:
    data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(text: str | None) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}


def streaming(*events: object, end: bytes = b"0\r\n\r\n", seen: list | None = None):
    async def script(call: Call) -> None:
        while True:
            request = await call.request()
            if seen is not None:
                seen.append(request)
            await call.send(EVENTS + b"".join(map(event, events)) + end)
            if not end:
                return

    return script


def at(listen: Listen) -> Target:
    return target_of(url_of(listen), None)


async def talk(server, model: str = "mock/m", **options) -> int:
    options = {"target": at(server.addresses[0])} | options
    return await asyncio.wait_for(chat(model, "Hi?", **options), 10)


async def test_an_answer_and_what_it_took(provider, start, capsys):
    seen: list[tuple[bytes, bytes]] = []
    provider.script = streaming(delta(""), delta("Hello"), delta(", you."), USAGE, b"[DONE]", seen=seen)
    server = await start(config(provider))
    assert await talk(server) == 0
    out, err = capsys.readouterr()
    assert out == "Hello, you.\n"
    assert err.startswith("[provider mock; model mock/m; strategy pinned; TTFT ")
    assert " ms; total " in err
    assert "tokens 1000 in, 500 out; cost $0.002000]" in err
    assert json.loads(seen[0][1]) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_without_prices_or_usage(provider, start, capsys):
    server = await start(config(provider, prices=""))
    provider.script = streaming(delta("a"), USAGE, b"[DONE]")
    assert await talk(server) == 0
    assert "tokens 1000 in, 500 out; cost unknown" in capsys.readouterr().err
    provider.script = streaming(delta("a"), b"[DONE]")
    server = await start(config(provider))
    assert await talk(server) == 0
    err = capsys.readouterr().err
    assert "tokens" not in err
    assert "cost unknown" in err


async def test_no_content_at_all(provider, start, capsys):
    provider.script = streaming(USAGE, b"[DONE]")
    server = await start(config(provider))
    assert await talk(server) == 0
    out, err = capsys.readouterr()
    assert (out, "no content" in err) == ("\n", True)


async def test_a_strategy_and_a_key_are_sent(provider, start, capsys):
    seen: list[tuple[bytes, bytes]] = []
    provider.script = streaming(delta("a"), b"[DONE]", seen=seen)
    server = await start(config(provider).replace('auth = "none"', 'auth = "passthrough"'))
    assert await talk(server, model="both", strategy="round-robin", key="sk-1") == 0
    assert "strategy round-robin" in capsys.readouterr().err
    assert b"authorization: bearer sk-1\r\n" in seen[0][0].lower()


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_the_gateways_url(provider, start, capsys, ending):
    provider.script = streaming(delta("a"), b"[DONE]")
    server = await start(config(provider))
    url = f"http://127.0.0.1:{server.addresses[0].port}{ending}"
    assert await talk(server, target=target_of(url, None)) == 0


async def test_a_unix_socket(provider, start, capsys, tmp_path):
    provider.script = streaming(delta("a"), b"[DONE]")
    server = await start(config(provider, f"unix:{tmp_path}/g.sock"))
    assert await talk(server) == 0
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize(("host", "bound"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")])
async def test_an_address_for_everyone_is_reached_at_this_machine(provider, start, capsys, host, bound):
    provider.script = streaming(delta("a"), b"[DONE]")
    server = await start(config(provider, f"{bound}:0"))
    assert await talk(server, target=at(Listen(host, server.addresses[0].port))) == 0


async def test_the_simulator_is_named(start, capsys, provider):
    server = await start(config(provider) + '[simulator]\nmode = "always"\n')
    assert await talk(server) == 0
    assert "SIMULATED, nothing was charged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "text"),
    [("nobody/knows", "404: The model 'nobody/knows' does not exist"), ("m ", "404: "), ("both", "503: ")],
)
async def test_the_gateways_errors(start, model, text):
    async with ScriptedProvider() as gone:
        given = config(gone)
    server = await start(given)
    with pytest.raises(ChatError, match=f"^{text}"):
        await talk(server, model=model)


async def test_an_error_that_is_no_json(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\n<html")

    provider.script = script
    server = await start(config(provider))
    with pytest.raises(ChatError, match="500: <html"):
        await talk(server)


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([delta("half")], b""),  # told by the gateway's error event
        ([delta("half")], b"5\r\nda"),  # cut
        ([delta("half"), {"error": {"message": "overloaded"}}], b"0\r\n\r\n"),
        ([delta("half"), b"{broken"], b"0\r\n\r\n"),
        ([delta("half"), b"[1]"], b"0\r\n\r\n"),
        ([delta("half"), b"7"], b"0\r\n\r\n"),
        ([delta("half"), {"choices": [7]}], b"0\r\n\r\n"),
        ([delta("half"), delta("x" * 1_000_000), b"{broken"], b"0\r\n\r\n"),
    ],
    ids=["event", "cut", "error", "json", "list", "number", "choice", "long"],
)
async def test_a_stream_that_breaks_off(provider, start, capsys, events, end):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(EVENTS + b"".join(map(event, events)) + end)
        if end == b"0\r\n\r\n":
            await call.gone()

    provider.script = script
    server = await start(config(provider))
    with pytest.raises(ChatError, match="broke off"):
        await talk(server)
    assert capsys.readouterr().out.startswith("half")


async def test_a_delta_that_is_none_or_a_choice_without_one(provider, start, capsys):
    provider.script = streaming(
        delta("a"), {"choices": [{"delta": None}]}, {"choices": [{}]}, {"choices": None}, b"[DONE]"
    )
    server = await start(config(provider))
    assert await talk(server) == 0
    assert capsys.readouterr().out == "a\n"


async def test_no_gateway_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(CommandError, match="start one with 'tokenhub serve'"):
        await chat("m", "Hi", target=at(Listen("127.0.0.1", port)))


async def test_something_else_that_listens_there_is_not_shown_but_named(provider):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 501 Unsupported\r\nContent-Length: 15\r\n\r\n<!DOCTYPE HTML>")

    provider.script = script
    port = int(provider.url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(ChatError, match=f"^501, but not from TokenHub: .* at .*{port}.*--url") as raised:
        await chat("m", "Hi", target=at(Listen("127.0.0.1", port)))
    assert "DOCTYPE" not in str(raised.value)


async def test_waiting_for_a_gateway_that_starts(provider, start, capsys, tmp_path):
    provider.script = streaming(delta("a"), b"[DONE]")
    listen = Listen(path=f"{tmp_path}/g.sock")
    talking = asyncio.create_task(chat("m", "Hi", target=at(listen), wait_s=5.0))
    await asyncio.sleep(0.05)
    await start(config(provider, f"unix:{listen.path}"))
    assert await asyncio.wait_for(talking, 5) == 0


async def test_what_the_model_is_told_before(provider, start, capsys):
    seen: list[tuple[bytes, bytes]] = []
    provider.script = streaming(delta("a"), b"[DONE]", seen=seen)
    server = await start(config(provider))
    assert await talk(server, system="Be brief.") == 0
    assert json.loads(seen[0][1])["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi?"},
    ]


CACHED = {
    "choices": [],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 600},
        "completion_tokens_details": {"reasoning_tokens": 7},
    },
}


async def test_cached_tokens_at_their_own_price(provider, start, capsys):
    """As the ledger has it: 400 at 1, 600 at 0.5, 500 at 2 dollars a million."""
    provider.script = streaming(delta("a"), CACHED, b"[DONE]")
    text = config(provider, prices="input_price = 1\noutput_price = 2\ncached_input_price = 0.5")
    server = await start(text)
    assert await talk(server, config=parse(text)) == 0
    assert "tokens 1000 in (600 cached), 500 out; cost $0.001700]" in capsys.readouterr().err
    assert await talk(server) == 0  # the gateway doesn't tell that price
    assert "cost at most $0.002000]" in capsys.readouterr().err


async def test_one_document_for_programs(provider, start, capsys):
    provider.script = streaming(delta("Hel"), delta("lo"), CACHED, b"[DONE]")
    server = await start(config(provider))
    assert await talk(server, as_json=True) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert 0 < found.pop("ttft_ms") <= found.pop("total_ms")
    assert found.pop("request_id").startswith("req_")
    assert found.pop("attempts").startswith("mock:200:")
    assert found == {
        "provider": "mock",
        "model": "mock/m",
        "strategy": "pinned",
        "simulated": False,
        "text": "Hello",
        "usage": {"input_tokens": 1000, "cached_tokens": 600, "output_tokens": 500, "reasoning_tokens": 7},
        "usd": 0.002,
    }


async def test_a_document_that_is_none(provider, start, capsys):
    """Half an answer is none."""
    provider.script = streaming(delta("Hel"), end=b"")
    server = await start(config(provider))
    with pytest.raises(ChatError, match="broke off"):
        await talk(server, as_json=True)
    assert capsys.readouterr().out == ""


async def test_a_request_that_failed_over_says_so(provider, other, start, capsys):
    async def fail(call: Call) -> None:
        while True:
            await call.request()
            await call.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    provider.script = fail
    other.script = streaming(delta("a"), b"[DONE]")
    text = config(provider) + (
        f'first = {{ models = ["mock/m", "other/m"], strategy = "round-robin" }}\n'
        f'[providers.other]\nbase_url = "{other.url}"\nauth = "none"\n[models."other/m"]\n'
    )
    server = await start(text)
    said = []
    for _ in range(2):  # one of the two goes to the broken one first
        assert await talk(server, model="first") == 0
        said.append("; attempts mock:500:" in capsys.readouterr().err)
    assert sorted(said) == [False, True]


async def test_what_a_model_writes_steers_no_terminal(provider, start, capsys, monkeypatch):
    provider.script = streaming(delta("a\x1b[2J\tb\n"), delta("\x07ü"), b"[DONE]")
    server = await start(config(provider))
    assert await talk(server) == 0
    assert capsys.readouterr().out == "a\x1b[2J\tb\n\x07ü\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert await talk(server) == 0
    assert capsys.readouterr().out == "a[2J\tb\nü\n"
