"""What commands say where a gateway can't be reached: each cause as it really comes, in both clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from http.client import BadStatusLine

import pytest
import trustme

from proxy.cli.admin_client import Admin, ConsoleError
from proxy.cli.chat import chat
from proxy.cli.data_client import Target
from proxy.cli.parser import CommandError
from proxy.cli.unreachable import unreachable


async def said_by_chat(url: str) -> str:
    path = url.removeprefix("unix:") if url.startswith("unix:") else ""
    with pytest.raises(CommandError) as caught:
        await chat("m", "Hi", target=Target(url, "http://localhost" if path else url, path))
    return str(caught.value)


async def said_by_admin(url: str) -> str:
    with pytest.raises(ConsoleError) as caught:
        await asyncio.to_thread(Admin(url, "").ask, "GET", "/routes")
    return str(caught.value)


BOTH = pytest.mark.parametrize(
    ("ask", "what", "option"),
    [(said_by_chat, "gateway", "--url"), (said_by_admin, "gateway's admin API", "--admin")],
)


async def served(answer: bytes | None, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """Something that answers so, or closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is not None:
            writer.write(answer)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)


def port_of(server: asyncio.Server) -> int:
    return server.sockets[0].getsockname()[1]


@BOTH
async def test_nothing_listens(ask, what, option):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert await ask(url) == (
            f"no {what} at {url}: nothing listens there; start one with 'tokenhub serve', or name its "
            f"address with {option}"
        )
    said = await ask("unix:/nowhere/x.sock")
    assert said.startswith(f"no {what} at unix:/nowhere/x.sock: there is no such socket; start one with")


@BOTH
async def test_a_name_that_is_none(ask, what, option):
    url = "http://nowhere.invalid:8080"
    assert await ask(url) == (
        f"no {what} at {url}: its name can't be resolved; see how it is spelled in {option}"
    )


@BOTH
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad\r\n\r\n", None])
async def test_tls_to_a_plain_port(ask, what, option, answer):
    async with await served(answer) as server:
        url = f"https://127.0.0.1:{port_of(server)}"
        assert await ask(url) == (
            f"no {what} at {url}: the server there does not speak TLS; write http:// in {option}, or see "
            "what listens there"
        )


@BOTH
@pytest.mark.parametrize("answer", [b"220 mail ESMTP\r\n", None])
async def test_what_speaks_no_http(ask, what, option, answer):
    async with await served(answer) as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        assert f"no {what} at {url}: the server there does not speak HTTP; write https://" in await ask(url)


@BOTH
@pytest.mark.parametrize("is_pinned", [False, True])
async def test_a_certificate_that_is_not_trusted(ask, what, option, is_pinned, tmp_path):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with await served(b"", context) as server:
        url = f"https://127.0.0.1:{port_of(server)}"
        said = await ask(url)
        assert said.startswith(f"no {what} at {url}: its certificate is not trusted (")
        assert said.endswith("or set SSL_CERT_FILE to a PEM file with who signed it")
        if is_pinned and ask is said_by_chat:
            pinned = tmp_path / "c.pem"
            trustme.CA().cert_pem.write_to_path(pinned)
            with pytest.raises(CommandError, match=r"it must be .*c\.pem .*: restart the gateway"):
                await chat("m", "Hi", target=Target(url, url, certificate=str(pinned)))


@pytest.mark.parametrize(("error", "said"), [
    (TimeoutError(), "it does not answer in time; see that it runs, or use --x"),
    (PermissionError(13, "denied"), "this user may not open it; [server] socket_mode says who may"),
    (OSError(113, "No route to host"), "No route to host; start one with"),
    (ValueError("odd"), "odd; start one with"),
    (RuntimeError(), "RuntimeError; start one with"),
    (BadStatusLine("x"), "the server there does not speak HTTP; write https://"),
])  # fmt: skip
def test_other_causes(error, said):
    assert unreachable(error, "gateway", "http://a", "--x").startswith(f"no gateway at http://a: {said}")


def test_a_cause_is_found_wherever_it_is_and_circles_end():
    outer = RuntimeError("outer")
    outer.__cause__ = ConnectionRefusedError(111, "refused")
    outer.__cause__.__context__ = outer
    assert "nothing listens there" in unreachable(outer, "gateway", "http://a", "--x")
