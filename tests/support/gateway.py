"""A gateway without its sockets."""

from __future__ import annotations

import random

from proxy.config.parse import parse
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog

TEXT = """
[providers.p]
base_url = "http://127.0.0.1:9/v1"
api_key_env = "K"
[models."p/m"]
[aliases]
a = ["p/m"]
"""


def gateway(text: str, simulated: bool = False) -> Gateway:
    config = parse(text)
    providers = {
        name: Provider(each, "k", 1.0, simulated=simulated) for name, each in config.providers.items()
    }
    catalog = Catalog(config, dict.fromkeys(providers, True), 0)
    return Gateway(config, catalog, providers, random.Random(0))


def mock_text(url: str, server: str = "", provider: str = "", more: str = "") -> str:
    """A configuration with one provider, ``mock``, of one model, ``mock/m``."""
    listen = "" if "listen" in server else 'listen = ["127.0.0.1:0"]\n'
    return (
        f'[server]\n{listen}{server}\n[providers.mock]\nbase_url = "{url}"\napi_key_env = "MOCK_KEY"\n'
        f'{provider}\n[models."mock/m"]\n{more}\n'
    )
