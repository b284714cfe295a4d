"""How commands get at keys and totals."""

from __future__ import annotations

import argparse

import pytest

from proxy.cli.admin_client import ConsoleError, NoGateway
from proxy.cli.key_use import use

TEXT = """
[admin]
listen = "127.0.0.1:1"
[state]
path = "{path}"
[providers.a]
base_url = "http://a/v1"
[models."a/m"]
"""


def test_the_database_is_used_where_no_gateway_answers(tmp_path, capsys):
    file = tmp_path / "routes.toml"
    file.write_text(TEXT.format(path=tmp_path / "t.db"))
    args = argparse.Namespace(config=str(file), admin=None)
    made = use(args, lambda keys: keys.create({"name": "a"}), writes=True, makes=True)
    assert made["key"].startswith("th-")
    assert [row["name"] for row in use(args, lambda keys: keys.all())] == ["a"]
    assert "no gateway answers at http://127.0.0.1:1: written to" in capsys.readouterr().err


def test_an_address_that_is_given_is_the_only_one(tmp_path):
    args = argparse.Namespace(config=str(tmp_path / "none.toml"), admin="http://127.0.0.1:1")
    with pytest.raises(NoGateway, match="nothing listens there"):
        use(args, lambda keys: keys.all())
    args.admin = "no address"
    with pytest.raises(ConsoleError, match="is not an address such as"):
        use(args, lambda keys: keys.all())
