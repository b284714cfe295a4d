"""Which limit holds for a member, and how it is called."""

from __future__ import annotations

from itertools import product

import pytest

from proxy.config.parse import parse
from proxy.config.settings import P99
from proxy.endpoints import CLASSES, FREE
from proxy.routing.catalog import Catalog

TEXT = """
[timeouts]
first_byte = "1s"
first_token = "p99"
[routing]
deadline = "40s"
[providers.p]
base_url = "http://p/v1"
{provider}
[models."p/m"]
{model}
[models."p/n"]
[aliases]
a = {{ models = ["p/m"]{alias} }}
b = {{ models = ["p/m", "p/n"], deadline = "0s" }}
"""


@pytest.mark.parametrize("places", list(product([False, True], repeat=3)))
def test_the_closest_to_what_a_request_names_counts(places: tuple[bool, bool, bool]) -> None:
    provider, model, alias = places
    config = parse(
        TEXT.format(
            provider='first_byte = "2s"\nidle = "7s"\nfirst_token = "0s"' if provider else "",
            model='first_byte = "3s"' if model else "",
            alias=', first_byte = "4s"' if alias else "",
        )
    )
    catalog = Catalog(config, {"p": True}, 0)

    def found(name: str, index: int = 0, streamed: bool = True):
        pool = catalog.resolve(name, "chat", None)
        return pool.limits(pool.members[index], streamed)

    expected = [(True, 1.0, "[timeouts] first_byte"), (provider, 2.0, "first_byte of provider 'p'")]
    of_member = [*expected, (model, 3.0, "first_byte of model 'p/m'")]
    of_alias = [*of_member, (alias, 4.0, "first_byte of alias 'a'")]
    for name, wanted in (("a", of_alias), ("p/m", of_member), ("b", of_member), ("p/n", expected)):
        _, seconds, said = [one for one in wanted if one[0]][-1]
        limits = found(name)
        assert (limits.answer_s, limits.answer_name, limits.is_total) == (seconds, said, False)
        assert (limits.idle_s, limits.first_token_s) == ((7.0, 0.0) if provider else (120.0, P99))
        plain = found(name, streamed=False)
        assert (plain.answer_s, plain.answer_name, plain.is_total) == (600.0, "[timeouts] total", True)
        assert (plain.take_s, plain.take_name) == (seconds, said)
    assert found("b", 1) is found("p/n")  # what is the same is one object
    assert catalog.resolve("a", "chat", None).deadline_s == 40.0
    assert catalog.resolve("b", "chat", None).deadline_s == float("inf")


def test_total_is_for_what_is_generated_and_not_streamed() -> None:
    text = TEXT.format(
        provider='endpoints = ["chat", "messages", "embeddings", "rerank", "images"]', model="", alias=""
    )
    text = text.replace(
        '[models."p/m"]', '[models."p/m"]\ncapabilities = ["chat", "embeddings", "rerank", "images"]'
    )
    catalog = Catalog(parse(text), {"p": True}, 0)
    for endpoint in ("chat", "messages", "count_tokens", "embeddings", "rerank", "images"):
        pool = catalog.resolve("p/m", endpoint, None)
        assert not pool.limits(pool.members[0], True).is_total
        assert pool.limits(pool.members[0], False).is_total == (CLASSES[endpoint] != FREE)
