"""A terminal of commands that work with a gateway that runs, and with its database alone."""

from __future__ import annotations

import pytest

from tests.support.terminal import prepared, terminal_of


@pytest.fixture
def state_folder(tmp_path, monkeypatch):
    return prepared(tmp_path, monkeypatch)


@pytest.fixture(params=["asked", "stored"])
async def terminal(request, state_folder, capsys):
    async with terminal_of(request.param, state_folder, capsys) as terminal:
        yield terminal
