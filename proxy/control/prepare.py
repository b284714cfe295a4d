"""Prepares what a configuration needs to run: the operator's keys, the providers, the simulator, traces.

A reload prepares everything anew before anything running is touched, so that a configuration that can't be
used changes nothing. A provider that is as it was keeps its object, and with it its open connections.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from proxy.config.listen import is_local
from proxy.config.settings import Config, ProviderConfig, TracesConfig
from proxy.control.certificates import Certificate, server_context
from proxy.errors import StartError
from proxy.relay.exchange.tracing import Tracing
from proxy.relay.upstream.provider import Provider


class Prepared(NamedTuple):
    """All that a configuration needs to run. ``keys`` and ``providers`` are by the provider's name. The keys
    are not in its ``repr``.

    ``authorities``: what the providers' ``ca_file`` held.
    ``tls``: for connections of clients, made from ``certificate``; None: plain HTTP.
    """

    keys: Mapping[str, str | None]
    providers: dict[str, Provider]
    recipes: dict[str, tuple[object, ...]]  # what each provider was made from
    certificate: Certificate | None = None
    tls: ssl.SSLContext | None = None
    authorities: Mapping[str, bytes] = MappingProxyType({})

    @property
    def simulated(self) -> bool:
        """True: the simulator answers in the providers' place."""
        return any(provider.simulated for provider in self.providers.values())

    @property
    def usable(self) -> dict[str, bool]:
        """Provider name -> has credentials."""
        return {name: provider.has_credentials for name, provider in self.providers.items()}

    def __repr__(self) -> str:
        return f"<Prepared {', '.join(self.providers)}>"


def read_keys(config: Config, environ: Mapping[str, str]) -> dict[str, str | None]:
    """The operator's keys by provider. :raises StartError: as :func:`read_key`."""
    return {name: read_key(provider, environ) for name, provider in config.providers.items()}


def read_key(provider: ProviderConfig, environ: Mapping[str, str]) -> str | None:
    """The operator's key for a provider; None if the configuration names none or it is not set.

    :raises StartError: the key's file can't be read, or the key can't be a header's value.
    """
    key = ""
    if provider.api_key_env:
        key = environ.get(provider.api_key_env, "")
    elif provider.api_key_file:
        try:
            key = Path(provider.api_key_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise StartError(
                f"The key of provider '{provider.name}' can't be read: {reason}: {provider.api_key_file}"
            ) from None
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise StartError(
            f"The key of provider '{provider.name}' holds white space or other characters no key has."
        )
    return key or None


def simulates(config: Config, keys: Mapping[str, str | None]) -> bool:
    """Decide whether the simulator answers in the providers' place.

    In ``auto`` mode only where nothing real could be reached anyway and nobody outside can be misled: no
    provider has a key (or does without one), and every listener is local.
    """
    mode = config.simulator.mode
    if mode != "auto":
        return mode == "always"
    keyless = all(p.needs_key for p in config.providers.values())
    return keyless and not any(keys.values()) and all(map(is_local, config.server.listen))


def prepare(
    config: Config,
    keys: Mapping[str, str | None],
    simulator_port: int,
    previous: Prepared | None = None,
    certificate: Certificate | None = None,
) -> Prepared:
    """Make the providers, and TLS of the certificate; what is as in ``previous`` stays.

    :param simulator_port: where the simulator stands in for all of them; 0: it doesn't.
    :raises StartError: a ``ca_file`` or the certificate can't be used.
    """
    connect_s = config.timeouts.connect_s
    providers: dict[str, Provider] = {}
    recipes: dict[str, tuple[object, ...]] = {}
    authorities: dict[str, bytes] = {}
    for name, settings in config.providers.items():
        key = None if simulator_port else keys[name]
        made_of = _stand_in(settings, simulator_port) if simulator_port else settings
        try:
            if made_of.ca_file:
                authorities[name] = Path(made_of.ca_file).read_bytes()
            recipe = (made_of, key, connect_s, bool(simulator_port), authorities.get(name))
            if previous is not None and previous.recipes.get(name) == recipe:
                providers[name] = previous.providers[name]
            else:
                providers[name] = Provider(made_of, key, connect_s, simulated=bool(simulator_port))
        except OSError as error:  # ssl.SSLError is one
            raise StartError(f"ca_file of provider '{name}' can't be used: {error}") from None
        recipes[name] = recipe
    tls = None
    if previous is not None and previous.certificate == certificate:
        tls = previous.tls
    elif certificate is not None:
        tls = server_context(certificate, config.server)
    return Prepared(keys, providers, recipes, certificate, tls, authorities)


def _stand_in(provider: ProviderConfig, port: int) -> ProviderConfig:
    return dataclasses.replace(
        provider,
        scheme="http",
        host="127.0.0.1",
        port=port,
        base_path=f"/{provider.name}/v1",
        auth="none",
        auth_at=(),
        pass_headers=(*provider.pass_headers, "x-sim-*"),
        ca_file="",
    )


def open_tracing(config: TracesConfig, worker: int | None) -> Tracing | None:
    """Open the tracing of a process; None: traces are off.

    :param worker: which of several it is; None: the only one.
    :raises StartError: traces are on, and can't be opened.
    """
    if not config.enabled:
        return None
    try:
        from proxy.control.telemetry.otlp import Otlp
    except ImportError as error:
        raise StartError(
            f"[traces] is enabled, but OpenTelemetry is not installed ({error}): install the gateway with it "
            "(pip install '/path/to/repository[otel]')"
        ) from None
    try:
        return Tracing(Otlp(config, worker), Random())
    except ValueError as error:  # of a standard variable, such as OTEL_BSP_MAX_QUEUE_SIZE
        raise StartError(f"[traces] can't be opened: {error}") from None
