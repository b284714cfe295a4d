"""A provider as the data plane needs it: the head of a request to it, and the pool of its connections.

What can be known before a request comes is worked out here, when the configuration is loaded.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from proxy.access import others
from proxy.config import ProviderConfig
from proxy.headers import RequestHead, without
from proxy.tls import ssl_context
from proxy.upstream import ConnectionPool

_AUTH_HEADERS: Final = {
    "bearer": b"Authorization: Bearer %b\r\n",
    "x-api-key": b"x-api-key: %b\r\n",
    "api-key": b"api-key: %b\r\n",
}


class Provider:
    """A provider as the data plane needs it.

    :param key: the operator's key, or None if there is none (or none is needed).
    :param simulated: the built-in simulator answers in its place.
    :raises OSError: ``ca_file`` can't be read. :raises ssl.SSLError: it holds no certificate.
    """

    def __init__(self, config: ProviderConfig, key: str | None, connect_s: float, simulated: bool) -> None:
        self.config = config
        self.name = config.name.encode()
        self.simulated = simulated
        self.passthrough = config.auth == "passthrough"
        self.asks_usage = config.request_stream_usage
        self.pass_encoding = config.compression == "pass"
        self.has_credentials = simulated or key is not None or config.auth in ("none", "passthrough")
        self.overrides = frozenset(name.lower().encode() for name, _ in config.headers)
        self.pool = ConnectionPool(config, ssl_context(config), connect_s)
        self._query = urlencode(config.query).encode()
        port = "" if config.port == {"http": 80, "https": 443}[config.scheme] else f":{config.port}"
        host = f"[{config.host}]" if ":" in config.host else config.host
        lines = [f"Host: {host}{port}\r\n".encode()]
        if key is not None and config.auth in _AUTH_HEADERS:
            lines.append(_AUTH_HEADERS[config.auth] % key.encode())
        if not self.pass_encoding:
            lines.append(b"Accept-Encoding: identity\r\n")  # so that usage can be read
        lines.extend(f"{name}: {value}\r\n".encode() for name, value in config.headers)
        self._fixed = b"".join(lines)
        self._base = quote(config.base_path, safe="/%:@!$&'()*+,;=-._~").encode()

    def head(self, path: bytes, client_query: bytes) -> bytes:
        """Request line and our own header lines for a request to ``path`` (below the base path)."""
        query = b"&".join(part for part in (self._query, client_query) if part)
        return b"POST %b%b%b%b HTTP/1.1\r\n%b" % (
            self._base,
            path,
            b"?" if query else b"",
            query,
            self._fixed,
        )

    def prepare(self, head: RequestHead, path: bytes) -> bytes:
        """The head of the request to this provider for a client's, all but its framing."""
        lines = without(head.lines, self.overrides) if self.overrides else head.lines
        if self.passthrough:
            own = [b"%b: %b" % field for field in others(head.credentials)]
            lines = lines + own
        if self.pass_encoding and head.accept_encoding:
            lines = [*lines, b"Accept-Encoding: " + head.accept_encoding]
        return self.head(path, head.query) + b"".join(line + b"\r\n" for line in lines)
