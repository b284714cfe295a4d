"""aiohttp: ``request.json()``, which goes by the charset of the head."""

from __future__ import annotations

import sys
from typing import Any

from aiohttp import web
from reading import evil_in, reading

READINGS: list[dict[str, Any]] = []


async def chat(request: web.Request) -> web.Response:
    try:
        found = reading("request.json()", await request.json(), request.query)
    except (ValueError, LookupError, RecursionError) as error:
        return web.json_response({"refused": repr(error)[:200]}, status=400)
    if found is None:
        return web.json_response({"refused": "no object"}, status=400)
    READINGS.append({**found, "evil": evil_in(request.headers.items())})
    return web.json_response({})


async def readings(request: web.Request) -> web.Response:
    told = READINGS.copy()
    READINGS.clear()
    return web.json_response(told)


app = web.Application(client_max_size=1 << 24)
app.router.add_get("/readings", readings)
app.router.add_post("/{rest:.*}", chat)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
