"""A running gateway takes on a changed file; nothing that runs is dropped, and a bad file changes nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tempfile
from pathlib import Path

import pytest

from proxy.config.alias_edit import set_alias
from proxy.config.tables import ConfigError
from proxy.control.routes_file import Irreplaceable, RoutesFile, Unreadable
from proxy.errors import StartError
from proxy.server.single import Server
from tests.support.fakes import Call, RawClient, stepped, until

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[state]
path = ":memory:"
[providers.mock]
base_url = "{url}"
api_key_env = "MOCK_KEY"
[models."mock/m"]
[aliases]
a = ["mock/m"]  # a comment
"""


class Running:
    """A gateway that was started from a file."""

    def __init__(self, path, text: str) -> None:
        self.path = path
        self.text = text
        self.environ = {"MOCK_KEY": "k"}

    async def start(self) -> None:
        self.path.write_text(self.text)
        file = RoutesFile(self.path)
        self.server = Server(file.load(), self.environ, file)
        await self.server.start()
        self.reloader = self.server.reloader

    def write(self, old: str, new: str) -> None:
        self.text = self.text.replace(old, new, 1)
        self.path.write_text(self.text)

    async def check(self) -> None:
        """The watcher looks twice: so long a file has to be at rest."""
        await self.reloader.check()
        await self.reloader.check()

    async def status(self, model: str) -> int:
        client = await RawClient.connect(self.server)
        await client.post(b'{"model":"%b"}' % model.encode())
        return (await client.response())[0]


@pytest.fixture
async def running(provider, tmp_path):
    made = Running(tmp_path / "routes.toml", TEXT.format(url=provider.url))
    await made.start()
    yield made
    await made.server.close()


async def test_a_changed_file_is_in_effect_for_the_next_request(running, caplog):
    caplog.set_level(logging.INFO)
    assert await running.status("b") == 404
    running.write("a = ", "b = ")
    await running.check()
    assert (await running.status("b"), await running.status("a")) == (200, 404)
    assert "changed: alias b added, alias a removed" in caplog.text
    caplog.clear()
    await running.check()
    assert caplog.text == ""


async def test_what_the_log_says_of_many_changes_and_of_a_provider_without_a_key(running, caplog):
    caplog.set_level(logging.INFO)
    running.write("a = ", "".join(f'more{number} = ["mock/m"]\n' for number in range(60)) + "a = ")
    changes = await running.reloader.reload()
    assert len(changes.changed) == 60
    [line] = [message for message in caplog.messages if message.startswith("changed: ")]
    assert line.endswith("alias more49 added, and 10 more")
    assert gc.isenabled()
    running.write("[aliases]", '[providers.bare]\nbase_url = "http://a/v1"\napi_key_env = "BARE"\n[aliases]')
    await running.check()
    assert "provider bare has no key: set BARE; it is left out" in caplog.messages


async def test_a_stream_goes_on_over_a_reload_that_takes_its_provider_away(running, provider):
    step = asyncio.Event()
    provider.script = stepped(step)
    client = await RawClient.connect(running.server)
    await client.post(b'{"model":"mock/m","stream":true}')
    await client.head()
    for old, new in ("mock]", "other]"), ("mock/m", "other/m"), ("mock/m", "other/m"):
        running.write(old, new)
    changes = await running.reloader.reload()
    assert changes.changed == [
        "provider other added", "provider mock removed", "model other/m added", "model mock/m removed",
        "alias a changed",
    ]  # fmt: skip
    step.set()
    assert (await Call(client.reader, client.writer, 0).chunks()).startswith(b"data: first\n\ndata: [DONE]")
    await client.post(b'{"model":"mock/m"}')
    assert (await client.response())[0] == 404  # on the same connection


