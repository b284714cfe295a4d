"""Names to pools by the rules of the contract's section 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from proxy.config import settings
from proxy.config.settings import ENDPOINTS, AliasConfig, Config, ModelConfig, ProviderConfig, RoutingConfig
from proxy.deployments.breaker import CLOSED, OUT
from proxy.deployments.deployment import Deployment
from proxy.errors import BadRequest, GatewayError, UnknownModel
from proxy.routing.catalog import SPLIT, Catalog
from tests.support.deployments import NOW, fail

EVERYWHERE = frozenset(ENDPOINTS)


def provider(name: str, endpoints: Iterable[str] = ("chat", "completions", "embeddings")) -> ProviderConfig:
    address = f"https://{name}.test/v1", "https", f"{name}.test", 443, "/v1"
    return ProviderConfig(name, *address, endpoints=frozenset(endpoints))


def model(id: str, *capabilities: str, upstream: str = "", **facts: Any) -> ModelConfig:
    owner, _, rest = id.partition("/")
    able = frozenset(capabilities or ("chat",))
    return ModelConfig(id, owner, upstream or rest, capabilities=able, **facts)


def config(
    providers: Iterable[ProviderConfig],
    models: Iterable[ModelConfig],
    aliases: Iterable[AliasConfig] = (),
    routing: RoutingConfig | None = None,
) -> Config:
    return Config(
        settings.ServerConfig(), settings.AdminConfig(), settings.AuthConfig(), settings.StateConfig(),
        routing or RoutingConfig(), settings.TimeoutsConfig(), {one.name: one for one in providers},
        {one.id: one for one in models}, {one.name: one for one in aliases}, settings.AlertsConfig(),
        settings.TracesConfig(), settings.SimulatorConfig(),
    )  # fmt: skip


PROVIDERS = (provider("openai", EVERYWHERE), provider("anthropic", ("chat", "messages")), provider("azure"))
MODELS = (
    model(
        "openai/gpt-4o", "chat", "vision", "tools", upstream="gpt-4o-2024-08-06", context_window=128_000,
        max_output_tokens=16_384, input_price_usd_per_mtok=2.5, output_price_usd_per_mtok=10.0,
    ),
    model("azure/gpt-4o", "chat", "tools", context_window=64_000),
    model("anthropic/claude", "chat", "vision", "tools", context_window=200_000),
    model("openai/embed-small", "embeddings", context_window=8191, input_price_usd_per_mtok=0.02),
    model("azure/embed-small", "embeddings"),
    model("openai/embed-large", "embeddings"),
)  # fmt: skip
ALIASES = (
    AliasConfig("premium", ("openai/gpt-4o", "anthropic/claude")),
    AliasConfig("cheap", ("premium", "gpt-4o"), strategy="cost", keepalive_s=7.0),
    AliasConfig("vectors", ("embed-small",)),
    AliasConfig("mixed-vectors", ("embed-small", "openai/embed-large")),
    AliasConfig("half", (), split=(("openai/gpt-4o", 90), ("anthropic/claude", 10))),
    AliasConfig("everything", ("gpt-4o", "embed-small")),
)
ALL_USABLE = {"openai": True, "anthropic": True, "azure": True}


def catalog(usable: dict[str, bool] | None = None, previous: Catalog | None = None) -> Catalog:
    return Catalog(config(PROVIDERS, MODELS, ALIASES), ALL_USABLE if usable is None else usable, 17, previous)


def made_of(
    aliases: Iterable[AliasConfig] = ALIASES,
    models: Iterable[ModelConfig] = MODELS,
    providers: Iterable[ProviderConfig] = PROVIDERS,
    previous: Catalog | None = None,
    **routing: Any,
) -> Catalog:
    """Another one, whose providers all have a key."""
    return Catalog(config(providers, models, aliases, RoutingConfig(**routing)), ALL_USABLE, 0, previous)


def ids(members: Iterable[Deployment]) -> list[str]:
    return [member.id for member in members]


def refusal(found: Catalog, name: str | None, endpoint: str, strategy: str | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        found.resolve(name, endpoint, strategy)
    return caught.value


def test_an_id_is_pinned_whatever_the_header_says() -> None:
    for strategy in (None, "cost"):
        pool = catalog().resolve("openai/gpt-4o", "chat", strategy)
        assert (pool.kind, pool.strategy, ids(pool.members)) == ("pinned", "pinned", ["openai/gpt-4o"])
        assert len({member.short for member in pool.members}) == 1
    assert pool.members[0].upstream_literal == b'"gpt-4o-2024-08-06"'


def test_short_names_aliases_and_auto() -> None:
    found = catalog()
    short = found.resolve("gpt-4o", "chat", None)
    assert (short.kind, short.strategy) == ("short", "latency")
    assert ids(short.members) == ["openai/gpt-4o", "azure/gpt-4o"]
    alias = found.resolve("premium", "chat", "availability")
    assert (alias.kind, alias.strategy) == ("alias", "availability")
    assert ids(alias.members) == ["openai/gpt-4o", "anthropic/claude"]
    auto = found.resolve("auto", "chat", None)
    assert (auto.kind, ids(auto.members)) == ("auto", ["openai/gpt-4o", "azure/gpt-4o", "anthropic/claude"])
    nameless = found.resolve(None, "chat", "latency")
    assert nameless is auto
    assert ids(found.resolve("half", "chat", None).members) == ids(alias.members)


def test_aliases_expand_each_member_once_in_order() -> None:
    pool = catalog().resolve("cheap", "chat", None)
    assert ids(pool.members) == ["openai/gpt-4o", "anthropic/claude", "azure/gpt-4o"]
    assert (pool.strategy, pool.keepalive_s) == ("cost", 7.0)
    assert catalog().resolve("cheap", "chat", "latency").strategy == "latency"


def test_an_alias_may_shadow_the_short_name_it_lists() -> None:
    found = made_of((AliasConfig("gpt-4o", ("gpt-4o",), strategy="cost"),))
    pool = found.resolve("gpt-4o", "chat", None)
    assert (pool.kind, pool.strategy) == ("alias", "cost")
    assert ids(pool.members) == ["openai/gpt-4o", "azure/gpt-4o"]


def test_an_id_comes_before_a_short_name_that_looks_like_it() -> None:
    models = (*MODELS, ModelConfig("router/openai/gpt-4o", "router", "x"))
    found = made_of((), models, (*PROVIDERS, provider("router")))
    assert found.deployments["router/openai/gpt-4o"].short == "openai/gpt-4o"
    assert found.resolve("openai/gpt-4o", "chat", None).kind == "pinned"


def test_a_request_without_model_and_strategy_is_told_both_ways_out() -> None:
    error = refusal(catalog(), None, "chat")
    assert (error.status, error.code) == (400, "model_required")
    assert "`model`" in error.message
    assert "X-Inferoute-Strategy" in error.message


def test_an_unknown_strategy_lists_the_known() -> None:
    error = refusal(catalog(), "gpt-4o", "chat", "fastest")
    assert error.status == 400
    assert all(name in error.message for name in ("cost", "latency", "availability", "round-robin"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("opnai/gpt-4o", "openai/gpt-4o"), ("GPT-4o", "gpt-4o"), ("Premium", "premium"), ("claud", "claude")],
)
def test_an_unknown_name_is_told_the_nearest(name: str, hint: str) -> None:
    found = catalog()
    error = refusal(found, name, "chat")
    assert isinstance(error, UnknownModel)
    assert "Did you mean" not in error.message  # a hint takes time: who answers decides on it
    assert found.nearest(name) == hint


def test_unknown_names_are_never_kept() -> None:
    found = catalog()
    for number in range(50):
        refusal(found, f"{number}" * 300, "chat")
        assert found.nearest(f"{number}" * 300) is None
    assert len(refusal(found, "x" * 100_000, "chat").message) < 500
    assert not found._found
    assert not found._pools


def test_a_resolved_name_is_the_same_object_again() -> None:
    found = catalog()
    pool = found.resolve("premium", "chat", None)
    assert "premium alias latency" in repr(pool)
    assert pool.streamed_rows[0] is found.deployments["openai/gpt-4o"].row("chat", True)
    assert found.resolve("premium", "chat", None) is pool
    # The default spelled out shares the round-robin turns too.
    assert found.resolve("premium", "chat", "latency") is pool
    assert found.resolve("premium", "chat", "cost") is not pool


@pytest.mark.parametrize("name", ["auto", "mixed-vectors"])
def test_vectors_of_different_models_dont_mix(name: str) -> None:
    error = refusal(catalog(), name, "embeddings")
    assert (error.status, error.code) == (400, "mixed_models")
    assert "embed-small" in error.message


def test_one_model_at_several_providers_serves_embeddings() -> None:
    for name in ("embed-small", "vectors", "everything"):
        pool = catalog().resolve(name, "embeddings", None)
        assert ids(pool.members) == ["openai/embed-small", "azure/embed-small"]
        assert len({member.short for member in pool.members}) == 1
        assert pool.min_context is None  # a batch is many prompts
    left_out = catalog().resolve("everything", "embeddings", None).left_out
    why = "doesn't serve embeddings"
    assert [(one.id, why) for one, why in left_out] == [("openai/gpt-4o", why), ("azure/gpt-4o", why)]


def test_the_only_model_of_an_endpoint_stands_for_none() -> None:
    found = made_of((), (MODELS[0], MODELS[3]), PROVIDERS[:1])
    assert refusal(found, "auto", "embeddings", "cost").code == "mixed_models"  # it is no name for vectors
    assert found.default_model("embeddings") == "openai/embed-small"
    assert found.default_model("chat") is None  # a second one would be another
    for strategy in (None, "cost"):
        pool = found.resolve(None, "embeddings", strategy)
        assert pool is found.resolve("openai/embed-small", "embeddings", strategy)
    second = model("openai/embed-large", "embeddings")
    both = made_of((), (MODELS[0], MODELS[3], second), PROVIDERS[:1])
    assert both.default_model("embeddings") is None
    for strategy in (None, "cost"):
        error = refusal(both, None, "embeddings", strategy)
        assert error.code == "model_required"
        assert "X-Inferoute-Strategy" not in error.message


def test_a_short_name_that_an_alias_has_does_not_stand_for_its_model() -> None:
    models = tuple(model(f"{owner}/embed", "embeddings") for owner in ("openai", "azure"))
    assert made_of((), models).default_model("embeddings") == "embed"
    found = made_of((AliasConfig("embed", ("openai/gpt-4o",)),), (MODELS[0], *models))
    assert found.default_model("embeddings") is None


def test_defaults_hold_for_what_is_served_with_their_endpoint() -> None:
    found = made_of(default_models=(("responses", "gpt-4o"), ("messages", "premium")))
    assert found.resolve(None, "input_tokens", None).name == "gpt-4o"
    assert found.resolve(None, "count_tokens", None).name == "premium"
    assert found.resolve(None, "responses", "cost").kind == "auto"
    assert refusal(found, None, "chat").code == "model_required"


def test_an_endpoint_that_a_name_doesnt_serve_is_refused_with_those_it_does() -> None:
    for name in ("openai/embed-small", "embed-small", "vectors"):
        error = refusal(catalog(), name, "chat")
        assert isinstance(error, BadRequest)
        assert (error.status, error.code) == (400, "unsupported_endpoint")
        assert "embeddings" in error.message
    assert refusal(catalog(), "auto", "rerank").code == "unsupported_endpoint"


def test_what_a_deployment_serves_follows_provider_and_capabilities() -> None:
    found = catalog().deployments
    assert found["anthropic/claude"].endpoints == {"chat", "messages"}
    assert found["openai/embed-small"].endpoints == {"embeddings"}
    counting = catalog().resolve("premium", "count_tokens", None)
    assert ids(counting.members) == ["openai/gpt-4o", "anthropic/claude"]


def test_members_without_credentials_are_left_out_but_not_all_and_not_pinned() -> None:
    found = catalog({"openai": True})
    pool = found.resolve("premium", "chat", None)
    assert ids(pool.members) == ["openai/gpt-4o"]
    reason = "provider anthropic has no key: set api_key_env; it is left out"
    assert pool.left_out == ((found.deployments["anthropic/claude"], reason),)
    assert ids(found.resolve("anthropic/claude", "chat", None).members) == ["anthropic/claude"]
    nobody = catalog({})
    assert repr(nobody.deployments["openai/gpt-4o"]) == "<Deployment openai/gpt-4o without credentials>"
    assert len(nobody.resolve("premium", "chat", None).members) == 2
    # Mixed stays mixed, whoever has credentials at the moment.
    assert refusal(catalog({"azure": True}), "mixed-vectors", "embeddings").code == "mixed_models"


def test_a_reload_keeps_the_rows_of_what_is_still_the_same() -> None:
    old = catalog()
    old.resolve("gpt-4o", "chat", None).streamed_rows[0].sent(1.0)
    new = catalog(previous=old)
    row = new.resolve("gpt-4o", "chat", None).streamed_rows[0]
    assert row.in_flight == 1
    # A request that runs on the old one and fails now is counted here.
    assert old.deployments["openai/gpt-4o"].breaker is new.deployments["openai/gpt-4o"].breaker
    # A row made late, by a request that still runs on the old catalog, is the new one's too.
    late, same = (one.deployments["azure/gpt-4o"].row("embeddings", False) for one in (old, new))
    assert late is same
    moved = made_of((), (model("openai/gpt-4o", upstream="gpt-5"),), previous=old)
    assert moved.deployments["openai/gpt-4o"].row("chat", True).in_flight == 0


def test_a_reload_follows_changed_rules_of_ejection_and_a_changed_half_life() -> None:
    old = catalog()
    eject = settings.EjectConfig(consecutive_failures=2)
    tau_s = old.deployments["openai/gpt-4o"].row("chat", True).success.tau_s
    member = made_of(previous=old, eject=eject, half_life_s=60.0).deployments["openai/gpt-4o"]
    assert [fail(member), fail(member)] == [None, "deployment"]
    assert member.eject is eject
    assert member.row("chat", True).success.tau_s == pytest.approx(2 * tau_s)
    assert list(member.rows()) == [("chat", True)]


def test_the_deployments_of_a_provider_share_its_key() -> None:
    old = catalog()
    names = ("openai/gpt-4o", "openai/embed-small", "azure/gpt-4o")
    gpt, embed, other = (old.deployments[name] for name in names)
    assert gpt.key is embed.key is not other.key
    for member in (gpt, embed, gpt):
        fail(member, "401")
    assert (embed.state(NOW), other.state(NOW)) == (OUT, CLOSED)
    # A reload may have brought a new key.
    assert catalog(previous=old).deployments["openai/gpt-4o"].state(NOW) == CLOSED


def test_a_split_is_a_strategy_of_its_own_where_none_is_asked_for() -> None:
    aliases = (
        AliasConfig("half", ("azure/gpt-4o",), split=(("openai/gpt-4o", 90), ("anthropic/claude", 10))),
        AliasConfig("names", (), split=(("gpt-4o", 3), ("claude", 1)), strategy="cost"),
    )
    found = made_of(aliases)
    pool = found.resolve("half", "chat", None)
    assert (pool.strategy, pool.inner) == (SPLIT, "latency")
    assert ids(pool.members) == ["azure/gpt-4o", "openai/gpt-4o", "anthropic/claude"]
    assert pool.shares == (("openai/gpt-4o", 90, (1,)), ("anthropic/claude", 10, (2,)))
    assert found.resolve("half", "chat", "cost").strategy == "cost"
    named = found.resolve("names", "chat", None)
    assert (named.strategy, named.inner) == (SPLIT, "cost")
    assert named.shares == (("gpt-4o", 3, (0, 1)), ("claude", 1, (2,)))
    assert refusal(found, "half", "chat", "split").code == "invalid_strategy"


def test_pools_know_their_alias_and_whether_they_fail_over() -> None:
    found = catalog()
    assert found.resolve("premium", "chat", None).alias is ALIASES[0]
    assert found.resolve("gpt-4o", "chat", None).alias is None
    for name, does in (("premium", True), ("gpt-4o", True), ("openai/gpt-4o", False), ("auto", True)):
        assert found.resolve(name, "chat", None).can_fail_over is does
    off = made_of(failover=False)
    assert not off.resolve("premium", "chat", None).can_fail_over


def test_keepalive_comes_from_the_alias_or_the_routing() -> None:
    aliases = (AliasConfig("off", ("gpt-4o",), keepalive_s=0.0), AliasConfig("as", ("gpt-4o",)))
    found = made_of(aliases, keepalive_s=15.0)
    seconds = [found.resolve(name, "chat", None).keepalive_s for name in ("off", "as", "gpt-4o")]
    assert seconds == [0.0, 15.0, 15.0]


@pytest.mark.parametrize(
    "broken",
    [
        config(PROVIDERS, MODELS, (AliasConfig("a", ("nope",)),)),
        config(PROVIDERS, MODELS, (AliasConfig("a", ("b",)), AliasConfig("b", ("a",)))),
        config((), MODELS[:1]),
    ],
)
def test_a_configuration_that_parse_would_refuse_is_refused(broken: Config) -> None:
    with pytest.raises(ValueError, match="unknown"):
        Catalog(broken, {}, 0)
