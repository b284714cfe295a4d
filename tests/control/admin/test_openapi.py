"""The description of the admin API, held to what is served: nothing more, nothing less, nothing else."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from proxy import __version__
from proxy.access.key import FIELDS
from proxy.config.parse import parse
from proxy.config.settings import STRATEGIES
from proxy.control.admin.inputs import QUERIES
from proxy.control.admin.openapi import PATH, document, document_bytes
from proxy.control.routes_file import RoutesFile
from proxy.server.single import Server
from tests.support.admin_api import Watcher, ask
from tests.support.fakes import RawClient, answers
from tests.support.keys import admin, bearer

TOKEN = "s3cret"
DOCUMENT = document(has_token=True)
SCHEMAS = DOCUMENT["components"]["schemas"]
METHODS = ("get", "put", "post", "patch", "delete")
# What the examples in the document name.
TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = "{state}"
[admin]
listen = "127.0.0.1:0"
token_env = "T"
[providers.openai]
base_url = "{url}"
auth = "none"
[providers.anthropic]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[models."openai/gpt-4o"]
input_price = 2
output_price = 2
[models."anthropic/claude-3-5-sonnet"]
input_price = 1
output_price = 1
[aliases]
premium = ["anthropic/claude-3-5-sonnet", "openai/gpt-4o"]
"""
# Which answers are none of a fault where a request is as described: there may be nothing of that name, and
# what a schema can't say (that a model is known, that a date is one) is said by a 400 or 422.
CONFIG = """
request-timeout = 30
[auth.openapi.token]
bearer = "s3cret"
[generation]
max-examples = 15
deterministic = true
database = "none"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409"]
[[operations]]
include-operation-id = ["explain", "usage"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404"]
[[operations]]
include-operation-id = [
    "createKey", "editKey", "rotateKey", "createGroup", "editGroup", "setAlias", "removeAlias",
]
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
[[operations]]  # a key that is revoked stays to be seen
include-path = "/admin/v1/keys/{id}"
checks.use_after_free.enabled = false
[[operations]]  # it has no end
include-operation-id = "live"
enabled = false
"""


@pytest.fixture
async def server(provider, tmp_path):
    """A gateway from a file, with a token, that has served some requests."""
    provider.script = answers(b'{"usage":{"prompt_tokens":40,"completion_tokens":60}}')
    path = tmp_path / "routes.toml"
    path.write_text(TEXT.format(state=tmp_path / "state.db", url=provider.url))
    file = RoutesFile(path)
    running = Server(file.load(), {"T": TOKEN}, file)
    await running.start()
    client = await RawClient.connect(running)
    for _ in range(3):
        for model in ("premium", "openai/gpt-4o", "anthropic/claude-3-5-sonnet", "nothing"):
            await client.post(json.dumps({"model": model}).encode())
            await client.response()
    client.close()
    yield running
    await running.close()


