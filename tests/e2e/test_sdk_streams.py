"""Streams that break, through the official SDKs: every one of them raises, as it would without the gateway.

Each case asks a scripted provider twice, directly and by the gateway. What raises when asked directly raises
by the gateway. So does what the SDK takes for a whole answer when it asks directly (of a provider that ends
its message too early), and what it would wait for in vain.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from tests.e2e import Gateway, environment
from tests.e2e.background import in_thread, scripted
from tests.readers import install
from tests.support.fakes import DONE, Call, chunk

HERE = Path(__file__).parent
HI: Any = [{"role": "user", "content": "Say hi."}]
ENDPOINTS = ("chat", "completions", "responses", "messages")
# What the provider does behind the first text: it resets the connection; ends the message; closes it in the
# middle of an event; says nothing more; ends the answer.
BREAKS = ("reset", "clean", "half", "idle")
KINDS = (*BREAKS, "whole")
WAIT_S = 30


def data(**members: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(members).encode()


def event(type: str, **members: Any) -> bytes:
    return b"event: %b\n" % type.encode() + data(type=type, **members)


def chat(delta: dict[str, str], reason: str | None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return data(id="c", object="chat.completion.chunk", created=1, model="m", choices=choices)


def completion(text: str, reason: str | None) -> bytes:
    choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]
    return data(id="c", object="text_completion", created=1, model="m", choices=choices)


def response(status: str) -> dict[str, Any]:
    facts = {"id": "resp_1", "object": "response", "created_at": 7, "model": "m", "output": []}
    return facts | {"status": status}


MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
}  # fmt: skip
# Path -> events up to the first text, and those behind it.
STREAMS = {
    "/v1/chat/completions": (
        [chat({"role": "assistant", "content": "hi"}, None)],
        [chat({}, "stop"), DONE],
    ),
    "/v1/completions": ([completion("hi", None)], [completion("", "stop"), DONE]),
    "/v1/responses": (
        [
            event("response.created", sequence_number=0, response=response("in_progress")),
            event("response.output_text.delta", sequence_number=1, item_id="i", output_index=0,
                  content_index=0, delta="hi", logprobs=[]),
        ],
        [event("response.completed", sequence_number=2, response=response("completed"))],
    ),
    "/v1/messages": (
        [
            event("message_start", message=MESSAGE),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
        ],
        [
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None},
                  usage={"output_tokens": 2}),
            event("message_stop"),
        ],
    ),
}  # fmt: skip


class Provider:
    """Does what the model is called, once its client has the first text: ``/go`` says that it has."""

    url = root = ""

    def __init__(self) -> None:
        self.seen = threading.Semaphore(0)

    async def __call__(self, call: Call) -> None:
        head, body = await call.request()
        path = head.split(b" ")[1].decode()
        if path == "/go":
            self.seen.release()
            await call.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            return
        kind = json.loads(body)["model"]
        first, last = STREAMS[path]
        await call.stream(*first, end=False)
        if kind == "idle":
            await call.gone()  # until the gateway gives it up
            return
        assert await asyncio.to_thread(self.seen.acquire, timeout=WAIT_S)
        if kind == "reset":
            call.reset()
        elif kind == "half":
            await call.send(chunk(last[0][: len(last[0]) // 2]))
        elif kind == "clean":
            await call.send(b"0\r\n\r\n")
        else:
            await call.send(b"".join(map(chunk, last)) + b"0\r\n\r\n")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    with in_thread(scripted(made)) as server:
        made.url, made.root = server.url, server.url.removesuffix("/v1")
        yield made


@pytest.fixture(scope="module")
def gateway(provider, tmp_path_factory) -> Iterator[Gateway]:
    text = (
        f'[timeouts]\nidle = "400ms"\n[providers.p]\nbase_url = "{provider.url}"\nauth = "none"\n'
        f"endpoints = {json.dumps(ENDPOINTS)}\n" + "".join(f'[models."p/{kind}"]\n' for kind in KINDS)
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), text) as running:
        yield running


class Outcome(NamedTuple):
    """``got``: the text that came. ``error``: the class of what was raised, or None. ``is_of_sdk``: it is the
    SDK's own. ``text``: what it says."""

    got: str
    error: str | None
    is_of_sdk: bool
    text: str


def check(kind: str, ours: Outcome, direct: Outcome | None) -> None:
    """:param direct: what came of the same without the gateway; None: not asked."""
    assert ours.got == "hi"
    if kind == "whole":
        assert ours == direct
        assert ours.error is None
        return
    assert ours.error is not None, "the half was taken for the whole"
    if direct is not None:
        assert direct.got == "hi"
    if kind in ("reset", "half"):
        assert direct is not None
        assert direct.error is not None
    if kind == "half":  # there is no place for an event: the connection is cut, as it was by the provider
        assert (ours.error, ours.is_of_sdk) == (direct.error, direct.is_of_sdk)
    else:
        assert ours.is_of_sdk
        assert "provider_broke_off" in ours.text
        assert "'p'" in ours.text


