"""The commands that ask a running gateway, against one that runs in this process, and their tables."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from proxy.config import AdminConfig, Listen
from proxy.console import (
    Admin,
    ConsoleError,
    NoGateway,
    NotFound,
    connect,
    list_aliases,
    remove_alias,
    set_alias,
    show_explanation,
    show_routes,
    table,
)
from proxy.listeners import show
from proxy.routesfile import RoutesFile
from proxy.server import Server

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = ":memory:"
[admin]
listen = "{listen}"
token_env = "T"
[providers.mock]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[providers.bare]
base_url = "http://127.0.0.1:1/v1"
[models."mock/big"]
input_price = 2
output_price = 2
[models."mock/small"]
input_price = 1
output_price = 1
[models."bare/m"]
[aliases]
both = ["mock/big", "mock/small", "bare/m"]
"""


@pytest.fixture(params=["tcp", "unix"])
async def admin(request, tmp_path):
    """The admin API of a running gateway, over TCP and over a Unix socket."""
    listen = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/admin.sock"
    (tmp_path / "routes.toml").write_text(TEXT.format(listen=listen))
    file = RoutesFile(tmp_path / "routes.toml")
    server = Server(file.load(), {"T": "s3cret"}, file)
    await server.start()
    yield Admin(show(server.admin_address), "s3cret")
    await server.close()


async def out(capsys, command, *args, **how) -> list[str]:
    """The lines a command prints. It runs in a thread: it blocks, and the gateway is in this loop."""
    assert await asyncio.to_thread(command, *args, **how) == 0
    return capsys.readouterr().out.splitlines()


async def failure(command, *args, **how) -> str:
    with pytest.raises(ConsoleError) as caught:
        await asyncio.to_thread(command, *args, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------- where it is


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        (Listen("127.0.0.1", 8081), "http://127.0.0.1:8081"),
        (Listen("0.0.0.0", 1), "http://127.0.0.1:1"),
        (Listen("::", 1), "http://[::1]:1"),
        (Listen(path="/run/x.sock"), "unix:/run/x.sock"),
    ],
)
def test_the_address_is_the_configurations(listen, url):
    assert connect(None, AdminConfig(listen), {}).url == url
    assert connect("http://other:1/", AdminConfig(listen), {}).url == "http://other:1"


@pytest.mark.parametrize(("listen", "said"), [(None, "switched off"), (Listen("127.0.0.1", 0), "--admin")])
def test_a_configuration_that_does_not_tell(listen, said):
    with pytest.raises(NoGateway, match=said) as caught:
        connect(None, AdminConfig(listen), {})
    assert str(caught.value).startswith(caught.value.why)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:1", "unix:/nowhere/x.sock", "http://no.invalid:1"]
)
async def test_nobody_there(url):
    said = await failure(Admin(url, "").ask, "GET", "/routes")
    assert said.startswith(f"no gateway's admin API at {url} (")
    assert "tokenhub serve" in said


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "unix:/nowhere/x.sock"])
def test_where_certainly_nothing_was_done(url):
    with pytest.raises(NoGateway) as caught:
        Admin(url, "").ask("GET", "/routes")
    assert caught.value.why == f"no gateway answers at {url}"


