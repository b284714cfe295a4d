"""The keys of a running gateway, and a storage that fails; every database is real."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from proxy.access.accounts import Accounts
from proxy.access.key import Key, KeySettingsError, digest_of
from proxy.access.permits import Month
from proxy.config.parse import parse
from proxy.config.settings import Config
from proxy.control import key_store as keystore_module
from proxy.control.key_store import Keyring, KeyStore, NotStored
from proxy.control.usage_index import UsedBefore
from proxy.errors import StartError
from proxy.storage.database import Database
from proxy.storage.key_table import NameTaken, UnknownKey, load_keys, make_key, store_key
from tests.support.fakes import RawClient
from tests.support.keys import CONFIG, accounts_of, admin, ask, check_error, expire, key_of, make, write_old

KNOWN = ["mock/m", "premium"]


def configured(text: str) -> Config:
    return parse(text + CONFIG.format(url="http://127.0.0.1:1/v1", more=""))


class Kept:
    """A store on a file, and what it told those who serve."""

    def __init__(self, path: Path, text: str = "", accounts: Accounts | None = None) -> None:
        self.path = path
        self.state = Database(str(path))
        self.accounts = accounts or accounts_of(1, None)
        self.store = KeyStore(self.state, self.accounts, configured(text))
        self.told: list[Keyring] = []

    async def open(self, used: UsedBefore | None = None) -> None:
        await self.state.open()
        await self.store.open(used or UsedBefore())
        await self.store.serve(self._take)

    async def _take(self, keyring: Keyring) -> None:
        self.told.append(keyring)

    def ids(self) -> list[str]:
        return [key.id for key, _ in self.store.keyring.keys]

    def command(self) -> contextlib.closing[sqlite3.Connection]:
        """Another connection, such as a command has."""
        return contextlib.closing(sqlite3.connect(self.path, isolation_level=None))

    def put(self, key: Key) -> None:
        """As a command does."""
        with self.command() as database:
            store_key(database, key)


@pytest.fixture
async def kept(tmp_path) -> AsyncIterator[Callable[..., Awaitable[Kept]]]:
    opened: list[Kept] = []

    async def make(text: str = "", used: UsedBefore | None = None) -> Kept:
        made = Kept(tmp_path / "t.db", text)
        opened.append(made)
        await made.open(used)
        return made

    yield make
    for made in opened:
        await made.state.close()


@pytest.fixture
async def made(kept):
    return await kept()


# ---------------------------------------------------------------------- making and changing
async def test_create_edit_revoke(kept, caplog):
    caplog.set_level(logging.DEBUG)
    made = await kept()
    store = made.store
    before = time.time()
    key, secret = await store.create({"name": "prod", "rpm": 5, "models": "mock/m"}, KNOWN)
    assert before - 1 <= key.created <= time.time()
    assert secret.startswith("th-")
    assert [row["id"] for row in store.rows()] == [key.id]
    assert store.row(key)["limits"]["rpm"] == 5
    assert store.row(key)["last_used"] is None
    changed = await store.edit("prod", {"rpm": None, "tpm": 7, "name": "other"}, KNOWN)
    assert (changed.rpm, changed.tpm, changed.name, changed.models) == (None, 7, "other", ("mock/m",))
    assert store.names() == {key.id: "other"}
    revoked = await store.revoke(key.id)
    assert revoked.revoked >= key.created
    assert await store.revoke(key.id) == revoked  # nothing is left to do
    assert store.find("other") == revoked
    assert "(prod)" in caplog.text
    assert secret[3:] not in caplog.text and secret[3:] not in repr(made.told)
    assert [[key for key, _ in ring.keys] for ring in made.told] == [[key], [changed], [revoked]]
    with made.command() as database:
        assert load_keys(database) == [revoked]


async def test_what_cant_be_changes_nothing(made):
    store = made.store
    key, _ = await store.create({"name": "prod", "models": ["mock/m"]}, KNOWN)
    del made.told[:]
    for given in ({"rpm": 0}, {"name": ""}, {"models": ["premiun"]}, {"nonsense": 1}):
        for call in (store.create({"name": "x", **given}, KNOWN), store.edit(key.id, given, KNOWN)):
            with pytest.raises(KeySettingsError):
                await call
    with pytest.raises(KeySettingsError, match="needs a 'name'"):
        await store.create({"rpm": 5}, KNOWN)
    for call in (store.edit("none", {"rpm": 1}, KNOWN), store.revoke("none")):
        with pytest.raises(UnknownKey):
            await call
    for given in ({}, {"name": "prod"}):
        assert await store.edit(key.id, given, KNOWN) == key
    assert (made.told, made.ids()) == ([], [key.id])


async def test_a_model_that_has_left_may_stay_in_a_list(made):
    key, _ = await made.store.create({"name": "prod", "models": ["mock/m", "premium"]}, KNOWN)
    changed = await made.store.edit(key.id, {"models": ["mock/m", "premium"], "rpm": 1}, ["mock/n"])
    assert changed.rpm == 1
    with pytest.raises(KeySettingsError, match="'gone/m'"):
        await made.store.edit(key.id, {"models": ["mock/m", "gone/m"]}, ["mock/n"])


async def test_accounts_are_opened_with_what_was_used(made, kept):
    one, _ = await made.store.create({"name": "one"}, KNOWN)
    await made.store.create({"name": "two"}, KNOWN)
    again = await kept(used=UsedBefore({one.id: Month(12, 34, 56.0)}))
    rows = {row["name"]: row for row in again.store.rows()}
    assert (rows["one"]["month"], rows["one"]["last_used"]) == ({"tokens": 12, "usd": 34e-9}, 56.0)
    assert rows["two"]["month"] == {"tokens": 0, "usd": 0.0}
    assert {slot for _, slot in again.store.keyring.keys} == {0, 1}
    three, _ = await again.store.create({"name": "three"}, KNOWN)
    assert {key.id: slot for key, slot in again.store.keyring.keys}[three.id] == 2
    assert rows["one"]["month"] == {row["id"]: row for row in again.store.rows()}[one.id]["month"]


async def test_there_is_an_end_to_how_many_and_more_than_there_is_room_for_is_said(kept, monkeypatch, caplog):
    monkeypatch.setattr(keystore_module, "MAX_KEYS", 2)
    made = await kept()
    for name in "ab":
        await made.store.create({"name": name}, KNOWN)
    with pytest.raises(KeySettingsError, match="There are 2 keys and groups already"):
        await made.store.create({"name": "c"}, KNOWN)
    before = made.ids()
    assert len(before) == 2
    made.put(key_of("key_3", b"3"))
    await made.store.check()
    assert sorted(made.ids()) == sorted(before)
    assert "there are 3 keys and groups, and room for 2" in caplog.text
    assert len(list(made.store.rows())) == 3
    again = (await kept()).ids()
    assert (again[0], len(again)) == ("key_3", 2)  # the oldest


async def test_a_command_is_heeded_a_moment_after_it_wrote(made, kept):
    key, _ = await made.store.create({"name": "first"}, KNOWN)
    with made.command() as database:
        store_key(database, key_of("key_2", b"2", name="second"))
        store_key(database, key_of(key.id, b"x", name="first", rpm=5))
    assert (await made.store.revoke("second")).revoked is not None
    assert (await made.store.revoke("first")).rpm == 5
    made = await kept()
    key, _ = await made.store.create({"name": "first"}, KNOWN)
    made.put(key_of(key.id, b"x", name="first", rpm=5))
    changed = await made.store.edit(key.id, {"tpm": 7}, KNOWN)
    assert (changed.rpm, changed.tpm) == (5, 7)


async def test_a_name_is_of_one_key_in_use(made):
    first, _ = await made.store.create({"name": "prod"}, KNOWN)
    second, _ = await made.store.create({"name": "test"}, KNOWN)
    del made.told[:]
    for call in (
        made.store.create({"name": "prod"}, KNOWN),
        made.store.edit("test", {"name": "prod"}, KNOWN),
    ):
        with pytest.raises(NameTaken):
            await call
    made.put(key_of("key_3", b"3", name="other"))  # which a gateway hasn't heard of yet
    with pytest.raises(NameTaken, match="taken by key_3"):
        await made.store.create({"name": "other"}, KNOWN)
    assert set(made.ids()) == {first.id, second.id, "key_3"}
    await made.store.revoke("prod")
    again, _ = await made.store.create({"name": "prod"}, KNOWN)
    assert made.store.find("prod") == again


async def test_names_that_several_keys_have_from_before_are_said_once(kept, tmp_path, caplog):
    twins = [key_of(f"key_{number}", b"%d" % number, name="twin") for number in (1, 2)]
    write_old(
        tmp_path / "t.db", *twins, key_of("key_3", b"3"), key_of("key_4", b"4", name="key_3", revoked=1)
    )
    made = await kept()
    assert made.ids() == ["key_1", "key_2", "key_3", "key_4"]
    await made.store.check()
    [said] = [text for text in caplog.messages if "several keys in use" in text]
    assert said.startswith("1 names belong to several keys in use ('twin': key_1, key_2): ")
    with pytest.raises(UnknownKey, match="There are 2 keys called 'twin'"):
        made.store.find("twin")
    assert (await made.store.edit("key_1", {"rpm": 5}, KNOWN)).rpm == 5


async def test_a_rotation(kept, caplog):
    caplog.set_level(logging.DEBUG)
    made = await kept()
    key, first = await made.store.create({"name": "prod", "rpm": 5}, KNOWN)
    del made.told[:]
    rotated, second = await made.store.rotate("prod", {})
    assert second != first and digest_of(second.encode()) == rotated.digest
    assert (rotated.id, rotated.rpm, rotated.old_digest) == (key.id, 5, key.digest)
    assert rotated.old_until - rotated.rotated == 86_400
    assert abs(rotated.rotated - time.time()) < 60
    assert [[key for key, _ in ring.keys] for ring in made.told] == [[rotated]]
    with made.command() as database:
        assert load_keys(database) == [rotated]
    for given, wanted, error in (
        ({"overlap": "1y"}, "prod", KeySettingsError),
        ({"rpm": 5}, "prod", KeySettingsError),
        ({}, "nobody", UnknownKey),
    ):
        with pytest.raises(error):
            await made.store.rotate(wanted, given)
    await made.store.revoke("prod")
    with pytest.raises(KeySettingsError, match="was revoked"):
        await made.store.rotate("prod", {})
    assert len(made.told) == 2
    assert f"key {key.id} (prod) has a new secret; the former one works for 86400 s" in caplog.text
    for secret in (first, second):
        assert secret[3:] not in caplog.text and secret[3:] not in repr(made.told)


async def test_a_rotation_outlives_the_process(made, kept):
    await made.store.create({"name": "prod"}, KNOWN)
    rotated, _ = await made.store.rotate("prod", {"overlap": "1h"})
    again = await kept()
    assert again.store.find("prod") == rotated
    assert again.store.row(rotated)["old_secret_until"] == rotated.old_until == rotated.rotated + 3600


# ---------------------------------------------------------------------- who is let in without one


PUBLIC = '[server]\nlisten = ["0.0.0.0:1"]\n'
REQUIRED = "[auth]\nrequired = true\n"
OPEN = "[auth]\nrequired = false\n"


@pytest.mark.parametrize(("text", "without_keys", "with_keys"), [
    ("", True, False), ('[server]\nlisten = ["127.0.0.1:1", "unix:/x", "[::1]:2"]', True, False),
    (PUBLIC, False, False), ('[server]\nlisten = ["127.0.0.1:1", "0.0.0.0:1"]\n', False, False),
    (REQUIRED, False, False),  # once it is written it means just that, on loopback too
    ('[server]\nlisten = ["unix:/x"]\n' + REQUIRED, False, False), (PUBLIC + REQUIRED, False, False),
    (OPEN, True, True), (PUBLIC + OPEN, True, True),
])  # fmt: skip
async def test_when_a_key_is_needed(kept, text, without_keys, with_keys):
    made = await kept(text)
    assert made.store.keyring.is_open == without_keys
    key, _ = await made.store.create({"name": "x"}, KNOWN)
    assert made.told[-1].is_open == with_keys
    await made.store.revoke(key.id)
    assert made.told[-1].is_open == with_keys


async def test_whether_one_is_needed_follows_the_configuration(kept):
    made = await kept(PUBLIC)
    await made.store.configure(configured(PUBLIC + "[routing]\nmax_attempts = 2"))
    assert made.told == []
    await made.store.configure(configured(PUBLIC + OPEN))
    assert [ring.is_open for ring in made.told] == [True]
    await made.store.configure(configured(""))
    await made.store.configure(configured(REQUIRED))
    assert [ring.is_open for ring in made.told] == [True, False]


@pytest.mark.parametrize(("text", "said"), [
    ("", "anyone who can reach this gateway can use it"), (PUBLIC, "make it with 'tokenhub keys create'"),
    (REQUIRED, "make it with 'tokenhub keys create'"), (PUBLIC + OPEN, ""),
])  # fmt: skip
async def test_what_is_said_at_the_start_without_keys(kept, caplog, text, said):
    caplog.set_level(logging.INFO, "tokenhub.keys")
    await kept(text)
    assert said in caplog.text and bool(said) == bool(caplog.text)


@pytest.mark.parametrize(("text", "is_said"), [("", True), (PUBLIC, True), (REQUIRED, True), (OPEN, False)])
async def test_a_start_with_keys_of_which_none_is_in_use(kept, caplog, tmp_path, text, is_said):
    before = await kept()
    await before.store.create({"name": "a"}, KNOWN)
    await before.store.create({"name": "b", "expires": "1d"}, KNOWN)
    await before.store.revoke("a")
    await before.state.close()
    caplog.clear()
    await (await kept(text)).state.close()  # one is left
    assert caplog.text == ""
    expire(tmp_path / "t.db", "b")
    made = await kept(text)
    assert made.store.is_open is not is_said
    assert ("all 2 keys are revoked or expired, and requests need one" in caplog.text) is is_said
    assert ("keys edit KEY --expires 90d" in caplog.text) is is_said


# ---------------------------------------------------------------------- what a command writes
async def test_a_change_by_a_command_is_taken_on(kept, caplog):
    caplog.set_level(logging.INFO, "tokenhub.keys")
    made = await kept()
    first, _ = await made.store.create({"name": "first"}, KNOWN)
    del made.told[:]
    await made.store.check()
    assert made.told == []
    second, _ = make_key({"name": "second"}, 5.0)
    made.put(second)
    await made.store.check()
    assert (made.ids(), [len(ring.keys) for ring in made.told]) == ([second.id, first.id], [2])
    assert caplog.text.count("changed by a command") == 1
    with made.command() as database:
        database.execute("DELETE FROM keys WHERE id = ?", (first.id,))
    await made.store.check()
    await made.store.check()
    assert (made.ids(), len(made.told)) == ([second.id], 2)


async def test_a_change_elsewhere_in_the_file_is_none_of_the_keys(made):
    await made.store.create({"name": "first"}, KNOWN)
    with made.command() as database:
        database.execute("CREATE TABLE other (a)")
    await made.store.check()
    assert len(made.told) == 1


# ---------------------------------------------------------------------- storage that fails
@contextlib.asynccontextmanager
async def trouble(made: Kept, kind: str) -> AsyncIterator[str]:
    """What the error says meanwhile."""
    run = made.state.run
    await run(lambda database: database.execute("PRAGMA busy_timeout = 0"))  # don't wait for who has the file
    if kind == "read-only":
        await run(lambda database: database.execute("PRAGMA query_only = ON"))
        yield "readonly"
        await run(lambda database: database.execute("PRAGMA query_only = OFF"))
    elif kind == "locked":
        with made.command() as database:
            database.execute("BEGIN EXCLUSIVE")
            yield "locked"
            database.execute("ROLLBACK")
    elif kind == "closed":
        await made.state.close()
        yield "closed"
        await made.state.open()


async def revoke_unstored(made: Kept, wanted: str) -> None:
    async with trouble(made, "locked"):
        with pytest.raises(NotStored):
            await made.store.revoke(wanted)


def revocations(made: Kept) -> dict[str, int | None]:
    """As they are stored."""
    with made.command() as database:
        return {key.name: key.revoked for key in load_keys(database)}


@pytest.mark.parametrize("kind", ["read-only", "locked", "closed"])
async def test_storage_that_fails(made, kind, caplog):
    store = made.store
    key, _ = await store.create({"name": "first"}, KNOWN)
    leaked, _ = await store.create({"name": "leaked"}, KNOWN)
    async with trouble(made, kind) as said:
        with pytest.raises(NotStored, match=rf"^The key can't be stored in .*t\.db: .*{said}.*\.$"):
            await store.create({"name": "second"}, KNOWN)
        for call in (store.edit(key.id, {"rpm": 1}, KNOWN), store.rotate(key.id, {})):
            with pytest.raises(NotStored, match=said):
                await call
        assert store.find("first") == key
        await store.check()
        assert set(made.ids()) == {key.id, leaked.id}
        # A leaked key is of no use from now on, whatever the disk does.
        for _ in range(2):  # to ask again is no way to hear that it is stored
            with pytest.raises(NotStored, match=r"only until the gateway is restarted\.$"):
                await store.revoke("leaked")
        assert store.find("leaked").revoked is not None
        told = {key.id: key for key, _ in made.told[-1].keys}
        assert told[leaked.id].revoked is not None and told[key.id].revoked is None
        with pytest.raises(KeySettingsError, match="was revoked"):  # nor is there a way back
            await store.rotate("leaked", {})
    # What others write meanwhile doesn't bring it back.
    at = store.find("leaked").revoked
    assert at is not None
    assert revocations(made) == {"first": None, "leaked": None}
    made.put(key_of("key_3", b"3"))
    await store.check()
    assert "key_3" in made.ids()
    assert revocations(made)["leaked"] == at
    assert (await store.revoke("leaked")).revoked == at
    assert revocations(made)["leaked"] == at
    assert (await store.create({"name": "second"}, KNOWN))[0].id in made.ids()


async def test_a_revocation_that_could_not_be_stored_outlives_an_edit_and_is_stored_later(made, caplog):
    leaked, _ = await made.store.create({"name": "leaked"}, KNOWN)
    other, _ = await made.store.create({"name": "other"}, KNOWN)
    for key, settings in ((leaked, {"name": "renamed"}), (other, {"rpm": 3})):
        await revoke_unstored(made, key.id)
        at = made.store.find(key.id).revoked
        assert at is not None
        assert (await made.store.edit(key.id, settings, KNOWN)).revoked == at
        assert made.store.find(key.id).revoked == at
    caplog.set_level(logging.INFO)
    # Also without anybody's doing, as soon as the storage takes it.
    third, _ = await made.store.create({"name": "third"}, KNOWN)
    await revoke_unstored(made, "third")
    await made.store.check()
    assert f"key {third.id}: its revocation is stored now" in caplog.text
    assert None not in revocations(made).values()


async def test_a_revocation_whose_row_has_gone_meanwhile(made):
    await made.store.create({"name": "leaked"}, KNOWN)
    await revoke_unstored(made, "leaked")
    with made.command() as database:
        database.execute("DELETE FROM keys")
        store_key(database, key_of("key_2", b"2"))
    await made.store.check()
    assert made.ids() == ["key_2"]


async def test_a_full_disk(made):
    await made.state.run(lambda database: database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    [pages] = await made.state.run(lambda database: database.execute("PRAGMA page_count").fetchone())
    await made.state.run(lambda database: database.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    count = 0

    async def fill() -> None:
        nonlocal count
        while count < 1000:
            await made.store.create({"name": f"{count:0100}"}, KNOWN)
            count += 1

    with pytest.raises(NotStored, match="full"):
        await fill()
    assert count > 0
    assert len(made.ids()) == len(list(made.store.rows())) == count
    with made.command() as database:
        assert len(load_keys(database)) == count
    await made.store.revoke(made.ids()[0])  # which needs no more room
    await made.state.run(lambda database: database.execute("PRAGMA max_page_count = 1000000").fetchone())
    await made.store.create({"name": "x"}, KNOWN)


async def test_trouble_with_reading_is_said_once_and_what_is_known_stays(made, caplog):
    key, _ = await made.store.create({"name": "first"}, KNOWN)
    with made.command() as database:
        database.execute("INSERT INTO keys VALUES ('key_odd', x'00', 1, '{}')")
    for _ in range(3):
        await made.store.check()
    assert (made.ids(), caplog.text.count("those that are known stay")) == ([key.id], 1)
    assert "key_odd" in caplog.text
    with made.command() as database:
        database.execute("DELETE FROM keys WHERE id = 'key_odd'")
    await made.store.check()
    made.put(key_of("key_2", b"2"))
    await made.store.check()
    assert made.ids() == ["key_2", key.id]


@pytest.mark.parametrize(
    "settings", ["{}", '{"name":"x","from":"a later version"}', '{"name":"x","models":5}', "nonsense"]
)
async def test_a_start_with_a_row_that_cant_be_read(made, kept, settings):
    await made.store.create({"name": "first"}, KNOWN)
    with made.command() as database:
        database.execute("INSERT INTO keys VALUES ('key_odd', x'00', 1, ?)", (settings,))
    with pytest.raises(StartError, match=r"the keys can't be read from .*t\.db"):
        await kept()


# ---------------------------------------------------------------------- in a gateway
async def test_a_gateway_whose_storage_fails(provider, start, tmp_path):
    path = tmp_path / "t.db"
    server = await start(CONFIG.format(url=provider.url, more=f'[state]\npath = "{path}"'))
    id, secret = await make(server)
    leaked, its_secret = await make(server, name="leaked")
    client = await RawClient.connect(server)
    wrong = 401, "authentication_error", "invalid_api_key"
    state = server._control._database
    await state.run(lambda database: database.execute("PRAGMA query_only = ON"))
    for method, where, body, said in (
        ("POST", "", {"name": "x"}, "readonly"), ("PATCH", f"/{id}", {"rpm": 1}, str(path)),
        ("DELETE", f"/{leaked}", None, "is revoked, but only until"),
    ):  # fmt: skip
        status, answer = await admin(server, method, f"/keys{where}", body)
        error = answer["error"]
        assert (status, error["code"], error["type"]) == (503, "storage_failed", "api_error")
        assert said in error["message"]
    check_error(await ask(client, its_secret), *wrong)
    assert (await ask(client, secret))[0] == 200
    check_error(await ask(client, b"th-" + b"x" * 43), *wrong)
    status, rows = await admin(server, "GET", "/keys")
    assert (status, len(rows["data"])) == (200, 2)
    await state.run(lambda database: database.execute("PRAGMA query_only = OFF"))
    assert (await admin(server, "DELETE", f"/keys/{leaked}"))[0] == 200


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_is_another_now(made, caplog, is_replaced):
    key, _ = await made.store.create({"name": "first"}, KNOWN)
    made.path.rename(made.path.with_name("moved.db"))
    if is_replaced:
        made.path.write_bytes(b"")
    for _ in range(3):
        await made.store.check()
    assert caplog.text.count("the file was deleted or replaced") == 1
    for call in (made.store.create({"name": "second"}, KNOWN), made.store.edit(key.id, {"rpm": 1}, KNOWN)):
        with pytest.raises(NotStored, match="was deleted or replaced, which needs a restart"):
            await call
    assert made.ids() == [key.id]
    with pytest.raises(NotStored, match="only until"):
        await made.store.revoke(key.id)
    assert made.store.find(key.id).revoked is not None


async def test_keys_with_a_monthly_limit_are_gone_through_in_turns(kept):
    store = (await kept()).store
    names = [f"k{number}" for number in range(5)]
    for name in names:
        await store.create({"name": name, "monthly_tokens": 10}, KNOWN)
    await store.create({"name": "unlimited", "rpm": 5}, KNOWN)

    def turn(count: int) -> list[str]:
        return [key.name for key, used in store.used_in_turn(count) if used.tokens == 0]

    assert turn(9) == turn(5) == names
    assert [*turn(2), *turn(2), *turn(2), *turn(2)] == ["k0", "k1", "k2", "k3", "k4", "k0", "k1"]
    await store.revoke("k0")
    assert len(turn(9)) == 3  # from where it was