# ---------------------------------------------------------------------- Python


def chat_helper(client: Any, model: str) -> Iterator[str]:
    with client.chat.completions.stream(model=model, messages=HI) as stream:
        for found in stream:
            if found.type == "content.delta":
                yield found.delta
        assert stream.get_final_completion().choices[0].message.content == "hi"


def messages_helper(client: Any, model: str) -> Iterator[str]:
    with client.messages.stream(model=model, max_tokens=9, messages=HI) as stream:
        yield from stream.text_stream
        assert stream.get_final_message().stop_reason == "end_turn"


# How a stream is begun, and the text of one of its events; helpers are asked in another way.
WAYS: dict[str, tuple[Callable[[Any], Any], dict[str, Any], Callable[[Any], str]]] = {
    "chat": (lambda sdk: sdk.chat.completions, {"messages": HI}, lambda e: e.choices[0].delta.content),
    "completions": (lambda sdk: sdk.completions, {"prompt": "Say hi."}, lambda e: e.choices[0].text),
    "responses": (lambda sdk: sdk.responses, {"input": "Say hi."},
                  lambda e: e.delta if e.type == "response.output_text.delta" else ""),
    "messages": (lambda sdk: sdk.messages, {"max_tokens": 9, "messages": HI},
                 lambda e: e.delta.text if e.type == "content_block_delta" else ""),
}  # fmt: skip
HELPERS = {"chat helper": chat_helper, "messages helper": messages_helper}


def texts(way: str, client: Any, model: str) -> Iterator[str]:
    if way in HELPERS:
        yield from HELPERS[way](client, model)
        return
    begin, said, text_of = WAYS[way]
    for event in begin(client).create(model=model, stream=True, **said):
        yield text_of(event) or ""


def client_of(way: str, address: str) -> Any:
    if way.startswith("messages"):
        return anthropic.Anthropic(base_url=address, api_key="any", max_retries=0, timeout=WAIT_S)
    return openai.OpenAI(base_url=address + "/v1", api_key="any", max_retries=0, timeout=WAIT_S)


def outcome(provider: Provider, way: str, address: str, model: str) -> Outcome:
    got = ""
    with client_of(way, address) as client:
        try:
            for text in texts(way, client, model):
                if text and not got:
                    provider.seen.release()
                got += text
        except AssertionError:
            raise
        except Exception as error:
            is_of_sdk = isinstance(error, openai.APIError | anthropic.APIError)
            said = f"{error} {getattr(error, 'body', None)}"
            return Outcome(got, f"{type(error).__module__}.{type(error).__name__}", is_of_sdk, said)
        finally:
            while provider.seen.acquire(blocking=False):  # where nobody waited for it
                pass
    return Outcome(got, None, False, "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [*WAYS, *HELPERS])
def test_python(provider, gateway, way, kind):
    # Helpers may miss what isn't there, each in its way.
    is_silent = kind == "clean" and way.endswith("helper")
    direct = None if kind == "idle" or is_silent else outcome(provider, way, provider.root, kind)
    check(kind, outcome(provider, way, gateway.address, f"p/{kind}"), direct)


# ---------------------------------------------------------------------- Node


@pytest.fixture(scope="module")
def in_node(provider, gateway) -> dict[str, Outcome]:
    """All cases in one process, which takes a second to start."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    modules = install.npm(HERE / "sdks")
    cases = [
        {"id": f"{endpoint} {kind} {where}", "endpoint": endpoint, "address": address, "model": before + kind}
        for endpoint in ENDPOINTS
        for kind in KINDS
        for where, address, before in (("direct", provider.root, ""), ("gateway", gateway.address, "p/"))
        if (kind, where) != ("idle", "direct")
    ]
    done = subprocess.run(
        ["node", str(HERE / "sdks" / "streams.mjs")], env=environment(SDKS=str(modules)),
        input=json.dumps({"provider": provider.root, "cases": cases}), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        error = said["error"] or {"class": None, "isOfSDK": False, "text": ""}
        found[said["id"]] = Outcome(said["got"], error["class"], error["isOfSDK"], error["text"])
    assert found.keys() == {case["id"] for case in cases}
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_node(in_node, endpoint, kind):
    direct = in_node.get(f"{endpoint} {kind} direct")
    check(kind, in_node[f"{endpoint} {kind} gateway"], direct)
