"""What governs: here what it keeps for the next start. Its admin API, its reloads and its start are in
test_admin.py, test_reload.py and test_server.py.
"""

from __future__ import annotations

import pytest

from proxy import control
from proxy.listeners import StartError
from proxy.rowstate import dump
from tests.conftest import until
from tests.fakes import Call, RawClient

TEXT = """
[state]
path = "{path}"
[providers.a]
base_url = "{url}"
auth = "none"
[models."a/m"]
input_price = 1
output_price = 1
{more}
"""
USAGE = b'{"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}'


async def answers(call: Call) -> None:
    while True:
        await call.request()
        await call.answer(USAGE)


@pytest.fixture
def text(provider, tmp_path):
    provider.script = answers
    return lambda more="": TEXT.format(path=tmp_path / "t.db", url=provider.url, more=more)


async def ask(server, times: int = 5) -> None:
    client = await RawClient.connect(server)
    for _ in range(times):
        await client.post(
            b'{"model":"a/m","messages":[{"role":"user","content":"hi"}]}', extra=b"x-sim-latency-ms: 0\r\n"
        )
        assert (await client.response())[0] == 200


def row(server):
    return server.gateway.catalog.deployments["a/m"].row("chat", False)


async def test_a_restart_is_warm(start, text, caplog):
    server = await start(text())
    await ask(server)
    before = dump(row(server))
    await server.close()
    with caplog.at_level("INFO"):
        server = await start(text())
    assert "1 rows are as they were" in caplog.text
    after = dump(row(server))
    for part in ("speed", "charges", "success"):
        for name, value in before[part].items():
            if name not in ("stamp_s", "_stamp_s", "changed_s", "ratios"):
                assert after[part][name] == pytest.approx(value), (part, name)
    assert after["own"]["used_s"] == pytest.approx(before["own"]["used_s"], abs=0.1)
    await ask(server)
    assert row(server).snapshot(0.0)["finished"] == 10


async def test_a_model_that_moved_starts_anew(start, text):
    server = await start(text())
    await ask(server)
    await server.close()
    server = await start(text('upstream = "another"'))
    assert row(server).speed.count == 0.0


async def test_it_is_written_while_it_runs(start, text, monkeypatch):
    monkeypatch.setattr(control, "SAVE_S", 0.01)
    first = await start(text())
    await ask(first)
    second = None

    async def is_there() -> bool:
        nonlocal second
        second = await start(text())
        return bool(row(second).speed.count)

    for _ in range(200):  # as after a kill: the first was not closed
        if await is_there():
            break
        await second.close()
    assert row(second).speed.count == 5.0


async def test_made_up_answers_teach_nothing_of_real_ones(start, text):
    simulated = text('[simulator]\nmode = "always"')
    server = await start(simulated)
    await ask(server)
    assert row(server).speed.count == 5.0
    await server.close()
    server = await start(text())
    assert row(server).speed.count == 0.0
    await ask(server, 2)
    await server.close()
    server = await start(simulated)
    assert row(server).speed.count == 0.0
    await server.close()
    server = await start(text())
    assert row(server).speed.count == 2.0


async def test_a_start_that_fails_writes_nothing(start, text):
    server = await start(text())
    await ask(server, 1)
    [address] = server.addresses
    with pytest.raises(StartError):
        await start(f'[server]\nlisten = ["127.0.0.1:{address.port}"]\n' + text())
    await ask(server, 2)
    await server.close()
    server = await start(text())
    assert row(server).speed.count == 3.0


async def test_without_a_file_it_runs_all_the_same(start, text, tmp_path, caplog):
    server = await start(text().replace("t.db", "nowhere/t.db"))
    assert "nothing is kept" in caplog.text
    await ask(server)
    await until(lambda: row(server).speed.count == 5.0)


async def test_nothing_is_served_while_keys_cant_be_read(start, text, tmp_path):
    """There may be some, and without them everybody on this machine would be let in."""
    (tmp_path / "t.db").mkdir()
    with pytest.raises(StartError, match="may hold keys"):
        await start(text())
