"""Reads the tables of routes.toml about where requests go: providers, models, aliases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.config import header_values, values
from proxy.config.fallbacks import check_fallbacks
from proxy.config.settings import (
    AUTHS,
    CAPABILITIES,
    ENDPOINTS,
    SERVED_WITH,
    STRATEGIES,
    AliasConfig,
    ModelConfig,
    ProviderConfig,
    TimeLimits,
)
from proxy.config.tables import Table, UsableNames, check_aliases, quoted
from proxy.config.toml_positions import Path


def providers(root: Table) -> tuple[dict[str, ProviderConfig], list[str]]:
    """The providers that could be read, and the names of all that are there (models may use them)."""
    found: dict[str, ProviderConfig] = {}
    names = []
    for name, table in root.tables("providers"):
        names.append(name)
        try:
            values.provider_name(name)
        except ValueError as error:
            table.notes.wrong(table.path, f"provider '{name}' {error}", at_key=True)
        if provider := _provider(name, table):
            found[name] = provider
    return found, names


def _provider(name: str, table: Table) -> ProviderConfig | None:
    address = table.take("base_url", None, values.base_url)
    endpoint = values.choice(ENDPOINTS, "endpoint")
    key_env = table.take("api_key_env", "", values.env_name)
    key_file = table.take("api_key_file", "", values.text)
    auth = table.take("auth", {"default": "bearer"}, header_values.auth(AUTHS, (*ENDPOINTS, *SERVED_WITH)))
    headers = table.take_pairs("headers", header_values.header_name, header_values.header_value)
    given = [key for key, value in (("api_key_env", key_env), ("api_key_file", key_file)) if value]
    _check_header_twice(table, headers)
    query = table.take_pairs("query", values.filled, values.text)
    default = auth["default"]
    settings = ProviderConfig(
        name=name,
        base_url=address.text if address else "",
        scheme=address.scheme if address else "",
        host=address.host if address else "",
        port=address.port if address else 0,
        base_path=address.path if address else "",
        api_key_env=key_env,
        api_key_file=key_file,
        auth=default,
        auth_at=tuple(pair for pair in auth.items() if pair[0] != "default" and pair[1] != default),
        headers=headers,
        query=query,
        pass_headers=_names(table, "pass_headers", header_values.passed_header),
        drop_headers=_names(table, "drop_headers", header_values.dropped_header),
        pass_query=_names(table, "pass_query", header_values.passed_parameter),
        ca_file=table.take("ca_file", "", values.text),
        case_insensitive_keys=table.take("case_insensitive_keys", False, values.flag),
        endpoints=frozenset(table.take_list("endpoints", ("chat", "completions", "embeddings"), endpoint)),
        request_stream_usage=table.take("request_stream_usage", False, values.flag),
        compression=table.take("compression", "identity", values.choice(("identity", "pass"), "mode")),
        output_limit_word=table.take(
            "output_limit_word",
            "max_tokens",
            values.choice(("max_tokens", "max_completion_tokens"), "word"),
        ),
        stream_end=table.take("stream_end", "strict", values.choice(("strict", "framing"), "rule")),
        times=time_limits(table),
    )
    _check_credentials(table, given, settings, auth)
    _check_passing(table, settings)
    if settings.request_stream_usage and settings.compression == "pass":
        text = "'request_stream_usage' needs streams that can be read: not with compression = \"pass\""
        table.notes.wrong(table.at("request_stream_usage"), text, at_key=True)
    if "base_url" not in table:
        table.notes.wrong(table.path, f"provider '{name}' needs a base_url", at_key=True)
    table.done()
    return settings if address else None


_EXAMPLES = {
    "pass_headers": '["x-team", "x-app-*"]',
    "drop_headers": '["user-agent", "x-stainless-*"]',
    "pass_query": '["user", "filter[name]"]',
}


def _names(table: Table, key: str, read: Callable[[object], str]) -> tuple[str, ...]:
    return table.take_list(key, (), read, may_be_empty=True, example=_EXAMPLES[key])


def _check_credentials(
    table: Table, given: list[str], provider: ProviderConfig, auth: Mapping[str, str]
) -> None:
    if len(given) == 2:
        table.notes.wrong(
            table.at("api_key_file"), "'api_key_file' and 'api_key_env' can't both be set", at_key=True
        )
    if not provider.needs_key:
        for key in given:
            text = f"'{key}' has no use with auth = \"{provider.auth}\""
            table.notes.wrong(table.at(key), text, at_key=True)
    for endpoint in auth:
        served = SERVED_WITH.get(endpoint, endpoint)
        if endpoint != "default" and served not in provider.endpoints:
            text = f"'auth' names '{endpoint}', but 'endpoints' lacks '{served}': add it, or take it out here"
            table.notes.wrong(table.at("auth", endpoint), text, at_key=True)


def _check_passing(table: Table, provider: ProviderConfig) -> None:
    """Check that no other setting of the table undoes 'pass_headers' or 'pass_query'."""
    sets = {name.lower() for name, _ in provider.headers}
    drops = {name.lower() for name in provider.drop_headers}
    for name in provider.pass_headers:
        for others, setting in ((sets, "headers"), (drops, "drop_headers")):
            if name.lower() in others:
                text = f"'pass_headers' names '{name}', which '{setting}' has too: take it out of one"
                table.notes.wrong(table.at("pass_headers"), text, at_key=True)
    own = {name.lower() for name, _ in provider.query}
    for name in provider.pass_query:
        if name.lower() in own:
            text = f"'pass_query' names '{name}', which 'query' sets: take it out of one"
            table.notes.wrong(table.at("pass_query"), text, at_key=True)


def _check_header_twice(table: Table, headers: tuple[tuple[str, str], ...]) -> None:
    seen: set[str] = set()
    for name, _ in headers:
        if name.lower() in seen:
            table.notes.wrong(table.at("headers", name), f"the header '{name}' is set twice", at_key=True)
        seen.add(name.lower())


def time_limits(table: Table) -> TimeLimits:
    """The limits that an alias, a model or a provider sets for itself."""
    return TimeLimits(
        connect_s=table.take("connect", None, values.positive_seconds),
        first_byte_s=table.take("first_byte", None, values.positive_seconds),
        first_token_s=table.take("first_token", None, values.first_token),
        idle_s=table.take("idle", None, values.positive_seconds),
        total_s=table.take("total", None, values.positive_seconds),
    )


def models(root: Table, known_providers: list[str]) -> dict[str, ModelConfig]:
    found = {}
    for name, table in root.tables("models"):
        provider, slash, upstream = name.partition("/")
        try:
            values.name(name)
            if not (provider and slash and upstream):
                raise ValueError('must be written as "provider/name"')
            if provider not in known_providers:
                close = values.nearest(provider, known_providers)
                hint = f"did you mean '{close}'?" if close else f"add [providers.{quoted(provider)}]"
                raise ValueError(f"has an unknown provider '{provider}'; {hint}")
        except ValueError as error:
            table.notes.wrong(table.path, f"model '{name}' {error}", at_key=True)
        found[name] = _model(name, provider, upstream, table)
    return found


def _model(name: str, provider: str, upstream: str, table: Table) -> ModelConfig:
    count = values.whole(1, 100_000_000)
    capability = values.choice(CAPABILITIES, "capability")
    model = ModelConfig(
        id=name,
        provider=provider,
        upstream=table.take("upstream", upstream, values.filled),
        context_window=table.take("context_window", None, count),
        max_output_tokens=table.take("max_output_tokens", None, count),
        input_price_usd_per_mtok=table.take("input_price", None, values.price),
        cached_input_price_usd_per_mtok=table.take("cached_input_price", None, values.price),
        output_price_usd_per_mtok=table.take("output_price", None, values.price),
        cache_write_price_usd_per_mtok=table.take("cache_write_price", None, values.price),
        reasoning_price_usd_per_mtok=table.take("reasoning_price", None, values.price),
        audio_input_price_usd_per_mtok=table.take("audio_input_price", None, values.price),
        audio_output_price_usd_per_mtok=table.take("audio_output_price", None, values.price),
        capabilities=frozenset(table.take_list("capabilities", ("chat",), capability)),
        dimensions=table.take("dimensions", None, values.whole(1, 1_000_000)),
        weight=table.take("weight", 1, values.whole(1, 1000)),
        times=time_limits(table),
    )
    table.done()
    return model


def aliases(root: Table, known: Mapping[str, ModelConfig]) -> dict[str, AliasConfig]:
    """The aliases; what they name is checked against the models and each other."""
    found: dict[str, AliasConfig] = {}
    members: dict[str, list[tuple[str, Path]]] = {}
    table = root.table("aliases")
    for name, content in table.content.items():
        try:
            values.name(name)
            if name == "auto":
                raise ValueError("can't be called so: 'auto' means all models")
            if name in known:
                raise ValueError("has the id of a model, which would hide it")
        except ValueError as error:
            table.notes.wrong(table.at(name), f"alias '{name}' {error}", at_key=True)
        if isinstance(content, dict):
            inner = Table(content, table.at(name), table.notes)
            found[name] = _alias(name, inner)
            members[name] = _written(content.get("models"), inner.at("models"))
        else:
            found[name] = AliasConfig(name, table.take_list(name, (), values.filled))
            members[name] = _written(content, table.at(name))
    names = UsableNames({model.id: model.capabilities for model in known.values()}, members)
    for name, alias in found.items():
        shares = [(model, table.at(name, "split", model)) for model, _ in alias.split]
        for model, at in shares:
            complaint = names.unknown(model)
            if names.is_alias(model):
                complaint = f"'{model}' is an alias; a split is between models"
            if complaint:
                table.notes.wrong(at, complaint, at_key=True)
        if not members[name]:
            members[name] = [(model, at) for model, at in shares if names.models(model)]
    check_aliases(names, table.notes)
    check_fallbacks(table, found, names)
    return found


def _written(content: object, at: Path) -> list[tuple[str, Path]]:
    """The names in an alias's list with their places; what is no text has been noted before."""
    if isinstance(content, str):
        return [(content, at)]
    if not isinstance(content, list):
        return []
    return [(name, (*at, index)) for index, name in enumerate(content) if isinstance(name, str)]


