"""What the tests of commands share that ask a gateway: one that runs in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.admin_client import Admin
from proxy.cli.parser import CommandError
from proxy.config.listen import show
from proxy.control.routes_file import RoutesFile
from proxy.server.single import Server
from tests.support.admin_api import MODELS

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = ":memory:"
[admin]
listen = "{listen}"
token_env = "T"
{models}[providers.bare]
base_url = "http://127.0.0.1:1/v1"
[models."bare/m"]
[aliases]
both = ["mock/big", "mock/small", "bare/m"]
"""


@asynccontextmanager
async def running(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[Admin]:
    """The admin API of a gateway."""
    (folder / "routes.toml").write_text(TEXT.format(listen=listen, models=MODELS))
    file = RoutesFile(folder / "routes.toml")
    server = Server(file.load(), {"T": "s3cret"}, file)
    await server.start()
    try:
        yield Admin(show(server.admin_address), "s3cret")
    finally:
        await server.close()


async def out(
    capsys: pytest.CaptureFixture[str], command: Callable[..., int], *args: Any, **how: Any
) -> list[str]:
    """The lines a command prints. It runs in a thread: it blocks, and the gateway is in this loop."""
    assert await asyncio.to_thread(command, *args, **how) == 0
    return capsys.readouterr().out.splitlines()


async def failure(command: Callable[..., object], *args: Any, **how: Any) -> str:
    """What it says, in one line."""
    with pytest.raises(CommandError) as caught:
        await asyncio.to_thread(command, *args, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)
