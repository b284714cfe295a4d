"""What exchanges share; and one configuration as requests see it."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.access.model_list import ModelList
from proxy.config.settings import Config
from proxy.deployments.deployment import Deployment
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog
from proxy.routing.pool import Pool


class Routes:
    """Where requests can go, as one configuration says it. A request keeps to the one it began with.

    :param providers: by name.
    """

    __slots__ = ("_names", "catalog", "config", "models", "providers")

    def __init__(self, config: Config, catalog: Catalog, providers: Mapping[str, Provider]) -> None:
        self.config = config
        self.catalog = catalog
        self.models = ModelList(catalog)
        self.providers = providers
        self._names: dict[tuple[str, str], bytes] = {}

    def response_names(self, deployment: Deployment, pool: Pool) -> bytes:
        """The header lines that say who served an answer, up to where the story of its attempts begins."""
        names = self._names.get((deployment.id, pool.strategy))
        if names is None:
            provider = deployment.provider.name
            lines = [
                f"X-Inferoute-Provider: {provider}",
                f"X-Inferoute-Model: {deployment.id}",
                f"X-Inferoute-Strategy: {pool.strategy}",
                "X-Inferoute-Attempts: ",
            ]
            if self.providers[provider].simulated:
                lines.insert(0, "X-Inferoute-Simulated: 1")
            names = self._names[deployment.id, pool.strategy] = "\r\n".join(lines).encode()
        return names
