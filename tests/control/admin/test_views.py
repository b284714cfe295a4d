"""The rows that the admin API shows."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.control.admin.views import alias_row, route_rows, select_requests
from proxy.control.steps import done
from proxy.routing.catalog import Catalog
from proxy.wire.query import QueryError

TEXT = """
[providers.a]
base_url = "http://a/v1"
[providers.b]
base_url = "http://b/v1"
[models."a/m"]
[models."b/m"]
[aliases]
split = { split = { "a/m" = 90, "b/m" = 10 }, hedge = "p95", on_disconnect = "drain" }
plain = ["a/m", "m"]
backed = { models = ["a/m"], fallback = ["b/m", "auto"] }
timed = { models = ["a/m"], deadline = "0s", total = "5m", first_token = "p99" }
[aliases.full]
models = ["a/m"]
strategy = "cost"
split = { "a/m" = 1 }
sticky = "key"
peek = true
hedge = "250ms"
max_first_token = "8s"
keepalive = "2m"
"""
CONFIG = parse(TEXT)
TIMES = ("deadline", "connect", "first_byte", "first_token", "idle", "total")
NONE = dict.fromkeys(
    (
        "strategy", "split", "fallback", *TIMES, "sticky", "peek", "fail_on", "hedge", "max_first_token",
        "keepalive", "on_disconnect",
    )
)  # fmt: skip


def test_routes_of_which_one_that_is_out_says_until_when():
    catalog = Catalog(CONFIG, {"a": True}, 0)
    assert [(row["id"], row["state"], row["row"]) for row in route_rows(catalog, 5.0, 1000.0)] == [
        ("a/m", "ok", None),
        ("b/m", "no credentials", None),
    ]
    row = catalog.deployments["a/m"].row("chat", True)
    row.sent(5.0)
    catalog.deployments["a/m"].row("chat", False)
    first, second, third = route_rows(catalog, 6.0, 1001.0)
    assert [first["stream"], second["stream"], third["stream"]] == [False, True, None]
    assert second.keys() == first.keys() == third.keys()
    told = {"provider": "a", "model": "m", "endpoint": "chat", "usable": True}
    assert second.items() >= told.items()
    assert (second["row"]["in_flight"], second["row"]["age_s"]) == (1, 1.0)
    assert third["usable"] is False
    catalog = Catalog(CONFIG, {"a": True}, 0)
    catalog.deployments["a/m"].breaker.cool_down(30.0, 5.0, 0.5)
    row = next(route_rows(catalog, 10.0, 1000.0))
    assert (row["state"], row["ejected_until"]) == ("cooling down", 1025.0)
    assert "Retry-After" in row["reason"]


@pytest.mark.parametrize(("name", "row"), [
    ("plain", {"models": ["a/m", "m"]}),
    ("backed", {"models": ["a/m"], "fallback": ["b/m", "auto"]}),
    ("timed", {"models": ["a/m"], "deadline": "0s", "total": "300s", "first_token": "p99"}),
    ("full", {
        "models": ["a/m"], "split": {"a/m": 1}, "strategy": "cost", "sticky": "key", "peek": True,
        "hedge": "0.25s", "max_first_token": "8s", "keepalive": "120s",
    }),
    ("split", {
        "models": ["a/m", "b/m"], "split": {"a/m": 90, "b/m": 10}, "hedge": "p95", "on_disconnect": "drain",
    }),
])  # fmt: skip
def test_an_alias(name, row):
    assert alias_row(CONFIG.aliases[name]) == NONE | {"name": name} | row


def finished(number: int, **more) -> dict:
    return {
        "id": number, "key": None, "key_id": None, "model": "a/m", "model_requested": "plain", "status": 200,
    } | more  # fmt: skip


ROWS = [
    finished(1), finished(2, status=404, model=None), finished(3, status=503, key="k", key_id="key_3"),
    finished(4, model="b/m"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "ids"), [
    ({}, [1, 2, 3, 4]), ({"limit": "2"}, [1, 2]), ({"limit": "1000"}, [1, 2, 3, 4]),
    ({"status": "200"}, [1, 4]), ({"status": "error"}, [2, 3]), ({"status": "error", "limit": "1"}, [2]),
    ({"key": "k"}, [3]), ({"key": "key_3"}, [3]), ({"model": "a/m"}, [1, 3]),
    ({"model": "plain", "status": "404"}, [2]), ({"model": "none"}, []),
])  # fmt: skip
def test_selecting_requests(query, ids):
    assert [row["id"] for row in done(select_requests(iter(ROWS), query))] == ids


@pytest.mark.parametrize(("query", "said"), [
    ({"limit": "0"}, "'limit' must be a whole number from 1 to 1000."), ({"limit": "1001"}, "from 1 to 1000"),
    ({"limit": "-1"}, "'limit'"), ({"limit": ""}, "'limit'"), ({"limit": "9" * 5000}, "'limit'"),
    ({"limit": "²"}, "'limit'"), ({"status": "many"}, "or 'error'"),
    ({"model_requested": "x"}, "no filter 'model_requested'"),
])  # fmt: skip
def test_a_filter_that_is_none(query, said):
    with pytest.raises(QueryError, match=said) as caught:
        done(select_requests(ROWS, query))
    assert caught.value.param == next(iter(query))
