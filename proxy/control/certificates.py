"""The listeners' certificate and key, read from their files and checked before they are used."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from proxy.config.settings import ServerConfig
from proxy.errors import StartError
from proxy.relay.downstream.listener_tls import ServedTLS
from proxy.relay.upstream.tls import ALPN


@dataclass(frozen=True, slots=True)
class Certificate:
    """A listener's certificate chain and key in PEM, as the files held them. All workers get the same,
    even if the files change meanwhile."""

    chain: bytes
    key: bytes = field(repr=False)


class _Encrypted(Exception):
    pass


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


def server_context(certificate: Certificate, server: ServerConfig) -> ssl.SSLContext:
    """Make the TLS context of connections with a certificate.

    :param server: names the files, for the messages.
    :raises StartError: certificate and key can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = ServedTLS
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation is not needed, and costs the server more than the client.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)
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
