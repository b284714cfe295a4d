"""FastAPI: a body declared as a pydantic model, a dict with parameters beside it, and ``request.json()``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from reading import evil_in, reading

READINGS: list[dict[str, Any]] = []
app = FastAPI()


class Chat(BaseModel):
    """As servers of OpenAI's API declare it: numbers and flags are taken from text, too."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    model: str
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None


def note(found: dict[str, Any] | None, request: Request) -> JSONResponse:
    if found is None:
        return JSONResponse({"refused": "no object"}, status_code=400)
    READINGS.append({**found, "evil": evil_in(request.headers.items())})
    return JSONResponse({})


@app.get("/readings")
async def readings() -> JSONResponse:
    told = READINGS.copy()
    READINGS.clear()
    return JSONResponse(told)


@app.post("/model/v1/chat/completions")
async def declared(chat: Chat, request: Request) -> JSONResponse:
    return note(reading("pydantic model", chat.model_dump()), request)


@app.post("/query/v1/chat/completions")
async def with_parameters(
    request: Request,
    chat: Annotated[dict[str, Any], Body()],
    model: str | None = None,
    max_tokens: int | None = None,
    n: int | None = None,
    stream: bool | None = None,
) -> JSONResponse:
    said = {"model": model, "max_tokens": max_tokens, "n": n, "stream": stream}
    query = {word: value for word, value in said.items() if value is not None}
    return note(reading("dict body and parameters", chat, query), request)


@app.post("/json/v1/chat/completions")
async def by_hand(request: Request) -> JSONResponse:
    try:
        found = reading("request.json()", await request.json(), request.query_params)
    except (ValueError, RecursionError) as error:
        return JSONResponse({"refused": repr(error)[:200]}, status_code=400)
    return note(found, request)


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", loop="asyncio", http="h11")