def _alias(name: str, table: Table) -> AliasConfig:
    members = table.take_list("models", (), values.filled)
    split = table.take_pairs("split", values.filled, values.whole(1, 1_000_000))
    fail_on = table.take_list("fail_on", (), values.fail_on, may_be_empty=True)
    alias = AliasConfig(
        name=name,
        models=members or tuple(model for model, _ in split),
        strategy=table.take("strategy", None, values.choice(STRATEGIES, "strategy")),
        split=split,
        sticky=table.take("sticky", None, header_values.sticky),
        peek=table.take("peek", None, values.flag),
        fail_on=fail_on if "fail_on" in table else None,
        hedge=table.take("hedge", None, values.hedge),
        max_first_token_s=table.take("max_first_token", None, values.positive_seconds),
        keepalive_s=table.take("keepalive", None, values.seconds),
        on_disconnect=table.take(
            "on_disconnect", None, values.choice(("cancel", "drain"), "choice"), usual="cancel"
        ),
        fallback=table.take_list("fallback", (), values.filled, may_be_empty=True),
        deadline_s=table.take("deadline", None, values.seconds),
        times=time_limits(table),
    )
    if alias.sticky and not split:
        text = "'sticky' keeps callers on one side of a 'split'; there is none"
        table.notes.wrong(table.at("sticky"), text)
    if "models" not in table and not table.content.get("split"):
        table.notes.wrong(table.path, f"alias '{name}' needs 'models' or 'split'", at_key=True)
    table.done()
    return alias
