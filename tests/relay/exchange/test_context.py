"""One configuration as requests see it."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.relay.exchange.context import Routes
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


def test_tags_are_seen_on_over_a_reload_that_leaves_them():
    """Else each reload would let clients bring as many values again."""
    made = gateway(TEXT)
    assert made.tagging is None
    for text, is_same in (
        ('[usage]\ntags = ["team"]\n', False),
        ('[usage]\ntags = ["team"]\n', True),
        ("", False),
    ):
        before, config = made.tagging, parse(text + TEXT)
        made._use(Routes(config, made.catalog, made.providers))
        assert ((made.tagging is before), made.tagging is None) == (is_same, not text)
