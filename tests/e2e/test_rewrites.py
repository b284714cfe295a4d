"""The file of the installed program, rewritten again and again under load, in every way in which people and
programs rewrite files.

How often is set by TOKENHUB_REWRITES: a few hundred times, so that the suite is run; 10,000 after changes of
how the file is read.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from proxy.server.control_plane import WATCH_S
from tests.e2e import Gateway
from tests.e2e.asking import fetch, is_whole, stream, wait_for, workers_of
from tests.e2e.load import Load

pytestmark = pytest.mark.long

REWRITES = int(os.environ.get("TOKENHUB_REWRITES", "1000"))
# A beginning of it is never a configuration: what aliases stand for comes last.
TEXT = """
[log]
format = "text"
[admin]
listen = "127.0.0.1:0"
[state]
path = "t.db"
[simulator]
mode = "always"
[aliases]
live = ["p/m"]
n{number} = ["p/m"]
[providers.p]
base_url = "https://api.example.com/v1"
api_key_env = "P_API_KEY"
[models."p/m"]
"""


class Writer:
    """Rewrites a file, each time in another way. ``valid``: the number in the last text that was whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.valid = 0
        self._rng = random.Random(5)
        self._number = 0

    def text(self) -> str:
        self._number += 1
        return TEXT.format(number=self._number)

    def write(self) -> None:
        ways = (
            self.renamed, self.in_place, self.in_pieces, self.linked, self.locked,
            self.torn, lambda: self.path.write_text(self.text() + "[[["), self.mistake,
            lambda: self.path.write_bytes(b"\xff\xfe" * 50), self.deleted, self.folder,
        )  # fmt: skip
        self.clear()
        self._rng.choice(ways)()

    def clear(self) -> None:
        """Something that can be written to, whatever was there."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)

    def renamed(self) -> None:
        """As editors do."""
        beside = self.path.with_name("new")
        beside.write_text(self.text())
        os.replace(beside, self.path)
        self.valid = self._number

    def in_place(self) -> None:
        self.path.write_text(self.text())
        self.valid = self._number

    def in_pieces(self) -> None:
        with self.path.open("w") as file:
            for line in self.text().splitlines(keepends=True):
                file.write(line)
                file.flush()
        self.valid = self._number

    def torn(self) -> None:
        text = self.text()
        self.path.write_text(text[: self._rng.randrange(len(text) - 10)])

    def mistake(self, name: str = "no_such_setting") -> None:
        self.path.write_text(self.text() + f'{name} = "x"\n')

    def deleted(self) -> None:
        self.path.unlink(missing_ok=True)

    def linked(self) -> None:
        """As Kubernetes does: a folder of the new version, and a link that is swapped."""
        folder = self.path.with_name(f"..{self._number}")
        folder.mkdir()
        (folder / self.path.name).write_text(self.text())
        beside = self.path.with_name("..data")
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder / self.path.name)
        os.replace(beside, self.path)
        self.valid = self._number

    def locked(self) -> None:
        """For root it is whole all the same."""
        self.renamed()
        self.path.chmod(0)

    def folder(self) -> None:
        self.deleted()
        self.path.mkdir()


def edit(gateway: Gateway, name: str) -> int:
    """Set an alias by the admin API; the status."""
    return fetch(gateway, "PUT", f"/admin/v1/aliases/{name}", {"models": ["p/m"]}, admin=True).status


def open_files(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def memory_kib(pids: list[int]) -> int:
    found = [re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in pids]
    return sum(int(one[1]) for one in found if one)


def is_live(gateway: Gateway, name: str) -> bool:
    """In every worker, as far as chance tells: each request is on a connection of its own."""
    return {fetch(gateway, "GET", f"/v1/models/{name}").status for _ in range(8)} == {200}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_is_rewritten_again_and_again(tmp_path, workers):
    with Gateway(tmp_path, TEXT.format(number=0), "--workers", workers) as gateway:
        writer, rng = Writer(gateway.config), random.Random(6)
        pids = [gateway.process.pid, *workers_of(gateway.process.pid)]
        files = memory = asked = 0
        edits: list[int] = []
        running = stream(gateway, 50, 120)
        begun_at = time.monotonic()
        with Load(gateway, 3, model="live") as load:
            for number in range(REWRITES // 2):
                if number == REWRITES // 8:  # warm
                    files, memory = open_files(pids), memory_kib(pids)
                writer.write()
                if rng.random() < 0.2:
                    gateway.signal(signal.SIGHUP)
                    asked += 1
                if rng.random() < 0.1:
                    edits.append(edit(gateway, f"e{number}"))
                time.sleep(rng.random() * 0.01)
                if number % 200 == 60:
                    time.sleep(1.2)  # so long that the watcher sees it at rest
            writer.clear()
            writer.mistake("no_such_thing")
            wait_for(lambda: "'no_such_thing'" in gateway.log, 30)
            time.sleep(3 * WATCH_S)  # the watcher looks at it again, and says no more
            writer.renamed()
            wait_for(lambda: is_live(gateway, f"n{writer.valid}"), 30)
            # The second where many were asked for that are not there.
            assert {fetch(gateway, "GET", "/v1/models/n0").status for _ in range(8)} <= {404, 429}
            assert edit(gateway, "last") == 201
            assert is_live(gateway, "last")
            assert is_live(gateway, f"n{writer.valid}")
            # The load's connections are there both times; a file that stays open would do so often.
            wait_for(lambda: open_files(pids) < files + 16)
            assert memory_kib(pids) - memory < 16 << 10
            print(f"{memory} KiB, then {memory_kib(pids)}; {files} files, then {open_files(pids)}")
        assert (set(load.outcomes), load.lost) == ({200}, 0)
        assert is_whole(running)
        assert set(edits) <= {200, 201, 409}
        assert 409 in edits
        held = writer.path.read_text()
        assert all(f"{name} = [" in held for name in ("live", f"n{writer.valid}", "last"))
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".gateway")]

        said = gateway.log.splitlines()
        [mistake] = [line for line in said if "'no_such_thing'" in line]
        assert re.search(r"gateway\.toml:\d+:\d+: unknown setting", mistake)
        complaints = [line for line in said if "the configuration stays as it was" in line]
        assert 0 < len(complaints) <= asked + 1 + (time.monotonic() - begun_at) / WATCH_S
        assert len(said) <= 4 * (len(complaints) + asked + len(edits) + 50)
        print(f"{dict(load.outcomes)}, {len(edits)} edits, of which {edits.count(409)} came too late")