def operations(of: dict[str, Any] = DOCUMENT) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in of["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def refs(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from refs(inner)


def validator(schema: object) -> Any:
    """Of a schema that may refer to those of the document."""
    return jsonschema_rs.validator_for({"components": DOCUMENT["components"], "allOf": [schema]})


# ---------------------------------------------------------------------- the document by itself
@pytest.mark.parametrize("has_token", [True, False])
def test_it_is_a_document_of_openapi(has_token):
    made = document(has_token=has_token)
    schemathesis.openapi.from_dict(made).validate()
    assert json.loads(document_bytes(has_token=has_token)) == made
    assert (made["openapi"], made["info"]["version"]) == ("3.1.0", __version__)
    # An operation says what may be answered, errors included; of the token only where there is one.
    for _, _, operation in operations(made):
        answers = operation["responses"].keys()
        assert {"200", "201"} & answers and answers >= {"400", "403", "500"}
        assert ("401" in answers) is has_token
    assert ("securitySchemes" in made["components"]) is ("security" in made) is has_token


def test_everything_it_refers_to_is_there_and_used():
    for reference in refs(DOCUMENT):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    used = {reference.rpartition("/")[2] for reference in refs(DOCUMENT)}
    assert {*SCHEMAS, *DOCUMENT["components"]["responses"]} <= used


def test_operations_have_names_and_parameters_of_their_own():
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, _, operation in operations():
        assert set(operation["tags"]) <= tags
        assert operation["summary"].endswith(".")
        named = [*DOCUMENT["paths"][path].get("parameters", ()), *operation.get("parameters", ())]
        assert {one["name"] for one in named if one["in"] == "path"} == {
            part[1:-1] for part in path.split("/") if part.startswith("{")
        }
        in_query = [one["name"] for one in named if one["in"] == "query"]
        assert in_query == list(QUERIES.get(path, ()))
        for one in named:
            validator(one["schema"]).validate(one["example"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_examples_are_as_described(name):
    for example in SCHEMAS[name].get("examples", ()):
        validator(SCHEMAS[name]).validate(example)


def test_examples_are_as_described_and_what_an_operation_takes_or_answers_has_one():
    """In itself, or in what it lists."""
    for path, method, operation in operations():
        for reference in refs([operation.get("requestBody"), operation["responses"]]):
            where, _, name = reference.rpartition("/")
            if where.endswith("schemas"):
                listed = SCHEMAS[name]["properties"].get("data", {}).get("items", {}).get("$ref", name)
                assert SCHEMAS[listed.rpartition("/")[2]].get("examples"), (path, method, name)
    assert SCHEMAS["KeySettings"]["properties"].keys() == {*FIELDS, "limits"}
    assert SCHEMAS["AliasSettings"]["properties"]["strategy"]["enum"] == [*STRATEGIES, None]
    assert SCHEMAS["AliasSettings"]["properties"].keys() == SCHEMAS["Alias"]["properties"].keys()


def test_everything_is_described():
    """In a sentence."""

    def check(schema: Any, where: str) -> None:
        for name, inner in schema.get("properties", {}).items():
            if "$ref" not in inner and name != "data":
                assert inner.get("description", "").endswith("."), f"{where}.{name}"
            check(inner, f"{where}.{name}")

    for name, schema in SCHEMAS.items():
        assert schema["description"].endswith("."), name
        check(schema, name)


# ---------------------------------------------------------------------- and what is served
WITH = bearer(TOKEN.encode()).decode()


async def test_it_is_served(server, start):
    assert (await ask(server, "GET", PATH))[0] == 401
    status, fields, body = await ask(server, "GET", PATH, extra=WITH)
    assert (status, fields[b"content-type"], json.loads(body)) == (200, b"application/json", DOCUMENT)
    other = await start('[providers.a]\nbase_url = "http://127.0.0.1:1/v1"\nauth = "none"\n[models."a/b"]\n')
    assert json.loads((await ask(other, "GET", PATH))[2]) == document(has_token=False)


async def test_every_route_is_described_and_every_description_has_its_route(server):
    served = {
        (route.resource.canonical, route.method.lower())
        for route in server._control._runner.app.router.routes()
        if route.method != "HEAD" and not is_page(route.resource.canonical)
    }
    assert served == {(path, method) for path, method, _ in operations()}


def is_page(path: str) -> bool:
    """Of the dashboard, which is for people."""
    return path == "/" or path.startswith("/assets")


async def test_answers_are_as_described(server, tmp_path, caplog):
    """By schemathesis: requests that are as described and requests that are not, with and without the token,
    one after the other as links tell; each answer has to be one that the document knows."""
    (tmp_path / "openapi.json").write_bytes(document_bytes(has_token=True))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    report = tmp_path / "report.json"
    port = server.admin_address.port
    program = Path(sys.executable).with_name("schemathesis")
    running = await asyncio.create_subprocess_exec(
        str(program), "--config-file", "schemathesis.toml", "run", "openapi.json", "--no-color",
        "--url", f"http://127.0.0.1:{port}", "--report", "json", "--report-json-path", str(report),
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(300):
            said, _ = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert running.returncode == 0, said.decode()
    told = json.loads(report.read_text())
    assert (told["failures"], told["errors"]) == ([], [])
    assert told["operations"]["tested"] == len(list(operations())) - 1 > 10
    # And nothing was broken by it, nor went wrong unseen.
    assert not [record for record in caplog.records if "fault" in record.getMessage()]
    assert parse((tmp_path / "routes.toml").read_text()).models
    client = await RawClient.connect(server)
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await client.response())[0] == 200


async def test_answers_with_rows_are_as_described(start, provider):
    """Each schema of a list sees a row, also where schemathesis may not have come to one."""
    provider.script = answers(b'{"usage":{"prompt_tokens":40,"completion_tokens":60}}')
    text = TEXT.format(state=":memory:", url=provider.url).replace('token_env = "T"', "")
    running = await start(text)
    status, key = await admin(running, "POST", "/keys", {"name": "prod", "rpm": 5, "models": ["openai/*"]})
    assert status == 201
    validator(SCHEMAS["NewKey"]).validate(key)
    client = await RawClient.connect(running)
    for body in (
        b'{"model":"openai/gpt-4o"}', b'{"model":"openai/gpt-4o","stream":true}',
        b'{"model":"anthropic/claude-3-5-sonnet"}',
    ):  # fmt: skip
        await client.post(body, extra=bearer(key["key"].encode()))
        await client.response()
    for path, schema in (
        ("/routes", "Routes"), ("/aliases", "Aliases"), ("/keys", "Keys"), ("/requests", "Requests"),
        ("/usage?by=key,model,provider,day", "Totals"), ("/usage", "Totals"),
    ):  # fmt: skip
        status, found = await admin(running, "GET", path)
        assert (status, bool(found["data"])) == (200, True)
        validator(SCHEMAS[schema]).validate(found)
    status, found = await admin(running, "POST", "/explain", {"model": "premium"})
    assert any(candidate["row"] for candidate in found["candidates"])
    validator(SCHEMAS["Explanation"]).validate(found)


async def test_events_are_as_described(server):
    watcher = await Watcher.of(server, WITH)
    assert b"text/event-stream" in await watcher.head()
    events = {}
    async with asyncio.timeout(20):
        while events.keys() != {"history", "sample"}:
            name, data = await watcher.event()
            events[name] = data
    validator(SCHEMAS["History"]).validate(events["history"])
    validator(SCHEMAS["Sample"]).validate(events["sample"])
    assert any(row["ttft_ms"] for row in events["sample"]["routes"])


async def test_too_many_watchers_are_told_when_to_come_again(server, monkeypatch):
    monkeypatch.setattr("proxy.control.admin.monitoring.MAX_WATCHERS", 0)
    status, fields, body = await ask(server, "GET", "/admin/v1/live", extra=WITH)
    assert (status, fields[b"retry-after"]) == (503, b"10")
    validator(SCHEMAS["Error"]).validate(json.loads(body))