async def test_a_bad_file_changes_nothing_and_is_complained_about_once(running, caplog):
    running.write("[aliases]", "[aliases]\nb = ['mock/x']\nc = ['mock/y']")
    await running.check()
    await running.check()
    assert await running.status("a") == 200
    said = [record.getMessage() for record in caplog.records if "unknown model" in record.getMessage()]
    assert len(said) == 2
    assert f"{running.path}:13:6: " in said[0]
    with pytest.raises(ConfigError) as caught:
        await running.reloader.reload()
    assert len(caught.value.mistakes) == 2
    running.write("b = ['mock/x']\nc = ['mock/y']", "b = ['mock/m']")
    await running.check()
    assert await running.status("b") == 200


async def test_a_file_that_is_gone(running, caplog):
    running.path.unlink()
    await running.check()
    assert "can't read" in caplog.text
    assert await running.status("a") == 200
    with pytest.raises(Unreadable):
        await running.reloader.reload()


async def test_what_needs_a_restart_is_named_until_it_is_restarted(running, caplog):
    running.write('listen = ["127.0.0.1:0"]', 'listen = ["127.0.0.1:0", "127.0.0.1:0"]\nworkers = 2')
    caplog.set_level(logging.INFO)
    for _ in range(2):
        changes = await running.reloader.reload()
        assert changes == ([], ["server.listen", "server.workers"])
    caplog.clear()
    await running.reloader.reload_and_log("SIGHUP")
    assert caplog.messages == ["needs a restart: server.listen, server.workers"]
    running.write("workers = 2", "")
    running.write(', "127.0.0.1:0"]', "]")
    await running.reloader.reload_and_log("SIGHUP")
    assert caplog.messages[1:] == ["SIGHUP: nothing to change"]
    assert len(running.server.addresses) == 1


async def test_a_provider_that_is_as_it_was_keeps_its_connections_and_its_rows(running, provider):
    assert await running.status("a") == 200
    before = running.server.gateway.catalog
    running.write("a = ", "b = ")
    await running.reloader.reload()
    after = running.server.gateway.catalog
    assert after is not before
    rows = [catalog.deployments["mock/m"].row("chat", False) for catalog in (before, after)]
    assert rows[0] is rows[1]
    assert rows[0].finished_count == 1
    assert await running.status("b") == 200
    assert provider.connections == 1
    running.write('base_url = "', 'headers = { x = "1" }\nbase_url = "')
    assert (await running.reloader.reload()).changed == ["provider mock changed"]
    assert await running.status("b") == 200
    assert provider.connections == 2


async def test_a_rotated_key(running, provider, tmp_path):
    key = tmp_path / "key"
    key.write_text("one")
    running.write('api_key_env = "MOCK_KEY"', f'api_key_file = "{key}"')
    await running.check()
    assert await running.status("a") == 200
    key.write_text("second\n")
    await running.check()
    assert await running.status("a") == 200
    key.write_text("two words")
    with pytest.raises(StartError, match="provider 'mock'"):
        await running.reloader.reload()
    assert await running.status("a") == 200
    sent = [head.partition(b"Bearer ")[2].partition(b"\r\n")[0] for head, _ in provider.seen]
    assert sent == [b"one", b"second", b"second"]


async def test_a_key_that_everybody_can_read_is_told_of_once(running, caplog):
    def told() -> list[str]:
        return [r.getMessage().split()[0] for r in caplog.records if "every user" in r.getMessage()]

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        one, two, own = (Path(folder) / name for name in ("one", "two", "own"))
        for path, mode in ((one, 0o644), (two, 0o644), (own, 0o600)):
            path.write_text("k")
            path.chmod(mode)
        running.write('api_key_env = "MOCK_KEY"', f'api_key_file = "{one}"')
        await running.check()
        assert told() == [str(one)]
        running.write("# a comment", '# another\nb = ["mock/m"]')
        await running.check()
        assert told() == [str(one)]
        running.write(str(one), str(two))
        await running.check()
        running.write(str(two), str(own))
        await running.check()
        assert told() == [str(one), str(two)]


