"""Workers, for the tests of what keeps and governs them."""

from __future__ import annotations

import pytest

from tests.support.supervised import Running


@pytest.fixture
async def running(provider, other, tmp_path):
    made = Running(tmp_path, provider.url, other.url)
    await made.supervisor.start()
    yield made
    await made.supervisor.close()
    assert not made.supervisor.pool.handles
