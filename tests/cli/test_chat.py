"""``tokenhub chat`` against a real gateway."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from proxy.cli.chat import ChatError, chat
from proxy.cli.data_client import Target, target_of
from proxy.cli.parser import url_of
from proxy.config.parse import parse
from proxy.config.settings import Listen
from tests.support.chats import END, config, delta, saying, simulated, stream_of
from tests.support.fakes import ScriptedProvider, answers

USAGE = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}
DONE = b"[DONE]"


def body_of(provider: ScriptedProvider) -> dict:
    """Of the first request."""
    return json.loads(provider.seen[0][1])


def at(listen: Listen) -> Target:
    return target_of(url_of(listen), None)


async def talk(server, model: str = "mock/m", **options) -> int:
    options = {"target": at(server.addresses[0])} | options
    return await asyncio.wait_for(chat(model, "Hi?", **options), 10)


@pytest.fixture
async def server(provider, start):
    """A gateway whose provider says ``a``."""
    provider.script = saying(stream_of(delta("a"), DONE))
    return await start(config(provider))


async def test_an_answer_and_what_it_took(provider, server, capsys):
    provider.script = saying(stream_of(delta(""), delta("Hello"), delta(", you."), USAGE, DONE))
    assert await talk(server) == 0
    out, err = capsys.readouterr()
    assert out == "Hello, you.\n"
    assert err.startswith("[provider mock; model mock/m; strategy pinned; TTFT ")
    assert " ms; total " in err
    assert "tokens 1000 in, 500 out; cost $0.002000]" in err
    assert body_of(provider) == {
        "model": "m", "messages": [{"role": "user", "content": "Hi?"}], "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


async def test_without_prices_or_usage(provider, start, capsys):
    server = await start(config(provider, prices=""))
    provider.script = saying(stream_of(delta("a"), USAGE, DONE))
    assert await talk(server) == 0
    assert "tokens 1000 in, 500 out; cost unknown" in capsys.readouterr().err
    provider.script = saying(stream_of(delta("a"), DONE))
    server = await start(config(provider))
    assert await talk(server) == 0
    err = capsys.readouterr().err
    assert "tokens" not in err
    assert "cost unknown" in err


async def test_no_content_a_delta_that_is_none_or_a_choice_without_one(provider, server, capsys):
    provider.script = saying(stream_of(USAGE, DONE), stays=False)
    assert await talk(server) == 0
    out, err = capsys.readouterr()
    assert (out, "no content" in err) == ("\n", True)
    odd = {"choices": [{"delta": None}]}, {"choices": [{}]}, {"choices": None}
    provider.script = saying(stream_of(delta("a"), *odd, DONE))
    assert await talk(server) == 0
    assert capsys.readouterr().out == "a\n"


async def test_a_strategy_and_a_key_are_sent(provider, start, capsys):
    provider.script = saying(stream_of(delta("a"), DONE))
    server = await start(config(provider).replace('auth = "none"', 'auth = "passthrough"'))
    assert await talk(server, model="both", strategy="round-robin", key="sk-1") == 0
    assert "strategy round-robin" in capsys.readouterr().err
    assert b"authorization: bearer sk-1\r\n" in provider.seen[0][0].lower()


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_the_gateways_url(server, ending):
    url = f"http://127.0.0.1:{server.addresses[0].port}{ending}"
    assert await talk(server, target=target_of(url, None)) == 0


async def test_a_unix_socket(provider, start, capsys, tmp_path):
    provider.script = saying(stream_of(delta("a"), DONE))
    assert await talk(await start(config(provider, f"unix:{tmp_path}/g.sock"))) == 0
    assert capsys.readouterr().out == "a\n"


async def test_the_simulator_is_named(start, capsys, provider):
    assert await talk(await start(simulated(provider))) == 0
    assert "SIMULATED, nothing was charged" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "text"), [
    ("nobody/knows", "404: The model 'nobody/knows' does not exist"), ("m ", "404: "), ("both", "503: "),
])  # fmt: skip
async def test_the_gateways_errors(start, model, text):
    async with ScriptedProvider() as gone:
        given = config(gone)
    server = await start(given)
    with pytest.raises(ChatError, match=f"^{text}"):
        await talk(server, model=model)


async def test_an_error_that_is_no_json_and_something_else_that_listens_there(provider, server):
    provider.script = answers(b"<html", b"500 Oops")
    with pytest.raises(ChatError, match="500: <html"):
        await talk(server)
    provider.script = answers(b"<!DOCTYPE HTML>", b"501 Unsupported")
    port = provider.port
    with pytest.raises(ChatError, match=f"^501, but not from TokenHub: .* at .*{port}.*--url") as raised:
        await chat("m", "Hi", target=at(Listen("127.0.0.1", port)))
    assert "DOCTYPE" not in str(raised.value)


@pytest.mark.parametrize(("events", "end"), [
    ([delta("half")], b""),  # told by the gateway's error event
    ([delta("half")], b"5\r\nda"),  # cut
    ([delta("half"), {"error": {"message": "overloaded"}}], b"0\r\n\r\n"),
    ([delta("half"), b"{broken"], b"0\r\n\r\n"),
    ([delta("half"), b"[1]"], b"0\r\n\r\n"),
    ([delta("half"), b"7"], b"0\r\n\r\n"),
    ([delta("half"), {"choices": [7]}], b"0\r\n\r\n"),
    ([delta("half"), delta("x" * 1_000_000), b"{broken"], b"0\r\n\r\n"),
], ids=["event", "cut", "error", "json", "list", "number", "choice", "long"])  # fmt: skip
async def test_a_stream_that_breaks_off(provider, server, capsys, events, end):
    provider.script = saying(stream_of(*events, end=end), stays=end == END)
    with pytest.raises(ChatError, match="broke off"):
        await talk(server)
    assert capsys.readouterr().out.startswith("half")


async def test_waiting_for_a_gateway_that_starts(provider, start, capsys, tmp_path):
    provider.script = saying(stream_of(delta("a"), DONE))
    listen = Listen(path=f"{tmp_path}/g.sock")
    talking = asyncio.create_task(chat("m", "Hi", target=at(listen), wait_s=5.0))
    await asyncio.sleep(0.05)
    await start(config(provider, f"unix:{listen.path}"))
    assert await asyncio.wait_for(talking, 5) == 0


async def test_what_the_model_is_told_before(provider, server):
    assert await talk(server, system="Be brief.") == 0
    assert body_of(provider)["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"},
    ]  # fmt: skip


CACHED = {"choices": [], "usage": {
    "prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 7},
}}  # fmt: skip


async def test_cached_tokens_at_their_own_price(provider, start, capsys):
    """As the ledger has it: 400 at 1, 600 at 0.5, 500 at 2 dollars a million."""
    provider.script = saying(stream_of(delta("a"), CACHED, DONE))
    text = config(provider, prices="input_price = 1\noutput_price = 2\ncached_input_price = 0.5")
    server = await start(text)
    assert await talk(server, config=parse(text)) == 0
    assert "tokens 1000 in (600 cached), 500 out; cost $0.001700]" in capsys.readouterr().err
    assert await talk(server) == 0  # the gateway doesn't tell that price
    assert "cost at most $0.002000]" in capsys.readouterr().err


async def test_one_document_for_programs_and_half_an_answer_is_none(provider, server, capsys):
    provider.script = saying(stream_of(delta("Hel"), delta("lo"), CACHED, DONE), stays=False)
    assert await talk(server, as_json=True) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert 0 < found.pop("ttft_ms") <= found.pop("total_ms")
    assert found.pop("request_id").startswith("req_")
    assert found.pop("attempts").startswith("mock:200:")
    assert found == {
        "provider": "mock", "model": "mock/m", "strategy": "pinned", "simulated": False, "text": "Hello",
        "usage": {"input_tokens": 1000, "cached_tokens": 600, "output_tokens": 500, "reasoning_tokens": 7},
        "usd": 0.002,
    }  # fmt: skip
    # Half an answer is none.
    provider.script = saying(stream_of(delta("Hel"), end=b""), stays=False)
    with pytest.raises(ChatError, match="broke off"):
        await talk(server, as_json=True)
    assert capsys.readouterr().out == ""


async def test_a_request_that_failed_over_says_so(provider, other, start, capsys):
    provider.script = answers(b"", b"500 Oops")
    other.script = saying(stream_of(delta("a"), DONE))
    server = await start(
        f'{config(provider)}first = {{ models = ["mock/m", "other/m"], strategy = "round-robin" }}\n'
        f'[providers.other]\nbase_url = "{other.url}"\nauth = "none"\n[models."other/m"]\n'
    )
    said = []
    for _ in range(2):  # one of the two goes to the broken one first
        assert await talk(server, model="first") == 0
        said.append("; attempts mock:500:" in capsys.readouterr().err)
    assert sorted(said) == [False, True]


async def test_what_a_model_writes_steers_no_terminal(provider, server, capsys, monkeypatch):
    provider.script = saying(stream_of(delta("a\x1b[2J\tb\n"), delta("\x07ü"), DONE))
    for is_terminal, shown in ((False, "a\x1b[2J\tb\n\x07ü\n"), (True, "a[2J\tb\nü\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert await talk(server) == 0
        assert capsys.readouterr().out == shown
