"""The admin API of a gateway as commands ask it: where it is, and what is said where it can't be asked."""

from __future__ import annotations

import argparse
import asyncio
import json

import pytest

from proxy.cli.admin_client import (
    Admin,
    AdminNotFound,
    ConsoleError,
    NoGateway,
    Unanswered,
    admin_of,
    connect,
)
from proxy.cli.parser import CommandError
from proxy.config.settings import AdminConfig, Listen
from tests.support.admin import failure, running
from tests.support.chats import saying

OTHER = (
    "what answers at http://127.0.0.1:{} is not TokenHub's admin API: name its address with --admin, or in "
    "[admin] listen of the configuration"
)


@pytest.fixture(params=["tcp", "unix"])
async def admin(request, tmp_path):
    """The admin API of a running gateway, over TCP and over a Unix socket."""
    listen = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/a.sock"
    async with running(tmp_path, listen) as found:
        yield found


def test_the_address_is_the_configurations():
    """How a listener is reached is in test_parser.py."""
    for listen, url in (
        (Listen("0.0.0.0", 1), "http://127.0.0.1:1"),
        (Listen(path="/run/x.sock"), "unix:/run/x.sock"),
    ):
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
    assert said.startswith(f"no gateway's admin API at {url}: ")
    assert ("see how it is spelled in --admin" if "invalid" in url else "tokenhub serve") in said


async def test_where_something_may_have_been_done():
    """Whoever takes a request and leaves is somebody."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.abort()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unanswered) as caught:
            await asyncio.to_thread(Admin(f"http://127.0.0.1:{port}", "").ask, "POST", "/keys", {})
    assert not isinstance(caught.value, NoGateway)


async def test_an_answer_as_text_and_the_rows_of_a_list(admin):
    text = await asyncio.to_thread(admin.read, "/aliases/both")
    assert json.loads(text)["name"] == "both"
    with pytest.raises(AdminNotFound, match="404"):
        await asyncio.to_thread(admin.read, "/nothing")
    assert [row["name"] for row in await asyncio.to_thread(admin.rows, "/aliases")] == ["both"]


@pytest.mark.parametrize("url", ["ftp://x", "http://x:y", "http://[::1"])
async def test_what_is_no_address(url):
    assert "is not an address such as" in await failure(Admin(url, "").ask, "GET", "/routes")


async def test_the_token(admin):
    for token, said in (("wrong", "refuses the token of $T"), ("", "needs its token")):
        text = await failure(Admin(admin.url, token, "T").ask, "GET", "/routes")
        assert text == f"401: the admin API at {admin.url} {said}: set $T to the gateway's"
    assert connect(None, AdminConfig(token_env="T"), {"T": " s3cret\n"})._token == "s3cret"
    assert connect("http://x", AdminConfig(), {"TOKENHUB_ADMIN_TOKEN": "t"})._token == "t"
    assert connect("http://x", AdminConfig(), {})._token == ""


@pytest.mark.parametrize("token", ["s3c\nret", "s3crét", "s3c\x1bret"])
def test_a_token_that_is_none_is_not_repeated(token):
    with pytest.raises(ConsoleError) as caught:
        connect("http://x", AdminConfig(token_env="T"), {"T": token})
    assert str(caught.value) == "$T holds characters that no token has"


async def test_somebody_else_there(provider):
    """Something answers, but no admin API."""
    for sent in ([], "text"):  # the scripted provider answers with what it got
        said = await failure(Admin(f"http://127.0.0.1:{provider.port}", "").ask, "POST", "/explain", sent)
        assert said == OTHER.format(provider.port)


@pytest.mark.parametrize(("status", "answer"), [
    *((b"200 OK", answer) for answer in (b"{}", b'{"data":{}}', b"[]", b"no", b"\xff")),
    *((status, b"<html>") for status in (b"401 No", b"404 Not Found", b"500 No", b"301 Moved")),
])  # fmt: skip
async def test_an_answer_without_a_list(provider, status, answer):
    provider.script = saying(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer))
    said = await failure(Admin(f"http://127.0.0.1:{provider.port}", "").rows, "/routes")
    assert said == OTHER.format(provider.port)


def test_the_admin_api_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENHUB_CONFIG", raising=False)
    with pytest.raises(CommandError, match=r"there is no routes\.toml here"):
        admin_of(argparse.Namespace(config=None, admin=None))
    assert admin_of(argparse.Namespace(config=None, admin="http://h:1")).url == "http://h:1"
    (tmp_path / "routes.toml").write_text(
        '[admin]\nlisten = "127.0.0.1:9"\n[providers.p]\nbase_url = "http://h/v1"\n[models."p/m"]\n'
    )
    assert admin_of(argparse.Namespace(config=None, admin=None)).url == "http://127.0.0.1:9"
