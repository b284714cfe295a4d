"""The groups of a running gateway; the database is real."""

from __future__ import annotations

import pytest

from proxy.access.key import KeySettingsError
from proxy.access.permits import Month
from proxy.control import key_store as keystore_module
from proxy.control.group_store import GroupStore
from proxy.control.key_store import NotStored
from proxy.control.usage_index import UsedBefore
from proxy.storage.group_table import (
    GroupInUse,
    GroupTaken,
    UnknownGroup,
    change_group,
    delete_group,
    load_groups,
)
from tests.control.test_key_store import KNOWN, Kept


@pytest.fixture
async def kept(tmp_path):
    made = Kept(tmp_path / "t.db")
    await made.open(UsedBefore({}, {"search": Month(5, 6, 7.0, 1, 2), "old": Month(9, 9, 9.0)}))
    yield made
    await made.state.close()


async def test_from_beginning_to_end_and_what_the_workers_get(kept):
    groups, keys = GroupStore(kept.store), kept.store
    search = await groups.create({"name": "search", "rpm": 5})
    assert groups.row(search)["month"] == {"tokens": 5, "usd": 6e-9}  # as its totals said
    key, _ = await keys.create({"name": "a", "group": "search"}, KNOWN)
    changed = await groups.edit("search", {"rpm": None, "daily_usd": 1})
    assert groups.find("search") == changed and changed.daily_nusd == 10**9
    assert [row["keys"] for row in groups.rows()] == [1]
    with pytest.raises(GroupInUse):
        await groups.delete("search")
    await keys.edit(key.id, {"group": None}, KNOWN)
    assert (await groups.delete("search"))["keys"] == 0
    told = [(ring.keys, ring.groups) for ring in kept.told]
    assert [([key.group for key, _ in keys], [g.rpm for g, _ in groups]) for keys, groups in told] == [
        ([], [5]), (["search"], [5]), (["search"], [None]), ([None], [None]), ([None], []),
    ]  # fmt: skip
    assert {slot for keys, groups in told for _, slot in (*keys, *groups)} == {0, 1}
    # Under the same name it goes on with what it had used.
    kept.accounts.open(0, kept.store._opened_at, Month(8, 8, 8.0))
    assert groups.row(await groups.create({"name": "search"}))["month"]["tokens"] == 8


async def test_what_cant_be_changes_nothing(kept):
    groups = GroupStore(kept.store)
    await groups.create({"name": "search"})
    del kept.told[:]
    for call, error in (
        (groups.create({"name": "search"}), GroupTaken), (groups.create({"name": "a b"}), KeySettingsError),
        (groups.edit("search", {"rpm": 0}), KeySettingsError), (groups.edit("x", {}), UnknownGroup),
        (groups.delete("x"), UnknownGroup),
        (kept.store.create({"name": "k", "group": "x"}, KNOWN), KeySettingsError),
    ):  # fmt: skip
        with pytest.raises(error):
            await call
    assert (kept.told, kept.ids()) == ([], [])
    kept.path.rename(kept.path.with_name("elsewhere"))
    with pytest.raises(NotStored, match=r"The group can't be stored in .*the file was deleted or replaced"):
        await groups.edit("search", {"rpm": 1})


async def test_what_a_command_has_written_is_taken_on(kept):
    groups = GroupStore(kept.store)
    await groups.create({"name": "search", "rpm": 5})
    with kept.command() as database:
        change_group(database, "search", {"rpm": 7})
        await kept.store.check()
        assert [group.rpm for group, _ in kept.told[-1].groups] == [7]
        delete_group(database, "search")
    await kept.store.check()
    assert kept.told[-1].groups == ()


async def test_groups_have_accounts_before_keys_and_there_is_an_end_to_how_many(kept, monkeypatch):
    monkeypatch.setattr(keystore_module, "MAX_KEYS", 1)
    groups = GroupStore(kept.store)
    await groups.create({"name": "search"})
    with pytest.raises(KeySettingsError, match="There are 1 keys and groups already"):
        await groups.create({"name": "other"})
    with kept.command() as database:
        database.execute("INSERT INTO key_groups VALUES ('late', 1, '{}')")
        assert len(load_groups(database)) == 2
    await kept.store.check()
    assert [group.name for group, _ in kept.store.keyring.groups] == ["search"]
    assert groups.row(groups.find("late"))["month"]["tokens"] == 0


async def test_alerts_get_groups_with_windows_too(kept):
    await GroupStore(kept.store).create({"name": "search", "daily_tokens": 5})
    await GroupStore(kept.store).create({"name": "other", "rpm": 5})
    await kept.store.create({"name": "k", "monthly_tokens": 5, "soft": True}, KNOWN)
    used = {holder.name: month for holder, month in kept.store.used_in_turn(9)}
    assert used == {"search": Month(5, 6, 7.0, 1, 2), "k": Month(0, 0, 0.0)}
