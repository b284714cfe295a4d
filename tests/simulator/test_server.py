"""The simulator on real sockets: the official SDK, raw bytes, both event loops."""

import asyncio
import base64
import contextlib
import math
import signal
import socket
import struct
import subprocess
import sys

import openai
import orjson
import pytest
import uvloop

from proxy.simulator.connection import ParsedRequest
from proxy.simulator.server import Controls, Simulator, main_simulate
from tests.support.fakes import until

HELLO = [{"role": "user", "content": "What is a gateway?"}]


@pytest.fixture
async def sim():
    simulator = Simulator(speed=0)
    simulator.port = await simulator.start()
    yield simulator
    await simulator.close()
    assert simulator.snapshot()["active"] == 0
    assert simulator.snapshot()["connections"] == 0


@pytest.fixture
async def client(sim):
    url = f"http://127.0.0.1:{sim.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def connected(port, *, path=None, limit=1 << 20):
    """A connection to the simulator; it is closed in the end."""
    if path:
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(port, data):
    """Send bytes, read to the end of the connection."""
    async with connected(port) as (reader, writer):
        writer.write(data)
        return await reader.read()


def request(path="/v1/chat/completions", body=b"", method="POST", *lines):
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "host: x", *lines))
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(content), content)


async def asked(sim, path, body=b"", method="POST", *lines):
    """The answer to a request behind which the connection ends."""
    return await ask(sim.port, request(path, body, method, "connection: close", *lines))


def body_of(answer):
    return orjson.loads(answer.partition(b"\r\n\r\n")[2])


# --- the SDK


async def test_chat(client):
    raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    answer = raw.parse()
    assert raw.headers["x-simulated"] == "1"
    assert raw.headers["x-request-id"].startswith("req_")
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "gpt-4o"
    assert answer.system_fingerprint.startswith("fp_")
    assert "simulated answer" in answer.choices[0].message.content
    assert "What is a gateway?" in answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_chat_stream(client):
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(pieces).startswith("This is a simulated answer")
    assert (chunks[-2].choices[0].finish_reason, chunks[-1].choices) == ("stop", [])
    assert chunks[-1].usage.completion_tokens == len(pieces)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_stream_and_plain_say_the_same(client, sim):
    plain = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    other = Simulator(speed=0)
    port = await other.start()
    async with client.with_options(base_url=f"http://127.0.0.1:{port}/deep/prefix/v1") as second:
        stream = await second.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
        await other.close()
    assert text == plain.choices[0].message.content


async def test_forced_tool(client):
    look = {"name": "look", "parameters": {"properties": {"city": {"type": "string"}}}}
    tool = {"type": "function", "function": look}
    forced = {"type": "function", "function": {"name": "look"}}
    kwargs = {"model": "gpt-4o", "messages": HELLO, "tools": [tool]}
    plain = await client.chat.completions.create(**kwargs, tool_choice=forced)
    (call,) = plain.choices[0].message.tool_calls
    assert plain.choices[0].finish_reason == "tool_calls"
    assert orjson.loads(call.function.arguments) == {"city": "simulated"}
    async with client.chat.completions.stream(**kwargs, tool_choice="required") as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "look"
    assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments


