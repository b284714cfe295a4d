"""Servers of a test's own, in an event loop beside a test that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from aiohttp import web

from tests.support.fakes import Script, ScriptedProvider

T = TypeVar("T")


@contextlib.contextmanager
def in_thread(served: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """What an asynchronous context gives, entered in a thread with a loop of its own."""
    given: list[T] = []
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with served as value:
            given.append(value)
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(20)
        yield given[0]
    finally:
        ended.set()
        thread.join(20)


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        provider.script = script
        yield provider


@contextlib.asynccontextmanager
async def application(app: web.Application) -> AsyncIterator[str]:
    """The address at which it runs."""
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
