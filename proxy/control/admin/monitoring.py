"""Monitoring at the admin listener: ``/metrics``, and ``/admin/v1/live`` for the dashboard."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Mapping

from aiohttp import web

from proxy import __version__
from proxy.control.key_store import KeyStore
from proxy.control.live_feed import Count, LiveFeed
from proxy.control.slices import sliced
from proxy.control.telemetry.metrics import CONTENT_TYPE, MetricInputs, exposition
from proxy.errors import Unavailable
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.exchange import exchange

# Each is a connection that gets a few KiB a second.
MAX_WATCHERS = 32
# A watcher that takes nothing for this long gives its place to others.
WRITE_S = 10.0


class Monitor:
    """Serves ``/metrics`` and ``/admin/v1/live``.

    :param count: collects the counts of all workers.
    """

    def __init__(self, gateway: Gateway, keys: KeyStore, live: LiveFeed, count: Count) -> None:
        self.live = live
        self._gateway = gateway
        self._keys = keys
        self._count = count
        self._started_s = round(time.time(), 3)
        self._build = build()
        self._watchers = 0

    def add_to(self, app: web.Application) -> None:
        """Add the routes to the application of the admin listener."""
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/admin/v1/live", self._watch, allow_head=False)
        app.on_shutdown.append(self._on_shutdown)

    async def _on_shutdown(self, _app: web.Application) -> None:
        self.live.close()

    async def _metrics(self, _request: web.Request) -> web.Response:
        counted = await self._count(False)
        gateway = self._gateway
        facts = MetricInputs(
            counted=counted,
            catalog=gateway.catalog,
            keys=await sliced(self._keys.rows()),
            workers=counted.levels.get(("workers",), (0,))[0],
            ready=gateway.is_ready(),
            build=self._build,
            started_s=self._started_s,
            now=time.monotonic(),
        )
        pieces = await sliced(piece.encode() for piece in exposition(facts))
        return web.Response(body=b"".join(pieces), headers={"Content-Type": CONTENT_TYPE})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self._watchers >= MAX_WATCHERS:
            text = f"There are {MAX_WATCHERS} watchers already."
            raise Unavailable(text, code="too_many_watchers", retry_after_s=10)
        self._watchers += 1
        try:
            response = web.StreamResponse(headers={"Cache-Control": "no-store"})
            response.content_type = "text/event-stream"
            await response.prepare(request)
            await _send(response, b'event: history\ndata: {"samples":[')
            for number, sample in enumerate(list(self.live.samples)):
                await _send(response, b"," * (number > 0) + sample.json())
                await asyncio.sleep(0)
            await _send(response, b"]}\n\n")
            async for sample in self.live.watch():
                await _send(response, b"event: sample\ndata: %b\n\n" % sample.json())
        except ConnectionError:
            pass  # it watches no longer
        except TimeoutError:
            if request.transport is not None:  # else the end of the response would be waited for too
                request.transport.abort()
        finally:
            self._watchers -= 1
        return response


async def _send(response: web.StreamResponse, data: bytes) -> None:
    """:raises TimeoutError: nobody takes it."""
    async with asyncio.timeout(WRITE_S):
        await response.write(data)


def build() -> Mapping[str, str]:
    """The running program as labels."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "compiled": "false" if exchange.__file__.endswith(".py") else "true",
    }