async def test_the_simulator_comes_and_goes(running, caplog):
    del running.environ["MOCK_KEY"]
    running.write("[aliases]", '[simulator]\nmode = "auto"\n[aliases]')
    changes = await running.reloader.reload()
    assert "the simulator is on" in changes.changed
    assert "SIMULATED" in caplog.text
    client = await RawClient.connect(running.server)
    sent = b'{"model":"a","messages":[{"role":"user","content":"hi"}]}'
    await client.post(sent, extra=b"x-sim-latency-ms: 0\r\n")
    status, fields, _ = await client.response()
    assert (status, fields[b"x-inferoute-simulated"]) == (200, b"1")
    assert running.server.gateway.catalog.deployments["mock/m"].row("chat", False).speed.count == 1.0
    running.environ["MOCK_KEY"] = "k"
    changes = await running.reloader.reload()
    assert changes.changed == ["key of provider mock changed", "the simulator is off"]
    # Made-up answers teach nothing of real ones.
    assert running.server.gateway.catalog.deployments["mock/m"].row("chat", False).speed.count == 0.0
    await client.post(sent)
    status, fields, _ = await client.response()
    assert (status, b"x-inferoute-simulated" in fields) == (200, False)


def adding(name: str, *models: str):
    """An edit."""
    return lambda text: set_alias(text, name, {"models": [*models]})


async def test_an_edit_is_written_and_in_effect(running):
    changes = await running.reloader.edit(adding("b", "mock/m"))
    assert changes.changed == ["alias b added"]
    assert running.path.read_text() == running.text + 'b = ["mock/m"]\n'
    assert await running.status("b") == 200
    # What this process wrote is no change to the watcher, and the next edit builds on it.
    assert not running.reloader._file.has_changed()
    assert not running.reloader._file.has_changed()
    await running.reloader.edit(adding("c", "b"))
    assert (await running.status("b"), await running.status("c")) == (200, 200)


async def test_an_edit_that_is_a_mistake_or_of_a_file_that_somebody_changed_is_not_written(running):
    with pytest.raises(ConfigError):
        await running.reloader.edit(adding("b", "mock/none"))
    assert (running.path.read_text(), await running.status("b")) == (running.text, 404)
    running.write("a = ", "theirs = ")
    with pytest.raises(Irreplaceable, match="changed meanwhile"):
        await running.reloader.edit(adding("b", "mock/m"))
    assert (running.path.read_text(), await running.status("b")) == (running.text, 404)
    await running.reloader.reload()
    await running.reloader.edit(adding("b", "mock/m"))
    assert (await running.status("theirs"), await running.status("b")) == (200, 200)


async def test_edits_at_the_same_time_are_all_kept(running):
    names = [f"n{number}" for number in range(5)]
    await asyncio.gather(*(running.reloader.edit(adding(name, "a")) for name in names))
    assert {*names, "a"} == set(running.server.gateway.config.aliases)
    assert all(name in running.path.read_text() for name in names)


async def test_without_a_file(start):
    server = await start('[providers.p]\nbase_url = "http://127.0.0.1:1/v1"\n[models."p/m"]\n')
    with pytest.raises(Irreplaceable, match="not started from a file"):
        await server.reloader.reload()
    with pytest.raises(Irreplaceable, match="not started from a file"):
        await server.reloader.edit(str)
    await server.reloader.check()


async def test_the_watcher_runs_by_itself(running, monkeypatch):
    running.write("a = ", "b = ")
    await until(lambda: "b" in running.server.gateway.config.aliases)


async def test_whether_a_key_is_needed_follows_the_file(provider, tmp_path):
    text = TEXT.format(url=provider.url).replace("127.0.0.1:0", "0.0.0.0:0", 1) + "[auth]\nrequired = false\n"
    made = Running(tmp_path / "routes.toml", text)
    await made.start()
    try:
        assert made.server.gateway.keys.is_open
        made.write("required = false", "required = true")
        await made.reloader.reload()
        assert not made.server.gateway.keys.is_open
    finally:
        await made.server.close()
