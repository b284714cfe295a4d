"""The exposition, read back by Prometheus' own reader of its format."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.access.permits import Month
from proxy.config.parse import parse
from proxy.control.steps import done
from proxy.control.telemetry.metrics import MetricInputs, exposition
from proxy.deployments.record import Record
from proxy.routing.catalog import Catalog
from proxy.usage.counters import STATUSES, Counted, Counters, Histogram
from proxy.usage.tokens import Usage
from tests.support.keys import key_of

TEXT = """
[providers.p]
base_url = "http://h/v1"
auth = "none"
[models."p/m"]
[models."p/n"]
"""
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def catalog_of() -> Catalog:
    return Catalog(parse(TEXT), {"p": True}, 0)


def facts_of(counted: Counted, catalog: Catalog | None = None, **more: Any) -> MetricInputs:
    known = {
        "keys": (), "workers": 1, "ready": True, "build": {"version": "1"}, "started_s": 5.0, "now": 100.0,
    }  # fmt: skip
    return MetricInputs(counted=counted, catalog=catalog or catalog_of(), **known | more)


def read(facts: MetricInputs) -> Samples:
    """What Prometheus understands; no sample and no family twice."""
    found: Samples = {}
    names = []
    for family in text_string_to_metric_families("".join(exposition(facts))):
        names.append(family.name)
        for sample in family.samples:
            labels = sample.name, frozenset(sample.labels.items())
            assert labels not in found
            found[labels] = sample.value
    assert len(set(names)) == len(names)
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def check(samples: Samples, expected: dict[str, Any], **labels: str) -> None:
    """The values of these families, ``name{label=value}``, all with ``labels``."""
    for series, number in expected.items():
        name, _, more = series.removesuffix("}").partition("{")
        own = dict(part.split("=") for part in more.split(",") if part)
        assert value(samples, f"tokenhub_{name}", **labels, **own) == number, series


def counted_of(counters: Counters, levels: Mapping[tuple[str, ...], tuple[int, ...]] = {}) -> Counted:
    return Counted(done(counters.read()), dict(levels))


def test_requests_by_key_and_status():
    counters, catalog = Counters(), catalog_of()
    member = catalog.deployments["p/m"]
    for key, status, count in (("key_1", 200, 3), ("key_1", 502, 2), ("key_2", 200, 10), ("", 200, 1)):
        used = counters.used(member.labels, key, status)
        used.requests += count
        used.add(Usage(10 * count, count, 0, 20 * count, 0), 10**9 * count)
    counters.refused(400)
    # One that is no longer known goes by its id.
    rows = [key_of(id=id, name="a").row(Month(0, 0, 0.0)) for id in ("key_1", "key_9")]
    found = read(facts_of(counted_of(counters), catalog, keys=rows))
    who = {"provider": "p", "model": "p/m"}
    one = who | {"key": "a", "key_id": "key_1"}
    gone, nobody = who | {"key": "key_2", "key_id": "key_2"}, {"key": "", "key_id": ""}
    check(found, {
        "requests_total{status=200}": 3, "errors_total{status=502}": 2, "tokens_total{type=input}": 50,
        "tokens_total{type=cached}": 5, "cost_usd_total": 5.0,
    }, **one)  # fmt: skip
    check(found, {"requests_total{status=200}": 10}, **gone)
    check(found, {"requests_total{status=200}": 1}, **who, **nobody)
    check(found, {"requests_total{status=400}": 1}, provider="", model="", **nobody)
    assert len([labels for name, labels in found if name == "tokenhub_errors_total"]) == 2


def test_keys_of_the_same_name_are_never_added_up():
    counters, catalog = Counters(), catalog_of()
    for id in ("key_1", "key_2"):
        used = counters.used(catalog.deployments["p/m"].labels, id, 200)
        used.requests += 1
        used.add(Usage(10, 0, 0, 20, 0), 10**9)
    rows = [
        key_of(id="key_1", name="a", monthly_nusd=17 * 10**8, monthly_tokens=100).row(
            Month(7, 422 * 10**7, 0.0)
        ),
        key_of(id="key_2", name="a", monthly_nusd=100 * 10**9).row(Month(8, 0, 0.0)),
        key_of(id="key_3", name="gone", revoked=5).row(Month(7, 7, 0.0)),
    ]
    found = read(facts_of(counted_of(counters), catalog, keys=rows))
    for id, usd, limit, tokens in (("key_1", 4.22, 1.7, 7), ("key_2", 0, 100.0, 8)):
        who = {"key": "a", "key_id": id}
        counts = {"requests_total{status=200}": 1, "tokens_total{type=output}": 20, "cost_usd_total": 1.0}
        check(found, counts, **who, provider="p", model="p/m")
        check(found, {"key_month_usd": usd, "key_month_usd_limit": limit, "key_month_tokens": tokens}, **who)
    limits = [dict(labels)["key_id"] for name, labels in found if name == "tokenhub_key_month_tokens_limit"]
    assert limits == ["key_1"]
    assert not [labels for _, labels in found if ("key", "gone") in labels]
    # And whatever has one of the two labels has the other.
    assert all(("key" in (names := dict(labels))) == ("key_id" in names) for _, labels in found)


def test_tags():
    counters = Counters()
    used = counters.tagged("team", 'se"arch')
    used.requests += 2
    used.add(Usage(10, 4, 0, 20, 5), 3 * 10**9)
    expected = {"tag_requests_total": 2, "tag_tokens_total{type=cached}": 4, "tag_cost_usd_total": 3.0}
    check(read(facts_of(counted_of(counters))), expected, tag="team", value='se"arch')


def test_whatever_a_provider_answers_makes_few_series():
    counters, catalog = Counters(), catalog_of()
    member = catalog.deployments["p/m"]
    for status in range(1000):
        counters.used(member.labels, "key_1", status).requests += 1
        counters.failed(member.labels, str(status))
    found = read(facts_of(counted_of(counters), catalog))
    for name, label in (("tokenhub_requests_total", "status"), ("tokenhub_attempt_failures_total", "reason")):
        series = {dict(labels)[label]: count for (of, labels), count in found.items() if of == name}
        assert len(series) == len(STATUSES) + 5 < 60
        assert sum(series.values()) == 1000
        assert series["200"] == series["529"] == 1
    errors = {dict(labels)["status"]: n for (of, labels), n in found.items() if of == "tokenhub_errors_total"}
    assert {"4xx", "5xx", "other"} < errors.keys()
    assert not {"2xx", "3xx", "101", "200", "308"} & errors.keys()
    assert sum(n for status, n in errors.items() if status != "other") == 200


def test_histograms_of_which_an_empty_one_is_all_there():
    counters, catalog = Counters(), catalog_of()
    member = catalog.deployments["p/m"]
    times = counters.prefix(b"", member.labels, "chat").times
    times.add(took=200_000, waited=25_000, usage=Usage(100, 0, 0, 5))  # 2 s, 250 ms
    times.add(took=10_000_000, waited=250, usage=None)  # 100 s, 2.5 ms: on the bound
    # Two endpoints that the conventions give one name are one series.
    counters.prefix(b"", member.labels, "responses").times.add(1, 1, None)
    counters.overhead.add(45)
    found = read(facts_of(counted_of(counters), catalog))
    who = {"gen_ai_provider_name": "p", "gen_ai_request_model": "p/m", "gen_ai_operation_name": "chat"}
    first = "gen_ai_server_time_to_first_token"
    assert value(found, f"{first}_count", **who) == 3
    assert value(found, f"{first}_sum", **who) == pytest.approx(0.25251)
    for le, count in (("0.001", 1), ("0.0025", 2), ("0.15", 2), ("0.25", 3)):
        assert value(found, f"{first}_bucket", **who, le=le) == count
    for le, count in (("80", 2), ("+Inf", 3)):
        assert value(found, "gen_ai_server_request_duration_bucket", **who, le=le) == count
    tokens = "gen_ai_client_token_usage"
    assert value(found, f"{tokens}_sum", **who, gen_ai_token_type="input") == 100
    for le, count in (("4", 0), ("16", 1)):
        assert value(found, f"{tokens}_bucket", **who, gen_ai_token_type="output", le=le) == count
    check(found, {"overhead_seconds_bucket{le=4e-05}": 0, "overhead_seconds_bucket{le=5e-05}": 1})
    assert len(Histogram([1, 2]).numbers()) == 4
    found = read(facts_of(counted_of(Counters())))
    assert value(found, "tokenhub_event_loop_lag_seconds_count") == 0


def test_the_live_rows():
    catalog = catalog_of()
    member = catalog.deployments["p/m"]
    catalog.resolve("p/m", "chat", None)  # makes rows that nobody has used
    for _ in range(5):
        Record(member, "chat", True, 90.0).failed(91.0, "500", random.Random(1))
    running = Record(member, "chat", False, 99.0)
    member.key.failed("refused", 99.0, 0.5)
    found = read(facts_of(Counted({}, {}), catalog))
    who = {"provider": "p", "model": "p/m"}
    check(found, {
        "ejections_total": 1, "ejected": 1, "deployment_usable": 0, "requests_in_flight": 1,
        "requests_awaiting": 1,
    }, **who)  # fmt: skip
    check(found, {"deployment_usable{model=p/n}": 1}, provider="p")
    check(found, {"provider_key_refused": 1}, provider="p")
    assert value(found, "tokenhub_route_success_ratio", **who, endpoint="chat", stream="true") < 1
    rows = [dict(labels) for name, labels in found if name == "tokenhub_route_success_ratio"]
    assert {(row["endpoint"], row["stream"]) for row in rows} == {("chat", "true"), ("chat", "false")}
    running.first_byte(99.5)
    running.finished(99.5)
    found = read(facts_of(Counted({}, {}), catalog))
    seconds = value(found, "tokenhub_route_ttft_seconds", **who, endpoint="chat", stream="false")
    assert seconds == pytest.approx(0.5)


def test_the_process():
    levels = {("connections", "p"): (5, 3), ("clients",): (7,), ("unwritten",): (2,)}
    counters = Counters()
    counters.failed(catalog_of().deployments["p/m"].labels, "timeout")
    counters.retries, counters.fallbacks, counters.hedges, counters.shed = 1, 2, 3, 4
    counters.dropped_headers, counters.dropped_parameters = 5, 6
    found = read(facts_of(counted_of(counters, levels), workers=4, ready=False))
    check(found, {
        "provider_connections{provider=p,state=open}": 5, "provider_connections{provider=p,state=idle}": 3,
        "client_connections": 7, "ledger_unwritten_lines": 2, "workers": 4, "ready": 0,
        "start_time_seconds": 5.0, "build_info{version=1}": 1,
        "attempt_failures_total{provider=p,model=p/m,reason=timeout}": 1,
        "retries_total": 1, "fallbacks_total": 2, "hedges_total": 3, "shed_total": 4,
        "dropped_fields_total{kind=header}": 5, "dropped_fields_total{kind=parameter}": 6,
    })  # fmt: skip


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_of_any_kind_comes_through(name):
    counters, catalog = Counters(), catalog_of()
    counters.used(catalog.deployments["p/m"].labels, "key_1", 200).requests += 1
    rows = [key_of(id="key_1", name=name).row(Month(0, 0, 0.0))]
    text = "".join(exposition(facts_of(counted_of(counters), catalog, keys=rows)))
    [line] = [line for line in text.split("\n") if line.startswith("tokenhub_requests_total{")]
    label = re.search(r'[{,]key="((?:[^"\\]|\\.)*)"', line)
    assert label
    unescaped = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], label[1])
    assert unescaped == name