async def test_completions(client):
    plain = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Say", max_tokens=4)
    assert plain.choices[0].text == "This is a simulated"
    assert plain.choices[0].finish_reason == "length"
    stream = await client.completions.create(
        model="m", prompt=[1, 2, 3], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len([c for c in chunks if c.choices and c.choices[0].text]) == 16
    assert (chunks[-1].usage.completion_tokens, chunks[-1].usage.prompt_tokens) == (16, 3)


@pytest.mark.parametrize(("kind", "size"), [("small", 1536), ("large", 3072)])
async def test_embeddings(client, kind, size):
    model = f"text-embedding-3-{kind}"
    packed = await client.embeddings.create(model=model, input=["one", "two"])  # the SDK asks for base64
    plain = await client.embeddings.create(model=model, input="one", encoding_format="float")
    first = packed.data[0].embedding
    assert len(first) == len(packed.data[1].embedding) == size
    assert first == pytest.approx(plain.data[0].embedding)
    assert first != packed.data[1].embedding
    assert math.hypot(*first) == pytest.approx(1, abs=1e-5)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 2


async def test_responses(client):
    plain = await client.responses.create(model="gpt-4o", input="Hello there")
    assert plain.status == "completed"
    assert "Hello there" in plain.output_text
    assert plain.usage.total_tokens == plain.usage.input_tokens + plain.usage.output_tokens
    async with client.responses.stream(model="gpt-4o", input="Hello there") as stream:
        final = await stream.get_final_response()
    assert final.output_text.startswith("This is a simulated answer")
    stream = await client.responses.create(model="gpt-4o", input="Hi", max_output_tokens=9, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    final = events[-1].response
    assert final.status == "incomplete"
    assert final.incomplete_details.reason == "max_output_tokens"
    assert final.output_text == "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert final.usage.output_tokens == 9


async def test_moderations_and_models(client):
    answer = await client.moderations.create(input=["a", "b"])
    assert [result.flagged for result in answer.results] == [False, False]
    names = [model.id async for model in client.models.list()]
    assert "gpt-4o" in names
    assert (await client.models.retrieve("openai/gpt-4o")).owned_by == "openai"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError), (429, openai.RateLimitError), (500, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)  # fmt: skip
async def test_a_status_on_demand_becomes_the_sdks_exception(client, status, error):
    headers = {"x-sim-status": str(status)}
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
    assert caught.value.status_code == status
    assert caught.value.body["type"]
    assert caught.value.response.headers.get("retry-after") == ("1" if status == 429 else None)


def test_the_blocking_sdk_against_a_simulator_of_its_own_process():
    code = "from proxy.simulator.server import main_simulate as run; exit(run('127.0.0.1', 0, 0, 0.0))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        url = process.stderr.readline().split()[1]
        with openai.OpenAI(base_url=url, api_key="x") as client:
            stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            assert "simulated" in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_an_address_in_use_is_said_and_exits_1(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main_simulate("127.0.0.1", taken.getsockname()[1], 0, 0.0) == 1
    assert "cannot listen" in capsys.readouterr().err


# --- raw bytes


async def test_messages_have_anthropics_envelope(sim):
    answer = await asked(sim, "/v1/messages", {}, "POST", "x-sim-status: 429", "x-sim-retry-after: 7")
    assert b"\r\nretry-after: 7\r\n" in answer
    assert body_of(answer)["type"] == "error"
    assert body_of(answer)["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize(
    ("path", "method", "body", "status", "code"),
    [
        ("/v1/chat/completions", "POST", b'{"model": "gpt-4o", ', 400, None),
        ("/v1/chat/completions", "POST", b"[" * 100_000, 400, None),
        ("/v1/chat/completions", "POST", b'{"model": NaN}', 400, None),
        ("/v1/chat/completions", "POST", {"messages": HELLO}, 400, None),
        ("/v1/chat/completions", "POST", {"model": 5, "messages": HELLO}, 400, "invalid_type"),
        ("/v1/chat/completions", "POST", {"model": "m"}, 400, "missing_required_parameter"),
        ("/v1/embeddings", "POST", {"model": "m"}, 400, "missing_required_parameter"),
        ("/v1/audio/speech", "POST", {}, 404, None),
        ("/", "GET", b"", 404, None),
        ("/v1/embeddings?x=1", "GET", b"", 405, "method_not_supported"),
    ],
)
async def test_mistakes(sim, path, method, body, status, code):
    answer = await asked(sim, path, body, method)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    error = body_of(answer)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert (b"\r\nallow: POST\r\n" in answer) == (status == 405)


async def test_a_model_said_twice_is_the_last_one(sim):
    body = b'{"model":"a","messages":[{"content":"\\ud800"}],"\\u006dodel":"b\\ud800","top_p":1E400}'
    answer = await asked(sim, "/v1/chat/completions", body)
    assert body_of(answer.replace(b"\\ud800", b"!"))["model"] == "b!"


async def test_pipelined_on_a_real_socket(sim):
    body = {"model": "gpt-4o", "messages": HELLO, "max_tokens": 1}
    data = request(body=body) * 20 + request("/none", b"", "GET", "connection: close")
    answer = await ask(sim.port, data)
    assert answer.count(b"HTTP/1.1 200 OK") == 20
    assert answer.rindex(b"HTTP/1.1") == answer.index(b"HTTP/1.1 404")


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "99999999999"])
@pytest.mark.parametrize("name", ["latency-ms", "delay-ms", "chunks", "status", "retry-after"])
async def test_bad_controls_are_refused(sim, name, value):
    answer = await asked(sim, "/v1/embeddings", {}, "POST", f"x-sim-{name}: {value}")
    assert body_of(answer)["error"]["param"] == f"x-sim-{name}"