async def test_where_something_may_have_been_done():
    """Whoever takes a request and leaves is somebody."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.abort()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConsoleError) as caught:
            await asyncio.to_thread(Admin(f"http://127.0.0.1:{port}", "").ask, "POST", "/keys", {})
    assert not isinstance(caught.value, NoGateway)


async def test_an_answer_as_text(admin):
    text = await asyncio.to_thread(admin.read, "/aliases/both")
    assert json.loads(text)["name"] == "both"
    with pytest.raises(NotFound, match="404"):
        await asyncio.to_thread(admin.read, "/nothing")


@pytest.mark.parametrize("url", ["ftp://x", "http://x:y", "http://[::1"])
async def test_what_is_no_address(url):
    assert "is no address" in await failure(Admin(url, "").ask, "GET", "/routes")


async def test_the_token(admin):
    assert (await failure(Admin(admin.url, "wrong").ask, "GET", "/routes")).startswith("401: The admin API")
    assert connect(None, AdminConfig(token_env="T"), {"T": " s3cret\n"})._token == "s3cret"
    assert connect("http://x", AdminConfig(), {"TOKENHUB_ADMIN_TOKEN": "t"})._token == "t"
    assert connect("http://x", AdminConfig(), {})._token == ""


async def test_somebody_else_there(provider):
    """Something answers, but no admin API."""
    for sent in ([], "text"):  # the scripted provider answers with what it got
        said = await failure(Admin(f"http://127.0.0.1:{provider.port}", "").ask, "POST", "/explain", sent)
        assert said.endswith("is no admin API of TokenHub")


# ---------------------------------------------------------------------- tables


def test_table():
    assert table([("A", "N"), ("long", "1"), ("b", "22")], right=[1]).splitlines() == [
        "A      N", "long   1", "b     22",
    ]  # fmt: skip


async def test_routes(admin, capsys):
    lines = await out(capsys, show_routes, admin)
    assert [line.split()[0] for line in lines] == ["MODEL", "mock/big", "mock/small", "bare/m"]
    assert "no credentials" in lines[3]
    assert lines[1].split()[1:3] == ["-", "ok"]


async def test_routes_of_a_gateway_at_work(admin, capsys):
    await out(capsys, show_explanation, admin, "both")  # makes the rows
    lines = await out(capsys, show_routes, admin)
    assert "chat stream" in "".join(lines)
    assert "100.0%" in lines[1]


async def test_watching_draws_again_until_it_is_ended(admin, capsys):
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    lines = await out(capsys, show_routes, admin, watch=True, pause=pause)
    assert (len(lines), pauses) == (12, [2.0] * 3)


async def test_explain(admin, capsys):
    lines = await out(capsys, show_explanation, admin, "both", strategy="cost")
    assert lines[0].startswith("both (alias) by cost, chat: ")
    assert lines[1].split() == ["CANDIDATE", "SCORE"]
    assert lines[2].startswith("   mock/big")
    assert "$0.00" in lines[2]
    assert lines[3].startswith("→  mock/small")
    assert lines[4].split(maxsplit=2) == ["bare/m", "-", "has no credentials"]


@pytest.mark.parametrize("strategy", ["latency", "availability", "round-robin"])
async def test_units(admin, capsys, strategy):
    lines = await out(capsys, show_explanation, admin, "both", strategy=strategy, stream=True)
    assert {"latency": " s", "availability": "%", "round-robin": "turns"}[strategy] in lines[2]


async def test_explain_a_body(admin, capsys, tmp_path, monkeypatch):
    body = {"model": "other", "messages": [{"role": "user", "content": "x"}]}
    (tmp_path / "b.json").write_text(json.dumps(body))
    lines = await out(capsys, show_explanation, admin, "mock/big", body=str(tmp_path / "b.json"))
    assert lines[0].startswith("mock/big (pinned)")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(body)))
    assert await out(capsys, show_explanation, admin, "mock/big", body="-") == lines


@pytest.mark.parametrize(
    ("text", "said"), [("no", "is no JSON"), ("[]", "one JSON object"), (None, "can't read")]
)
async def test_a_body_that_is_none(tmp_path, text, said):
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    assert said in await failure(show_explanation, Admin("http://x", ""), "m", body=str(path))


async def test_explain_what_cannot_be(admin):
    assert (await failure(show_explanation, admin, "bot")).startswith("404: The model 'bot' does not exist")
    assert "must be one of cost" in await failure(show_explanation, admin, "both", strategy="fast")


# ---------------------------------------------------------------------- aliases


async def test_aliases(admin, capsys):
    line = await out(capsys, set_alias, admin, "a/b", ["mock/big", "mock/small"], strategy="cost", split=[])
    assert line == ["a/b: mock/big, mock/small"]
    await out(capsys, set_alias, admin, "a/b", [], strategy=None, split=["mock/big=9", "mock/small=1"])
    lines = await out(capsys, list_aliases, admin)
    assert lines[0].split() == ["ALIAS", "STRATEGY", "MODELS", "MORE"]
    assert lines[2].split(maxsplit=2)[:2] == ["a/b", "cost"]
    assert lines[2].endswith("  mock/big, mock/small          split mock/big=9, mock/small=1")
    await out(capsys, set_alias, admin, "a/b", ["mock/big"], strategy="", split=[])
    assert admin_row(await asyncio.to_thread(admin.ask, "GET", "/aliases/a%2Fb")) == (["mock/big"], None)
    assert await out(capsys, remove_alias, admin, "a/b") == ["a/b removed"]
    assert len(await out(capsys, list_aliases, admin)) == 2


def admin_row(row: dict) -> tuple:
    return row["models"], row["strategy"]


async def test_aliases_that_cannot_be(admin):
    assert "404" in await failure(remove_alias, admin, "none")
    said = await failure(set_alias, admin, "x", ["mock/bigg"], strategy=None, split=[])
    assert "did you mean 'mock/big'" in said
    for share in ("mock/big", "=1", "mock/big=x"):
        assert "MODEL=WEIGHT" in await failure(set_alias, admin, "x", [], strategy=None, split=[share])
