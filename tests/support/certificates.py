"""Certificates for tests."""

from __future__ import annotations

import ssl

import trustme
from cryptography.hazmat.primitives import serialization

from proxy.config.settings import ServerConfig
from proxy.control.certificates import read_certificate, server_context

ISSUED = trustme.CA().issue_cert("gateway.example")
CHAIN, KEY = ISSUED.cert_chain_pems[0].bytes(), ISSUED.private_key_pem.bytes()


def encrypted() -> bytes:
    key = serialization.load_pem_private_key(KEY, None)
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(
        serialization.Encoding.PEM, pkcs8, serialization.BestAvailableEncryption(b"secret")
    )


WRONG = [
    (None, KEY, "tls_cert can't be read: No such file or directory: {folder}/c.pem"),
    (CHAIN, None, "tls_key can't be read: No such file or directory: {folder}/k.pem"),
    (
        trustme.CA().issue_cert("x.example").cert_chain_pems[0].bytes(),
        KEY,
        "tls_key {folder}/k.pem is not the key of the certificate in tls_cert {folder}/c.pem",
    ),
    (
        CHAIN,
        encrypted(),
        "tls_key {folder}/k.pem is encrypted: store it without a passphrase, and let nobody",
    ),
    (b"", KEY, "tls_cert {folder}/c.pem holds no certificate in PEM"),
    (b"\xff\x00", KEY, "tls_cert {folder}/c.pem holds no certificate in PEM"),
    (KEY, KEY, "tls_cert {folder}/c.pem holds no certificate in PEM"),
    (CHAIN[: len(CHAIN) // 2], KEY, "tls_cert {folder}/c.pem holds no certificate in PEM"),
    (CHAIN, b"", "tls_key {folder}/k.pem holds no private key in PEM"),
    (CHAIN, CHAIN, "tls_key {folder}/k.pem holds no private key in PEM"),
    (CHAIN, KEY[: len(KEY) // 2] + b"\n-----END PRIVATE KEY-----\n", "can't be used: "),
]


def files(folder, chain: bytes | None = CHAIN, key: bytes | None = KEY) -> ServerConfig:
    for name, content in (("c.pem", chain), ("k.pem", key)):
        if content is not None:
            (folder / name).write_bytes(content)
    return ServerConfig(tls_cert=str(folder / "c.pem"), tls_key=str(folder / "k.pem"))


def made(server: ServerConfig) -> ssl.SSLContext:
    certificate = read_certificate(server)
    assert certificate is not None
    return server_context(certificate, server)
