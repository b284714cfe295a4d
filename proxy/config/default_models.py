"""``[routing] default_models``: the name that stands for none at an endpoint, checked at load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.config import values
from proxy.config.settings import (
    ONE_MODEL_ENDPOINTS,
    AliasConfig,
    ModelConfig,
    ProviderConfig,
    served_endpoints,
)
from proxy.config.tables import Table

AUTO = "auto"


def check_default_models(
    routing: Table,
    chosen: Mapping[str, str],
    providers: Mapping[str, ProviderConfig],
    models: Mapping[str, ModelConfig],
    aliases: Mapping[str, AliasConfig],
) -> None:
    """Note names that mean nothing, that don't serve their endpoint, or may stand for different models where
    those don't mix.

    :param chosen: name by endpoint.
    """
    for endpoint, name in chosen.items():
        complaint = _complaint(endpoint, name, providers, models, aliases)
        if complaint:
            routing.notes.wrong(routing.at("default_models", endpoint), complaint)


def _complaint(
    endpoint: str,
    name: str,
    providers: Mapping[str, ProviderConfig],
    models: Mapping[str, ModelConfig],
    aliases: Mapping[str, AliasConfig],
) -> str | None:
    ids = list(models) if name == AUTO else list(dict.fromkeys(_ids(name, models, aliases, ())))
    if not ids:
        known = [*models, *aliases, *map(_short, models)]
        close = values.nearest(name, known)
        hint = f"did you mean '{close}'?" if close else "no model, alias or short name has this name"
        return f"'default_models' names the unknown model '{name}' for {endpoint}; {hint}"
    serving = [
        id
        for id in ids
        if (provider := providers.get(models[id].provider))
        and endpoint in served_endpoints(models[id], provider)
    ]
    if not serving:
        return (
            f"'default_models' names '{name}' for {endpoint}, which it doesn't serve: see 'endpoints' of its "
            "provider and 'capabilities' of the model"
        )
    if endpoint in ONE_MODEL_ENDPOINTS and (name == AUTO or len(set(map(_short, serving))) > 1):
        return (
            f"'default_models' names '{name}' for {endpoint}, which may stand for different models, and "
            f"{endpoint} of different models don't mix: name one model"
        )
    return None


def _ids(
    name: str, models: Mapping[str, ModelConfig], aliases: Mapping[str, AliasConfig], inside: tuple[str, ...]
) -> Iterator[str]:
    """The ids behind a name, as requests find them: exact id, alias, short name."""
    if name in models:
        yield name
    elif name in aliases and name not in inside:
        alias = aliases[name]
        for member in (*alias.models, *(share for share, _ in alias.split)):
            yield from _ids(member, models, aliases, (*inside, name))
    else:
        yield from (id for id in models if _short(id) == name)


def _short(id: str) -> str:
    return id.partition("/")[2]