def test_controls():
    assert Controls.parse(None) == Controls()
    assert Controls.parse({"x-sim-latency-ms": "1500", "x-sim-chunks": "0"}) == Controls(1.5, None, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_leaves_nothing_behind(sim, stream):
    body = {"model": "gpt-4o", "messages": HELLO, "stream": stream}
    delay = "x-sim-delay-ms: 3600000" if stream else "x-sim-latency-ms: 3600000"
    async with connected(sim.port) as (reader, writer):
        writer.write(request("/v1/chat/completions", body, "POST", delay))
        if stream:
            await reader.readuntil(b'"content":"This"')
        else:
            await until(lambda: sim.snapshot()["active"])
    await until(lambda: sim.snapshot()["aborted"])
    assert sim.snapshot()["active"] == 0


async def test_a_client_that_does_not_read_holds_the_stream(sim):
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True}
    lines = ("x-sim-chunks: 100000", "connection: close")
    async with connected(sim.port, limit=1024) as (reader, writer):
        writer.write(request("/v1/chat/completions", body, "POST", *lines))
        await reader.readexactly(10)
        await until(lambda: "paused=True" in repr(sim.connections))
        assert sim.snapshot()["active"] == 1
        rest = await reader.read()
    assert rest.count(b'"delta":{"content":') == 100_000
    assert rest.endswith(b"0\r\n\r\n")


async def test_close_cuts_what_is_under_way_and_frees_the_port():
    sim = Simulator(speed=0)
    port = await sim.start()
    body = {"model": "m", "messages": HELLO}
    async with connected(port) as (reader, writer):
        writer.write(request("/v1/chat/completions", body, "POST", "x-sim-latency-ms: 60000"))
        await until(lambda: sim.snapshot()["active"])
        await sim.close()
        await sim.close()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert sim.snapshot() == {"requests": 1, "streams": 0, "active": 0, "aborted": 1, "connections": 0}
    assert "'aborted': 1" in repr(sim)
    again = Simulator(speed=0)
    assert await again.start(port=port) == port
    await again.close()


async def test_unix_socket(tmp_path):
    sim = Simulator(speed=0)
    path = str(tmp_path / "s")
    assert await sim.start(path=path) == 0
    async with connected(0, path=path) as (reader, writer):
        writer.write(request("/v1/models", b"", "GET", "connection: close"))
        assert b"200 OK" in await reader.read()
    await sim.close()
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_gives_the_same_answers_and_times():
    def run(seed, speed=1.0):
        sim = Simulator(seed=seed, speed=speed, clock=lambda: 1e9)
        answers = []
        for path, body in (
            (b"/chat/completions", {"model": "gpt-4o", "messages": HELLO}),
            (b"/v1/chat/completions", {"model": "o3", "messages": HELLO, "stream": True}),
            (b"/embeddings", {"model": "text-embedding-3-small", "input": "x"}),
        ):
            item = ParsedRequest()
            item.method, item.url, item.pieces = b"POST", path, [orjson.dumps(body)]
            answer = sim.respond(item)
            answers.append((answer.delay_s, answer.gap_s, answer.body, [*(answer.deltas or ())]))
        return answers

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert [row[2:] for row in run(1)] == [row[2:] for row in run(1, speed=0)]
    assert [row[:2] for row in run(1, speed=0)] == [(0, 0)] * 3
    assert [row[0] for row in run(1, speed=2)] == [2 * row[0] for row in run(1)]
    with pytest.raises(ValueError):
        Simulator(speed=-1)


def test_on_uvloop():
    async def main():
        sim = Simulator(speed=0)
        port = await sim.start()
        asked = {"model": "text-embedding-3-small", "input": [1, 2]}
        body = asked | {"encoding_format": "base64", "dimensions": 4}
        answer = body_of(await ask(port, request("/embeddings", body, "POST", "connection: close")))
        await sim.close()
        assert sim.snapshot()["connections"] == 0
        return answer

    answer = uvloop.run(main())
    numbers = struct.unpack("<4f", base64.b64decode(answer["data"][0]["embedding"]))
    assert math.hypot(*numbers) == pytest.approx(1, abs=1e-5)
    assert answer["usage"]["prompt_tokens"] == 2
