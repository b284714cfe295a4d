"""``tokenhub groups``, against a gateway that runs and against its database alone."""

from __future__ import annotations

import pytest

from proxy.access.key import LIMITS
from tests.support.terminal import check_refused


async def test_groups_from_beginning_to_end(terminal):
    assert (await terminal.out("groups", "list")).startswith("NAME  KEYS  LIMITS  TODAY  THIS MONTH")
    assert "groups create NAME" in terminal.said[0]
    out = await terminal.out("groups", "create", "search", "--monthly-usd", "500", "--rpm", "3e3", "--soft")
    assert out == "group search, limits: rpm 3000, monthly-usd 500, soft\n"
    out = await terminal.out(
        "groups", "edit", "search", "--monthly-usd", "none", "--daily-tokens", "9", "--no-soft"
    )
    assert out == "group search, limits: rpm 3000, daily-tokens 9\n"
    row = await terminal.json("groups", "show", "search")
    assert row == {
        "name": "search", "created": row["created"], "keys": 0, "soft": False, "last_used": None,
        "limits": dict.fromkeys(LIMITS) | {"rpm": 3000, "daily_tokens": 9}, "day": {"tokens": 0, "usd": 0.0},
        "month": {"tokens": 0, "usd": 0.0},
    }  # fmt: skip
    assert await terminal.rows("groups", "list") == [row]
    shown = dict(
        line.split(maxsplit=1) for line in (await terminal.out("groups", "show", "search")).splitlines()
    )
    assert (shown["limits"], shown["keys"]) == ("rpm 3000, daily-tokens 9", "0")
    listed = (await terminal.out("groups", "list")).splitlines()[1]
    assert listed.split()[:4] == ["search", "0", "rpm", "3000,"]
    assert await terminal.json("groups", "delete", "search") == row
    await terminal.json("groups", "create", "search")
    assert await terminal.out("groups", "delete", "search") == "group search is deleted\n"
    for action in (["show"], ["edit", "--rpm", "1"], ["delete"]):
        assert "There is no group 'search'" in await terminal.failure("groups", *action, "search")


async def test_keys_enter_and_leave_a_group(terminal):
    await terminal.out("groups", "create", "search")
    assert "'search' already" in await terminal.failure("groups", "create", "search")
    failure = await terminal.failure("keys", "create", "--name", "a", "--group", "serch")
    assert "There is no group 'serch'. Did you mean 'search'?" in failure
    await terminal.out("keys", "create", "--name", "a", "--group", "search")
    assert "group: search" in terminal.said[0]
    assert "search" in (await terminal.out("keys", "list")).splitlines()[1]
    assert (await terminal.json("groups", "show", "search"))["keys"] == 1
    assert "The group 'search' has keys (a)" in await terminal.failure("groups", "delete", "search")
    for leave in (["--no-group"], ["--group", "none"]):
        assert (await terminal.json("keys", "edit", "a", *leave))["group"] is None
        assert (await terminal.json("keys", "edit", "a", "--group", "search"))["group"] == "search"
    await terminal.out("keys", "revoke", "a")
    await terminal.out("groups", "delete", "search")


@pytest.mark.parametrize(("argv", "said"), [
    ("groups create", "the following arguments are required: NAME"),
    ("groups create x --rpm 0", "--rpm: must be a whole number"),
    ("groups edit x", "there is nothing to change"),
    ("groups create x --daily-usd nan", "--daily-usd: must be a number of dollars"),
    ("keys create --name x --group a/b", "--group: must be the name of a group, or none for none"),
])  # fmt: skip
def test_wrong_usage(argv, said, capsys, state_folder):
    check_refused(argv, said, capsys, state_folder)


async def test_a_name_that_cant_be(terminal):
    assert "'name' must be up to 64 letters" in await terminal.failure("groups", "create", "a/b")
