"""A client of the data plane: its address, the events of its streams, and the cost of a response."""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from proxy.cli.parser import CommandError, url_of
from proxy.cli.unreachable import unreachable
from proxy.config.settings import Config, ModelConfig
from proxy.usage.pricing import Prices, price_nusd, prices_of
from proxy.usage.tokens import Usage
from proxy.wire.sse import EVENT_END, data_of

KEY_HINT = "the key is taken from $TOKENHUB_API_KEY"
MAX_EVENT_BYTES = 16 << 20  # an image in base64 fits


class Target(NamedTuple):
    """A gateway: its address as people write it, the beginning of its URLs, and its Unix socket or "".

    ``certificate``: the file with the only certificate that is trusted; "": any valid one.
    """

    name: str
    url: str
    path: str = ""
    certificate: str = ""


def target_of(url: str | None, config: Config | None) -> Target:
    """The gateway at ``url``, else at the configuration's first listener.

    :param url: with or without ``/v1``; ``unix:/path`` for a socket.
    :raises CommandError: the address can't be read.
    """
    if url is None:
        assert config is not None
        listen = config.server.listen[0]
        if not listen.path and not listen.port:
            raise CommandError(
                "[server] listen has port 0, so only the gateway's log knows the port: use --url"
            )
        if config.server.tls_cert and not listen.path:
            url = url_of(listen, "https")
            return Target(url, url, certificate=config.server.tls_cert)
        url = url_of(listen)
    if url.startswith("unix:"):
        return Target(url, "http://localhost", url.removeprefix("unix:"))
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise CommandError(f"{url} is not an address such as http://127.0.0.1:8080 or unix:/path")
    url = url.rstrip("/").removesuffix("/v1")
    return Target(url, url)


def session_of(target: Target, key: str, strategy: str | None, limit: int = 1) -> aiohttp.ClientSession:
    """Connections to a gateway, with the headers that all requests have.

    :param key: of the gateway, or "".
    :param limit: of connections.
    :raises CommandError: the key has characters that no key has.
    """
    if not (key.isascii() and key.isprintable()):
        raise CommandError("$TOKENHUB_API_KEY holds characters that no key has")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if strategy:
        headers["X-Inferoute-Strategy"] = strategy
    connector: aiohttp.BaseConnector
    if target.path:
        connector = aiohttp.UnixConnector(target.path, limit=limit)
    else:
        connector = aiohttp.TCPConnector(limit=limit, ssl=_trust(target))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    return aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)


def _trust(target: Target) -> ssl.SSLContext | bool:
    """The certificates to accept: of a gateway on this machine only its own, under any name.

    :raises CommandError: that can't be read.
    """
    if not target.certificate:
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is for the name that others know the gateway by
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # who signed it need not be known
    try:
        context.load_verify_locations(target.certificate)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(
            f"[server] tls_cert {target.certificate} can't be read ({reason}): use --url"
        ) from None
    return context


def not_there(target: Target, error: Exception) -> CommandError:
    """The error for a gateway that can't be reached."""
    return CommandError(unreachable(error, "gateway", target.name, "--url", target.certificate))


class Events:
    """Splits an event stream as it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are complete now.

        :raises ValueError: one is longer than any should be.
        """
        *events, self._rest = EVENT_END.split(self._rest + data)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return [found for event in events if (found := data_of(event).strip())]


def content_of(event: dict[str, Any]) -> str:
    """The text in an event of the chat API."""
    deltas = (choice.get("delta") or {} for choice in event.get("choices") or ())
    return "".join(delta.get("content") or "" for delta in deltas)


class Price(NamedTuple):
    """The list price of responses. ``is_most``: an upper bound, as the price of cached tokens is unknown."""

    usd: float
    is_most: bool


async def price_of(
    session: aiohttp.ClientSession, target: Target, config: Config | None, model: str, usage: Usage
) -> Price | None:
    """The price of a model's responses; None: a price is unknown.

    :param config: of that gateway, if it is at hand. Else the gateway's model list is read, which has fewer
        prices.
    """
    known = config.models.get(model) if config is not None else None
    prices = prices_of(known) if known is not None else await _listed(session, target, model)
    nusd = None if prices is None else price_nusd(usage, prices)
    if nusd is None:
        return None
    return Price(nusd / 1e9, is_most=known is None and usage.cached_tokens > 0)


async def _listed(session: aiohttp.ClientSession, target: Target, model: str) -> Prices | None:
    try:
        async with session.get(f"{target.url}/v1/models/{quote(model)}") as response:
            pricing = orjson.loads(await response.read()).get("pricing") or {}
        given, output = pricing.get("input"), pricing.get("output")
    except (aiohttp.ClientError, ValueError, AttributeError):
        return None
    return prices_of(
        ModelConfig(model, "", "", input_price_usd_per_mtok=given, output_price_usd_per_mtok=output)
    )
