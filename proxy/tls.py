"""TLS: towards providers, and on the data listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from weakref import WeakSet

from proxy.config import ProviderConfig, ServerConfig
from proxy.listeners import StartError

log = logging.getLogger("tokenhub.tls")

_ALPN = ["http/1.1"]
# What OpenSSL says of a handshake that begins as HTTP does: by GET, POST, HEAD or PUT, or by CONNECT.
_PLAIN_HTTP = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")


class ProviderTLS(ssl.SSLContext):
    """TLS towards one provider. New connections resume the last session, which saves a round trip's work.

    The event loop offers no way to pass a session, but it makes its TLS objects here.
    """

    session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As the base class's, with the session to resume."""
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or self.session)

    def remember(self, transport: asyncio.Transport) -> None:
        """Keep the session of a connection that has been used (before, TLS 1.3 has no ticket yet)."""
        session = transport.get_extra_info("ssl_object").session
        if session is not None and session.has_ticket:
            self.session = session


def ssl_context(provider: ProviderConfig) -> ProviderTLS | None:
    """The TLS settings for a provider; None for plain HTTP.

    :raises OSError: ``ca_file`` can't be read, or holds no certificate (ssl.SSLError is an OSError).
    """
    if provider.scheme != "https":
        return None
    context = ProviderTLS(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and the host name
    if provider.ca_file:
        context.load_verify_locations(provider.ca_file)
    else:
        context.load_default_certs()
    context.set_alpn_protocols(_ALPN)
    return context


# ---------------------------------------------------------------------- on the data listeners


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a listener shows, with its key, as the files held it: PEM. All workers get the same, whatever
    becomes of the files meanwhile."""

    chain: bytes
    key: bytes = field(repr=False)


class _Encrypted(Exception):
    pass


class ServedTLS(ssl.SSLObject):
    """TLS with one client.

    A client that speaks plain HTTP is told so in clear text: :attr:`listener` has the answer. The event loop
    knows nothing of it. It takes the handshake to wait for more, writes what there is to write, and gives the
    connection up when the client leaves, or a handshake's time is over.
    """

    listener: ListenerTLS
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    is_plain = False

    def do_handshake(self) -> None:
        """As the base class's; it tells who has come through."""
        if not self.is_plain:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError as error:
                log.debug("a client's TLS handshake failed: %s", error.reason)
                if error.reason not in _PLAIN_HTTP:
                    raise
                self.is_plain = True
                self.outgoing.read()  # an alert would stand before the answer
                self.outgoing.write(self.listener.answer_in_clear())
            else:
                self.listener.handshakes.discard(self)
                return
        self.incoming.read()  # the rest of the request goes nowhere
        raise ssl.SSLWantReadError

    def unwrap(self) -> None:
        """Say that nothing follows, and don't wait for the client to say so too (RFC 8446 section 6.1): most
        look at a connection only when they need it again, and would hold up each close."""
        with contextlib.suppress(ssl.SSLWantReadError):
            super().unwrap()


class ListenerTLS(ssl.SSLContext):
    """TLS on a listener. Its certificate can be replaced: connections that come later have the new one.

    The event loop makes its TLS objects here. It tells the data plane of a connection after the handshake
    only, so those that are still at it are counted here, and limited.
    """

    current: ssl.SSLContext
    handshakes: WeakSet[ServedTLS]
    limit: Callable[[], int]
    answer_in_clear: Callable[[], bytes]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """TLS with the next client. :raises ConnectionRefusedError: too many are at their handshake."""
        if len(self.handshakes) >= self.limit():
            raise ConnectionRefusedError
        made = self.current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, ServedTLS)
        made.listener, made.incoming, made.outgoing = self, incoming, outgoing
        self.handshakes.add(made)
        return made


def listener_tls(
    context: ssl.SSLContext, limit: Callable[[], int], answer_in_clear: Callable[[], bytes]
) -> ListenerTLS:
    """TLS for the listeners of this process, at first with ``context``.

    :param limit: so many may be at their handshake.
    :param answer_in_clear: the whole answer to a client that speaks plain HTTP.
    """
    made = ListenerTLS(ssl.PROTOCOL_TLS_SERVER)
    made.current = context
    made.limit = limit
    made.answer_in_clear = answer_in_clear
    made.handshakes = WeakSet()
    return made


def read_certificate(server: ServerConfig) -> Certificate | None:
    """The certificate of the listeners; None: they speak plain HTTP. :raises StartError: a file can't be
    read."""
    if not server.tls_cert:
        return None
    return Certificate(_read("tls_cert", server.tls_cert), _read("tls_key", server.tls_key))


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"[server] {name} can't be read: {error.strerror}: {path}") from None


def server_context(certificate: Certificate, server: ServerConfig) -> ssl.SSLContext:
    """What connections with a certificate are made with.

    :param server: names the files, for the messages.
    :raises StartError: certificate and key can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = ServedTLS
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Anew on a connection that is in use: nobody needs it, and it costs the server more than the client.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_ALPN)
    try:
        with _as_file(certificate.chain) as chain, _as_file(certificate.key) as key:
            context.load_cert_chain(chain, key, _refuse_to_ask)
    except _Encrypted:
        raise StartError(
            f"[server] tls_key {server.tls_key} is encrypted: store it without a passphrase, and let nobody "
            "but the gateway read it"
        ) from None
    except (ssl.SSLError, ValueError) as error:
        raise StartError(f"[server] {_what_is_wrong(certificate, server, error)}") from None
    return context


def _what_is_wrong(certificate: Certificate, server: ServerConfig, error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        return f"tls_key {server.tls_key} is not the key of the certificate in tls_cert {server.tls_cert}"
    try:
        text = certificate.chain.decode("ascii", "ignore")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return f"tls_cert {server.tls_cert} holds no certificate in PEM"
    if b"PRIVATE KEY-----" not in certificate.key:
        return f"tls_key {server.tls_key} holds no private key in PEM"
    return f"tls_cert {server.tls_cert} and tls_key {server.tls_key} can't be used: {reason}"


def _refuse_to_ask() -> NoReturn:
    """Else OpenSSL asks for the passphrase at the terminal, and the start waits."""
    raise _Encrypted


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """The path of a file that holds ``data``, since OpenSSL takes nothing else; on Linux it is in memory."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:  # for its owner only
            file.write(data)
            file.flush()
            yield file.name
        return
    with open(os.memfd_create("tokenhub-tls"), "w+b") as memory:
        memory.write(data)
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"
