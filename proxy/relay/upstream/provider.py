"""A provider as the data plane needs it: the head of a request to it, and the pool of its connections.

What can be known before a request comes is worked out here, when the configuration is loaded.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from proxy.access.grants import others
from proxy.config.forwarding import Passing
from proxy.config.settings import ProviderConfig
from proxy.endpoints import PATHS
from proxy.relay.upstream.pool import ConnectionPool
from proxy.relay.upstream.tls import ssl_context
from proxy.wire.decompress import readable
from proxy.wire.output_limits import LIMITS_AT, WORDS
from proxy.wire.request_head import RequestHead

_AUTH_HEADERS: Final = {
    "bearer": b"Authorization: Bearer %b\r\n",
    "x-api-key": b"x-api-key: %b\r\n",
    "api-key": b"api-key: %b\r\n",
}
_NOTHING: Final[list[bytes]] = []


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
        self.believes_framing = config.stream_end == "framing"
        self.pass_encoding = config.compression == "pass"
        # What limits the length of a response, by endpoint.
        self.limit_words = {
            endpoint: f'"{WORDS[words[0]]}"'.encode() for endpoint, words in LIMITS_AT.items() if words
        }
        self.limit_words["chat"] = f'"{config.output_limit_word}"'.encode()
        self.has_credentials = simulated or key is not None or not config.needs_key
        self.passing = Passing(config)
        self.pool = ConnectionPool(config, ssl_context(config), connect_s)
        self._query = urlencode(config.query).encode()
        port = "" if config.port == {"http": 80, "https": 443}[config.scheme] else f":{config.port}"
        host = f"[{config.host}]" if ":" in config.host else config.host
        begin = f"Host: {host}{port}\r\n".encode()
        end = b"Content-Type: application/json\r\n"
        if not self.pass_encoding:
            end += b"Accept-Encoding: identity\r\n"  # so that usage can be read
        end += b"".join(f"{name}: {value}\r\n".encode() for name, value in config.headers)

        def fixed(auth: str) -> bytes:
            line = _AUTH_HEADERS.get(auth)
            return begin + (b"" if key is None or line is None else line % key.encode()) + end

        self._fixed = fixed(config.auth)
        ways = {path: config.auth_of(endpoint) for path, endpoint in PATHS.items()}
        self._fixed_at = {path: fixed(auth) for path, auth in ways.items() if auth != config.auth}
        self._base = quote(config.base_path, safe="/%:@!$&'()*+,;=-._~").encode()

    def head(self, path: bytes, client_query: bytes) -> bytes:
        """Request line and our own header lines for a request to ``path`` (below the base path).

        :param client_query: as much of the client's as passes.
        """
        query = b"&".join(part for part in (self._query, client_query) if part)
        return b"POST %b%b%b%b HTTP/1.1\r\n%b" % (
            self._base,
            path,
            b"?" if query else b"",
            query,
            self._fixed_at.get(path, self._fixed),
        )

    def prepare(self, head: RequestHead, path: bytes) -> tuple[bytes, list[bytes], list[bytes]]:
        """The head of the request to this provider for a client's, all but its framing; and the names of
        headers and parameters of the client's that don't pass."""
        lines, dropped = self.passing.lines(head)
        if self.passthrough:
            given = [field for field in others(head.credentials) if self.passing.lets(field[0])]
            lines = lines + [b"%b: %b" % field for field in given]
        query, parameters = self.passing.query(head.query) if head.query else (b"", _NOTHING)
        if self.pass_encoding and head.accept_encoding:
            lines = [*lines, b"Accept-Encoding: " + readable(head.accept_encoding)]
        prepared = self.head(path, query) + b"".join([line + b"\r\n" for line in lines])
        return prepared, dropped, parameters
