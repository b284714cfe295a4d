"""The commands that ask a running gateway, against one that runs in this process, and their tables."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from proxy.cli import routes as routes_module
from proxy.cli.admin_client import Admin
from proxy.cli.routes import forwarding_table, list_aliases, routes_table, set_alias, show_explanation
from proxy.cli.tables import BAD, FAINT, GOOD, PLAIN, WARN, plain
from proxy.config.forwarding import NOT_LISTED, PARAMETER_NOT_LISTED
from tests.support.admin import failure, out, running


@pytest.fixture(params=["tcp", "unix"])
async def admin(request, tmp_path):
    """The admin API of a running gateway, over TCP and over a Unix socket."""
    async with running(
        tmp_path, "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/a.sock"
    ) as found:
        yield found


# ---------------------------------------------------------------------- routes
async def test_routes_at_rest_and_at_work_and_for_programs(admin, capsys):
    lines = await out(capsys, routes_module.show_routes, admin)
    assert [line.split()[0] for line in lines] == ["MODEL", "mock/big", "mock/small", "bare/m"]
    assert "no credentials" in lines[3]
    assert lines[1].split()[1:3] == ["-", "ok"]
    found = json.loads("\n".join(await out(capsys, routes_module.show_routes, admin, as_json=True)))
    assert found.keys() == {"data"}
    assert [*found["data"][0]] == [*(await asyncio.to_thread(admin.rows, "/routes"))[0]]
    assert [row["id"] for row in found["data"]] == ["mock/big", "mock/small", "bare/m"]
    await out(capsys, show_explanation, admin, "both")  # makes the rows
    lines = await out(capsys, routes_module.show_routes, admin)
    assert "chat stream" in "".join(lines)
    assert "%" not in lines[1]


def route(**more) -> dict:
    row = {"first_byte_s": 0.5, "output_tokens_per_s": 100.0, "usd_per_request": 0.001, "success": 1.0}
    row |= {"in_flight": 1, "finished": 7, "age_s": 3.2, "last_error": None} | more.pop("row", {})
    common = {"id": "p/m", "endpoint": "chat", "stream": True, "state": "ok", "ejected_until": None}
    return common | {"reason": None, "row": row} | more


def test_the_cells_of_a_route():
    [cells] = routes_table([route()]).rows
    assert cells == (
        *("p/m", "chat stream", "ok", "0.500 s", "100.0", "0.001000", "100.0%", "1", "7", "3 s", ""),
    )
    [cells] = routes_table(
        [route(endpoint=None, stream=None, row={}, state="no credentials", reason="why")]
    ).rows
    assert (cells[1:3], cells[-1]) == (("-", "no credentials"), "why")
    [cells] = routes_table([route(row={"finished": 0})]).rows
    assert cells[6] == "-"  # where nothing was asked yet, it is only the prior


def test_a_long_error_is_whole_in_a_pipe_and_cut_on_a_terminal():
    error = "reset: " + "x" * 300
    table = routes_table([route(row={"last_error": error})])
    assert error in plain(table).splitlines()[1]
    lines = plain(table, 140).splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("x…")
    assert len(lines[1]) == 140


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_model_and_state_are_there_at_any_width(width):
    lines = plain(routes_table([route(), route(id="p/other")]), width).splitlines()
    assert lines[0].startswith("MODEL")
    assert "STATE" in lines[0]
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize(("column", "text", "tone"), [
    (2, "ok", GOOD), (2, "ejected 9 s", BAD), (2, "no credentials", FAINT), (2, "trial", WARN),
    (2, "cooling down 3 s", WARN), (6, "100.0%", PLAIN), (6, "94.9%", WARN), (6, "12.0%", BAD),
])  # fmt: skip
def test_tones(column, text, tone):
    assert routes_table([]).columns[column].tone(text) == tone


# ---------------------------------------------------------------------- explain
async def test_explain_what_names_a_model_and_what_names_none(admin, capsys):
    lines = await out(capsys, show_explanation, admin, "both", strategy="cost")
    assert lines[0].startswith("both (alias) by cost, chat: ")
    assert lines[1].split() == ["MEMBER", "SCORE", "SKIPPED"]
    assert lines[2].startswith("   mock/big")
    assert "$0.00" in lines[2]
    assert lines[3].startswith("→  mock/small")
    reason = "provider bare has no key: set api_key_env; it is left out"
    assert lines[4].split(maxsplit=2) == ["bare/m", "-", reason]
    lines = await out(capsys, show_explanation, admin, "bare/m")
    assert lines[0] == f"bare/m (pinned) by pinned, chat: {reason}"
    assert not any("→" in line for line in lines)
    lines = await out(capsys, show_explanation, admin, None, strategy="cost")
    assert lines[0].startswith("no model (auto) by cost, chat: ")
    assert "names no model" in await failure(show_explanation, admin, None)
    found = json.loads("\n".join(await out(capsys, show_explanation, admin, "both", as_json=True)))
    assert found["model"] == "both"
    assert [candidate["id"] for candidate in found["candidates"]] == ["mock/big", "mock/small", "bare/m"]


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
    ("text", "said"), [("no", "is not JSON"), ("[]", "one JSON object"), (None, "can't read")]
)
async def test_a_body_that_is_none(tmp_path, text, said):
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    assert said in await failure(show_explanation, Admin("http://x", ""), "m", body=str(path))


async def test_explain_what_cannot_be(admin):
    assert (await failure(show_explanation, admin, "bot")).startswith("404: The model 'bot' does not exist")
    assert "must be one of cost" in await failure(show_explanation, admin, "both", strategy="fast")


async def test_explain_headers_and_those_that_are_none(admin, capsys, tmp_path):
    file = tmp_path / "h"
    file.write_text("User-Agent: s3cret\n\nX_A: s3cret\n")
    lines = await out(
        capsys, show_explanation, admin, "both", headers=["X-Team: s3cret", f"@{file}"],
        query="beta=1&b=s3cret",
    )  # fmt: skip
    at = lines.index("")
    assert lines[at + 1].split("  ")[0] == "HEADER OR PARAMETER"
    rows = [line.split(maxsplit=3) for line in lines[at + 2 :]]
    assert rows == [
        ["X-Team", "all", "no", NOT_LISTED], ["User-Agent", "all", "yes"],
        ["X_A", "all", "no", "has a '_', which some servers read as '-'"], ["?beta", "all", "yes"],
        ["?b", "all", "no", PARAMETER_NOT_LISTED],
    ]  # fmt: skip
    assert "s3cret" not in "".join(lines)
    lines = await out(capsys, show_explanation, admin, "both", headers=[])
    told = {words[0]: words[2] for line in lines[lines.index("") + 2 :] if (words := line.split())}
    assert {told[name] for name in ("User-Agent", "anthropic-beta", "X-Session-Affinity", "traceparent")} == {
        "yes"
    }
    assert {told[name] for name in ("Authorization", "Origin", "session_id", "Cookie")} == {"no"}
    assert len(told) == len(routes_module.USUAL_HEADERS)
    assert "" not in await out(capsys, show_explanation, admin, "both")  # where nobody asks
    assert "a list of lines" in await failure(show_explanation, admin, "both", headers=["X-Team"])
    said = await failure(show_explanation, admin, "both", headers=["Content-Type: text/html"])
    assert "refused (415)" in said
    assert "can't read" in await failure(show_explanation, admin, "both", headers=[f"@{tmp_path}/none"])


def test_providers_that_do_the_same_share_a_row():
    def row(provider: str, passes: bool) -> dict:
        return {
            "provider": provider, "kind": "header", "name": "X", "passes": passes,
            "reason": None if passes else "w",
        }  # fmt: skip

    assert forwarding_table([row("a", True)]).rows == [("X", "a", "yes", "")]
    assert forwarding_table([row("a", True), row("b", True)]).rows == [("X", "all", "yes", "")]
    rows = [row("a", True), row("b", False), row("c", True)]
    assert forwarding_table(rows).rows == [("X", "a, c", "yes", ""), ("X", "b", "no", "w")]


# ---------------------------------------------------------------------- aliases
async def test_aliases_and_those_that_cannot_be(admin, capsys):
    line = await out(capsys, set_alias, admin, "a/b", ["mock/big", "mock/small"], strategy="cost", split=[])
    assert line == ["a/b: mock/big, mock/small"]
    await out(capsys, set_alias, admin, "a/b", [], strategy=None, split=["mock/big=9", "mock/small=1"])
    lines = await out(capsys, list_aliases, admin)
    assert lines[0].split() == ["ALIAS", "STRATEGY", "MODELS", "MORE"]
    assert lines[2].split(maxsplit=2)[:2] == ["a/b", "cost"]
    assert lines[2].endswith("  mock/big, mock/small          split mock/big=9, mock/small=1")
    await out(capsys, set_alias, admin, "a/b", ["mock/big"], strategy="", split=[])
    assert admin_row(await asyncio.to_thread(admin.ask, "GET", "/aliases/a%2Fb")) == (["mock/big"], None)
    assert await out(capsys, routes_module.remove_alias, admin, "a/b") == ["a/b removed"]
    assert len(await out(capsys, list_aliases, admin)) == 2

    async def told(command, *args, **how):
        return json.loads("\n".join(await out(capsys, command, admin, *args, as_json=True, **how)))

    row = await told(set_alias, "x", ["mock/big"], strategy=None, split=[])
    assert admin_row(row) == (["mock/big"], None)
    assert row in (await told(list_aliases))["data"]
    assert await told(routes_module.remove_alias, "x") == {"name": "x", "removed": True}
    assert "404" in await failure(routes_module.remove_alias, admin, "none")
    said = await failure(set_alias, admin, "x", ["mock/bigg"], strategy=None, split=[])
    assert "did you mean 'mock/big'" in said
    for share in ("mock/big", "=1", "mock/big=x"):
        assert "MODEL=WEIGHT" in await failure(set_alias, admin, "x", [], strategy=None, split=[share])


def admin_row(row: dict) -> tuple:
    return row["models"], row["strategy"]
