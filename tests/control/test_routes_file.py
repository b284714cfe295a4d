"""routes.toml on disk: every file, link and permission is real, but for one refusal."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from proxy.config.parse import parse
from proxy.config.settings import Listen
from proxy.config.tables import ConfigError
from proxy.control import routes_file
from proxy.control.routes_file import Irreplaceable, RoutesFile, Unreadable, files_beside, is_open_to_all

TEXT = '[providers.a]\nbase_url = "http://a/v1"\n[models."a/m"]\n'


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "routes.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def file(path) -> RoutesFile:
    file = RoutesFile(path)
    file.load()
    return file


def looks(file: RoutesFile, *others: str) -> list[bool]:
    return [file.has_changed(others) for _ in range(3)]


# ---------------------------------------------------------------------- reading
def test_loading(path):
    file = RoutesFile(path, {"listen": (Listen("127.0.0.1", 7),), "workers": 2})
    config = file.load()
    assert (config.server.listen, config.server.workers, file.text) == ((Listen("127.0.0.1", 7),), 2, TEXT)
    assert looks(file) == [False] * 3


def test_ends_of_lines_are_kept_and_count_as_one(path):
    path.write_bytes(TEXT.replace("\n", "\r\n").encode() + b"x = 1\r\n")
    file = RoutesFile(path)
    assert file.read().text.count("\r\n") == 4
    with pytest.raises(ConfigError, match=":4:1: unknown setting 'x'"):
        file.load()


@pytest.mark.parametrize("kind", ["missing", "directory", "binary"])
def test_what_cannot_be_read(tmp_path, kind):
    path = tmp_path / "x.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(Unreadable, match=f"^can't read {path}: "):
        RoutesFile(path).load()


# ---------------------------------------------------------------------- watching
def test_a_change_is_told_once_and_when_it_has_come_to_rest(file, path):
    path.write_text(TEXT + "# half")
    assert not file.has_changed()
    path.write_text(TEXT + "# half and the rest")
    assert looks(file) == [False, True, False]
    path.unlink()
    assert looks(file) == [False, True, False]
    path.write_text(TEXT)
    assert looks(file) == [False, True, False]
    stamp = file.replace(TEXT + "# more")
    assert stamp == routes_file.stamp_of(path)
    file.saw(stamp)
    assert looks(file) == [False] * 3


def test_a_file_swapped_by_a_link_as_kubernetes_does(tmp_path):
    """routes.toml -> ..data/routes.toml, ..data -> the folder of a version."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "routes.toml").write_text(TEXT)
        os.utime(tmp_path / version / "routes.toml", (1, 1))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "routes.toml").symlink_to("..data/routes.toml")
    file = RoutesFile(tmp_path / "routes.toml")
    file.load()
    assert looks(file) == [False] * 3
    (tmp_path / "new").symlink_to("two")
    os.replace(tmp_path / "new", tmp_path / "..data")
    assert looks(file) == [False, True, False]


def test_the_files_beside_it_are_watched_too(file, tmp_path):
    key = tmp_path / "key"
    key.write_text("one")
    assert looks(file, str(key)) == [False] * 3  # it is new to the watcher, that is all
    key.write_text("other")
    assert looks(file, str(key)) == [False, True, False]
    text = TEXT.replace("[providers.a]", '[providers.a]\napi_key_file = "k"\nca_file = "ca"', 1)
    text = text.replace("http:", "https:")
    assert files_beside(parse(text)) == ["k", "ca"]
    text += '[server]\ntls_cert = "c"\ntls_key = "t"\n'
    assert files_beside(parse(text)) == ["k", "ca", "c", "t"]


# ---------------------------------------------------------------------- replacing
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_replacing_keeps_the_mode_and_leaves_nothing_behind(file, path, mode):
    path.chmod(mode)
    inode = path.stat().st_ino
    file.replace("new\r\ntext ü")
    assert path.read_bytes() == "new\r\ntext ü".encode()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_ino != inode
    assert os.listdir(path.parent) == ["routes.toml"]


@pytest.mark.parametrize(("may_give", "left"), [(("uid", "gid"), 0o664), (("gid",), 0o664), ((), 0o604)])
def test_what_its_group_may_is_not_given_to_another(file, path, monkeypatch, may_give, left):
    """Only root can make this happen in earnest, and root is not refused: so the refusal is made up."""
    given = []

    def fchown(_descriptor: int, uid: int, gid: int) -> None:
        if (uid != -1 and "uid" not in may_give) or "gid" not in may_give:
            raise PermissionError
        given.append((uid != -1, gid))

    monkeypatch.setattr(os, "fchown", fchown)
    path.chmod(0o664)
    file.replace("new")
    assert stat.S_IMODE(path.stat().st_mode) == left
    assert given == ([("uid" in may_give, path.stat().st_gid)] if may_give else [])


def test_who_can_read_a_file(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_text("k")
        for inside, file, is_open in (
            (0o755, 0o644, True), (0o711, 0o604, True), (0o755, 0o640, False), (0o750, 0o644, False),
        ):  # fmt: skip
            os.chmod(folder, inside)
            path.chmod(file)
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(path)
            assert is_open_to_all(str(path)) is is_open
            assert is_open_to_all(str(tmp_path / "link")) is is_open
    assert not is_open_to_all(str(path))  # it has gone


def test_a_links_target_is_replaced_and_not_the_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "r.toml").write_text(TEXT)
    (tmp_path / "routes.toml").symlink_to("real/r.toml")
    file = RoutesFile(tmp_path / "routes.toml")
    file.load()
    file.replace("new")
    assert (tmp_path / "routes.toml").is_symlink()
    assert (tmp_path / "real" / "r.toml").read_text() == "new"
    assert os.listdir(tmp_path / "real") == ["r.toml"]


def test_somebody_elses_change_is_not_lost_not_even_while_the_text_goes_to_the_disk(file, path, monkeypatch):
    real = os.fsync

    def slow(descriptor: int) -> None:
        real(descriptor)
        path.write_text("# somebody's\n")

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(Irreplaceable, match="was changed meanwhile"):
        file.replace(TEXT + "# more")
    assert path.read_text() == "# somebody's\n"
    assert os.listdir(path.parent) == [path.name]
    path.write_text(TEXT + "# theirs")
    with pytest.raises(Irreplaceable, match="was changed meanwhile"):
        file.replace("new")
    assert path.read_text() == TEXT + "# theirs"
    path.unlink()
    with pytest.raises(Irreplaceable, match="can't read"):
        file.replace("new")


def test_a_file_that_cannot_be_replaced_stays_as_it_is(file, path):
    """As with a bind mount or a full disk: the rename fails. Here the target is a directory by then."""
    file.path.unlink()
    path.mkdir()
    with pytest.raises(Irreplaceable):
        file.replace("new")
    assert os.listdir(path.parent) == ["routes.toml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_read_only(file, path, what):
    target = path if what == "file" else path.parent
    before = stat.S_IMODE(target.stat().st_mode)
    target.chmod(before & ~0o222)
    try:
        with pytest.raises(Irreplaceable, match="can't be replaced: "):
            file.replace("new")
    finally:
        target.chmod(before)
    assert path.read_text() == TEXT
