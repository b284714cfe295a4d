"""A deployment: what it serves, in what state it is, and what a reload hands on."""

from __future__ import annotations

import pytest

from proxy.config.settings import EjectConfig, ModelConfig, ProviderConfig
from proxy.deployments.breaker import CLOSED, COOLING, DUE, OUT, TRIAL
from proxy.deployments.deployment import REFUSALS, Deployment, key_breaker
from tests.support.deployments import NOW, attempt, deployment, eject, fail, succeed


def made(endpoints: str = "chat", capabilities: str = "chat", **more: object) -> Deployment:
    served = frozenset(endpoints.split())
    provider = ProviderConfig("p", "http://p/v1", "http", "p", 80, "/v1", endpoints=served)
    model = ModelConfig("p/org/m", "p", 'm"1', capabilities=frozenset(capabilities.split()))
    return Deployment(model, provider, usable=True, **more)  # type: ignore[arg-type]


def test_what_is_worked_out_once():
    one = made()
    assert (one.id, one.short, one.upstream_literal) == ("p/org/m", "org/m", b'"m\\"1"')
    assert not one.passes_credentials
    assert deployment("a", auth="passthrough").passes_credentials
    assert repr(one) == "<Deployment p/org/m>"


@pytest.mark.parametrize(
    ("endpoints", "capabilities", "served"),
    [
        ("chat embeddings", "chat", {"chat"}),
        ("chat completions responses messages", "chat", {"chat", "completions", "responses", "messages"}),
        ("completions images", "completions images speech", {"completions", "images"}),
        ("embeddings", "chat vision", set()),
    ],
)
def test_endpoints(endpoints, capabilities, served):
    one = made(endpoints, capabilities)
    assert one.endpoints == served
    assert one.can_serve("count_tokens") == ("messages" in served)
    assert one.can_serve("input_tokens") == ("responses" in served)
    assert all(one.can_serve(endpoint) for endpoint in served)
    assert not one.can_serve("rerank")


def test_a_row_per_endpoint_and_kind_made_once():
    one = made()
    kinds = [("chat", True), ("chat", False), ("messages", True)]
    rows = [one.row(*kind) for kind in kinds]
    assert len(set(map(id, rows))) == 3
    assert [one.row(*kind) for kind in kinds] == rows
    assert one.rows() == dict(zip(kinds, rows, strict=True))
    assert one.rows() is not one.rows()


def test_the_breakers_follow_the_configuration():
    one = made(eject=EjectConfig(consecutive_failures=2, base_s=3.0, max_s=4.0))
    assert (one.breaker.limit, one.breaker.base_s, one.breaker.max_s) == (2, 3.0, 4.0)
    assert (one.key.limit, one.key.base_s, one.key.max_s) == (REFUSALS, 3.0, 4.0)


# own breaker, key -> the state
OBSTACLES = [
    ("closed", "closed", CLOSED), ("out", "closed", OUT), ("closed", "out", OUT),
    ("cooling", "closed", COOLING), ("due", "closed", DUE), ("closed", "due", DUE),
    ("trial", "closed", TRIAL), ("closed", "trial", TRIAL), ("due", "due", DUE),
    ("due", "out", OUT), ("out", "due", OUT), ("trial", "out", OUT), ("out", "trial", OUT),
    ("cooling", "due", COOLING), ("cooling", "out", COOLING),  # which lasts longer here
    ("trial", "due", TRIAL), ("due", "trial", TRIAL),  # bug: one trial at a time, but this says DUE
]  # fmt: skip


def put(breaker, state):
    if state == "cooling":
        breaker.cool_down(60.0, NOW, 0.5)
    elif state != "closed":
        breaker.failures, breaker.ejections, breaker.is_open, breaker.reason = 5, 1, True, "why"
        breaker.ejected_at_s = NOW - 10.0
        breaker.until_s = NOW + 10.0 if state == "out" else NOW - 1.0
    if state == "trial":
        breaker.begin_trial()


@pytest.mark.parametrize(("own", "key", "state"), OBSTACLES)
def test_the_state_is_that_of_the_worse_obstacle(own, key, state):
    one = made()
    put(one.breaker, own)
    put(one.key, key)
    assert one.state(NOW) == state
    assert one.free_at(NOW) == max(one.breaker.free_at(NOW), one.key.free_at(NOW))
    assert (one.free_at(NOW) > NOW) == (state in (OUT, COOLING))


def health(member: Deployment, now: float) -> tuple[object, object, object]:
    found = member.health(now)
    assert found.keys() == {"state", "ejected_until_s", "reason"}
    return found["state"], found["ejected_until_s"], found["reason"]


def test_health_for_people():
    member = deployment("a")
    assert health(member, NOW) == ("ok", None, None)
    until_s = eject(member)
    assert health(member, NOW) == ("ejected", pytest.approx(until_s - NOW), "500")
    assert health(member, until_s) == ("ejected", 0.0, "500")
    attempt(member, until_s)
    assert health(member, until_s) == ("trial", None, "500")
    succeed(member, now=until_s + 1.0)
    assert health(member, until_s + 1.0) == ("ok", None, None)


def test_health_names_what_is_in_the_way():
    member = deployment("a")
    fail(member, "429", retry_after_s=7.0)
    assert health(member, NOW) == ("cooling down", 7.0, "the provider sent Retry-After")
    passed = "Retry-After has just passed: others go first"
    assert health(member, NOW + 7.0) == ("easing in", None, passed)
    refused = deployment("a")
    for _ in range(3):
        fail(refused, "401")
    assert refused.health(NOW)["reason"] == "the provider refuses the key"
    left_out = "provider a has no key: set api_key_env; it is left out"
    assert health(deployment("a", usable=False), NOW) == ("no credentials", None, left_out)


def test_the_same_deployment_takes_over_rows_and_breaker():
    old = made()
    row = old.row("chat", True)
    eject(old)
    new = made(half_life_s=60.0, eject=EjectConfig(consecutive_failures=2, base_s=1.0, max_s=2.0))
    new.adopt(old)
    assert new.row("chat", True) is row
    assert old.row("embeddings", False) is new.row("embeddings", False)  # made late, by what runs on the old
    assert row.success.tau_s == new.row("messages", True).success.tau_s
    assert new.breaker is old.breaker
    assert new.breaker.limit == 2
    assert new.state(NOW) == OUT


MOVED = {"scheme": "https", "host": "q", "port": 81, "base_path": "/v2"}


@pytest.mark.parametrize("what", [*MOVED, "upstream"])
def test_another_address_is_another_deployment(what):
    old = made()
    eject(old)
    provider, model = old.provider, old.model
    change = {what: MOVED.get(what, "other")}
    if what == "upstream":
        model = ModelConfig(model.id, model.provider, "other", capabilities=model.capabilities)
    else:
        facts = {name: getattr(provider, name) for name in ("scheme", "host", "port", "base_path")} | change
        provider = ProviderConfig("p", "", endpoints=provider.endpoints, **facts)
    new = Deployment(model, provider, usable=True)
    new.adopt(old)
    assert new.state(NOW) == CLOSED
    assert not new.rows()


def test_the_key_is_not_taken_over():
    """A reload may have brought a new one."""
    old, new = made(), made()
    for _ in range(3):
        fail(old, "401")
    new.adopt(old)
    assert (old.state(NOW), new.state(NOW)) == (OUT, CLOSED)
    shared = key_breaker(EjectConfig())
    assert made(key=shared).key is shared
