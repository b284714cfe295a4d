"""Every Anthropic provider that the repository shows, against a server as strict as the real one."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.access.cors import cors_of
from proxy.config import settings
from proxy.config.parse import parse
from proxy.config.settings import Config, Listen
from proxy.server.single import Server
from tests.support.fakes import Call, RawClient, ScriptedProvider

ROOT = Path(__file__).parents[2]
KEY = "sk-ant-api03-secret"
HOST = "api.anthropic.com"
VERSION = b"anthropic-version: 2023-06-01\r\n"


class Shown(NamedTuple):
    """A configuration with an Anthropic provider, and where it is."""

    place: str
    text: str
    is_whole: bool


def shown() -> list[Shown]:
    """All files and blocks of pages that have one."""
    found = []
    skipped = (".git", "node_modules", ".venv", "build")
    for path in sorted([*ROOT.rglob("*.toml"), *ROOT.rglob("*.md")]):
        name = str(path.relative_to(ROOT))
        text = path.read_text()
        # docs/routes.md is made of docs/settings.toml.
        if HOST not in text or name.startswith((*skipped, "tests/", "benchmarks/", "docs/settings.toml")):
            continue
        if path.suffix == ".toml":
            found.append(Shown(name, text, True))
        for number, block in enumerate(re.findall(r"^```toml( complete)?\n(.*?)^```", text, re.M | re.S)):
            if HOST in block[1] and path.suffix == ".md":
                found.append(Shown(f"{name} {number}", block[1], bool(block[0])))
    return found


SHOWN = shown()
each = pytest.mark.parametrize("one", SHOWN, ids=lambda one: one.place)


def config_of(one: Shown) -> Config:
    """The configuration; a part of one gets a model."""
    if one.is_whole:
        return parse(one.text, one.place)
    [name] = [name for name, p in tomllib.loads(one.text)["providers"].items() if HOST in p["base_url"]]
    return parse(f'{one.text}\n[models."{name}/m"]\n', one.place)


def here(config: Config, url: str) -> tuple[Config, str]:
    """The same where this test can run it, with Anthropic at ``url``; and one of its models."""
    [provider] = [p for p in config.providers.values() if p.host == HOST]
    port = int(url.rpartition(":")[2].partition("/")[0])
    where = {"scheme": "http", "host": "127.0.0.1", "port": port}
    made = dataclasses.replace(provider, **where, api_key_env="K", api_key_file="")
    others = {
        name: dataclasses.replace(p, api_key_env="NONE" if p.needs_key else "", api_key_file="")
        for name, p in config.providers.items()
    }
    models = [model for model in config.models.values() if model.provider == provider.name]
    return dataclasses.replace(
        config, server=settings.ServerConfig(listen=(Listen("127.0.0.1", 0),)),
        admin=settings.AdminConfig(listen=None), auth=settings.AuthConfig(required=False),
        state=settings.StateConfig(path=":memory:"), alerts=settings.AlertsConfig(),
        simulator=settings.SimulatorConfig(), providers={**others, provider.name: made},
    ), models[0].id  # fmt: skip


def refusal(message: str) -> bytes:
    error = {"type": "authentication_error", "message": message}
    return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()


def verdict(head: bytes) -> tuple[bytes, bytes]:
    """Status and body, as the real one answers a head."""
    line, *rest = head.decode().split("\r\n")[:-2]
    fields = [(name.lower(), value) for name, _, value in (one.partition(": ") for one in rest)]
    given = dict(fields)
    assert len(given) == len(fields), fields
    path = line.split(" ")[1].partition("?")[0]
    if given["content-type"] != "application/json":
        return b"415 Unsupported Media Type", refusal("content-type")
    if "origin" in given and "anthropic-dangerous-direct-browser-access" not in given:
        why = "CORS requests must set 'anthropic-dangerous-direct-browser-access'"
        return b"401 Unauthorized", refusal(why)
    if "authorization" in given and "x-api-key" in given:
        return b"401 Unauthorized", refusal("two credentials")
    if path == "/v1/chat/completions":
        is_good = given.get("authorization") == f"Bearer {KEY}"
        return (b"200 OK", b'{"ok":1}') if is_good else (b"401 Unauthorized", refusal("invalid x-api-key"))
    assert path in ("/v1/messages", "/v1/messages/count_tokens"), path
    if "authorization" in given:
        return b"401 Unauthorized", refusal("Invalid bearer token")
    if given.get("x-api-key") != KEY:
        return b"401 Unauthorized", refusal("invalid x-api-key")
    if "anthropic-version" not in given:
        return b"400 Bad Request", refusal("anthropic-version: header is required")
    return b"200 OK", b'{"ok":1}'


async def strict(call: Call) -> None:
    while True:
        head, _ = await call.request()
        status, body = verdict(head)
        await call.answer(body, status)


@pytest.fixture
async def server(one: Shown, provider: ScriptedProvider) -> AsyncIterator[tuple[Server, str]]:
    provider.script = strict
    config, model = here(config_of(one), provider.url)
    running = Server(config, {"K": KEY})
    await running.start()
    yield running, model
    await running.close()


async def ask(server: Server, path: bytes, model: str, extra: bytes) -> tuple[int, Any]:
    client = await RawClient.connect(server)
    await client.post(json.dumps({"model": model}).encode(), path=path, extra=extra)
    status, _, body = await client.response()
    client.close()
    return status, json.loads(body)


def test_they_are_found():
    places = {one.place.partition(" ")[0] for one in SHOWN}
    assert places >= {
        "routes.toml", "deploy/docker/config/routes.toml", "deploy/kubernetes/gateway/routes.toml",
        "deploy/kubernetes/sidecar/routes.toml", "docs/migrating.md", "docs/recipes/chat-frontend.md",
        "docs/recipes/edge.md", "docs/routes.md",
    }  # fmt: skip


@each
@pytest.mark.parametrize(
    ("path", "extra"),
    [
        (b"/v1/chat/completions", b"Authorization: Bearer none\r\n"),
        (b"/v1/messages", b"x-api-key: none\r\n" + VERSION),
        (b"/v1/messages?beta=true", b"Authorization: Bearer none\r\nanthropic-beta: a\r\n" + VERSION),
        (b"/v1/messages/count_tokens", b"x-api-key: none\r\n" + VERSION),
    ],
    ids=["chat", "messages", "beta", "count_tokens"],
)
async def test_a_real_key_works_at_each_endpoint(one, server, path, extra):
    running, model = server
    assert await ask(running, path, model, extra) == (200, {"ok": 1})


@pytest.mark.parametrize("one", [one for one in SHOWN if one.place == "routes.toml"])
async def test_a_clients_origin_does_not_have_the_key_refused(one, provider, server):
    """Three refusals of the key take all models of a provider out, for everybody."""
    running, model = server
    page = b"Referer: https://a.example/\r\nSec-Fetch-Mode: cors\r\nOrigin: https://a.example\r\n"
    assert (await ask(running, b"/v1/messages", model, page + VERSION))[0] == 403  # nobody let it call
    running.gateway.cors = cors_of(("https://a.example",))
    for path in (b"/v1/messages", b"/v1/chat/completions") * 2:
        assert (await ask(running, path, model, page + VERSION))[0] == 200
    assert len(provider.seen) == 4


def test_the_strict_one_is_strict():
    line = b"POST /v1/%b HTTP/1.1\r\ncontent-type: application/json\r\n%b\r\n"
    bearer, own = b"Authorization: Bearer %b\r\n" % KEY.encode(), b"x-api-key: %b\r\n" % KEY.encode()
    for path, lines, status in (
        (b"chat/completions", bearer, b"200"),
        (b"chat/completions", own, b"401"),
        (b"chat/completions", bearer + b"origin: a\r\n", b"401"),
        (b"messages", own + VERSION, b"200"),
        (b"messages", bearer + VERSION, b"401"),
        (b"messages", own, b"400"),
        (b"messages", own + bearer + VERSION, b"401"),
    ):
        assert verdict(line % (path, lines))[0][:3] == status, (path, lines)
