"""The pools behind a request's own: the header's have to be usable, the alias's are left out if not."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest, NotAllowed
from proxy.routing.fallbacks import named_fallbacks, own_fallbacks
from proxy.routing.pool import Pool
from tests.support.deployments import deployment, pool_of


def find_in(pools: dict[str, Pool], asked: list[str]):
    def find(name: str) -> Pool:
        asked.append(name)
        if name == "foreign":
            raise NotAllowed("not yours")
        if name not in pools:
            raise BadRequest("doesn't serve it", param="model")
        return pools[name]

    return find


@pytest.mark.parametrize("endpoint", ["chat", "embeddings"])
def test_the_alias_s_own_are_left_out_where_they_cant_be_used(endpoint: str) -> None:
    pools = {
        name: pool_of("latency", deployment(name, short=name[:1]), name=name, endpoint=endpoint)
        for name in ("m1", "m2", "other")
    }
    names = ("m1", "foreign", "other", "unserved", "m2")
    pool = pool_of("latency", deployment("a", short="m"), endpoint=endpoint, fallback_names=names)
    asked: list[str] = []
    found = own_fallbacks(pool, None, find_in(pools, asked))
    assert [each.name for each in found] == ["m1", "other", "m2"][:: 1 if endpoint == "chat" else 2]
    assert own_fallbacks(pool, None, find_in({}, asked)) is found  # worked out once
    assert own_fallbacks(pool, "cost", find_in({}, asked)) == []  # for each strategy that is asked for
    assert asked == [*names, *names]


def test_the_header_s_are_refused_in_its_name() -> None:
    pool = pool_of("latency", deployment("a"), endpoint="chat")
    with pytest.raises(BadRequest, match="X-Inferoute-Fallback: doesn't serve it") as raised:
        named_fallbacks(("x",), pool, find_in({}, []))
    assert raised.value.param == "X-Inferoute-Fallback"
