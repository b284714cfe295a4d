"""What the tests of keys and usage at a terminal share: commands against a gateway that runs, and against its
database alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.cli.main import main
from proxy.control.routes_file import RoutesFile
from proxy.server.single import Server
from tests.storage.test_ledger_ingest import name_of

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = "t.db"
[admin]
listen = "unix:{folder}/admin.sock"
token_env = "T"
[usage]
tags = ["team", "app"]
[providers.p]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[models."p/big"]
[models."p/small"]
[aliases]
best = ["p/big"]
"""


class Stream(io.StringIO):
    """What is printed to; a terminal, or none."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


class Terminal:
    """Runs commands in a thread: they block, and the gateway is in this loop."""

    def __init__(self, capsys, is_asked: bool) -> None:
        self._capsys = capsys
        self.is_asked = is_asked

    async def run(self, *argv: str) -> tuple[int, str, str]:
        def call() -> int:
            try:
                return main(argv)
            except SystemExit as error:
                return error.code

        code = await asyncio.to_thread(call)
        out, err = self._capsys.readouterr()
        return code, out, err

    async def out(self, *argv: str) -> str:
        """What a command that does it prints; what it says beside it is in ``said``."""
        code, out, err = await self.run(*argv)
        assert code == 0, err
        self.said = err.splitlines()
        if not self.is_asked:  # the first line says where it was done
            where = self.said.pop(0)
            assert where.startswith("tokenhub: no gateway answers at unix:")
        return out

    async def json(self, *argv: str):
        found = json.loads(await self.out(*argv, "--json"))
        assert self.said == []
        return found

    async def rows(self, *argv: str):
        found = await self.json(*argv)
        assert found.keys() == {"data"}
        return found["data"]

    async def failure(self, *argv: str) -> str:
        code, out, err = await self.run(*argv)
        assert (code, out) == (1, "")
        assert err.startswith("tokenhub: ")
        assert err.count("\n") == 1
        return err


def check_refused(argv: str, said: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """A command is refused for its options, with ``said`` in its last line, before anything is made."""
    with pytest.raises(SystemExit) as caught:
        main(argv.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert not (folder / "t.db").exists()


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, in which the commands run."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("T", "s3cret")
    monkeypatch.delenv("TOKENHUB_CONFIG", raising=False)
    (folder / "routes.toml").write_text(TEXT.format(folder=folder))
    return folder


@contextlib.asynccontextmanager
async def terminal_of(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Terminal]:
    """``asked``: of a gateway that runs; ``stored``: of its database."""
    if kind == "stored":
        yield Terminal(capsys, False)
        return
    file = RoutesFile(folder / "routes.toml")
    server = Server(file.load(), {"T": "s3cret"}, file)
    await server.start()
    yield Terminal(capsys, True)
    await server.close()


def write_ledger(folder: Path, *lines: bytes) -> None:
    directory = folder / "t.db-ledger"
    directory.mkdir(exist_ok=True)
    (directory / name_of()).write_bytes(b"".join(lines))
