"""One configuration as requests see it."""

from __future__ import annotations

import pytest

from tests.support.gateway import TEXT, gateway


@pytest.mark.parametrize(
    ("name", "strategy", "told"), [("p/m", None, b"pinned"), ("a", None, b"latency"), ("m", "cost", b"cost")]
)
@pytest.mark.parametrize("simulated", [False, True])
def test_the_names_of_an_answer(name, strategy, told, simulated):
    made = gateway(TEXT, simulated)
    pool = made.catalog.resolve(name, "chat", strategy)
    names = made.routes.response_names(pool.members[0], pool)
    assert set(names.split(b"\r\n")) == {
        b"X-Inferoute-Provider: p", b"X-Inferoute-Model: p/m", b"X-Inferoute-Strategy: " + told,
        b"X-Inferoute-Attempts: ", *([b"X-Inferoute-Simulated: 1"] if simulated else []),
    }  # fmt: skip
    assert names.endswith(b"X-Inferoute-Attempts: ")  # the story goes on from here
