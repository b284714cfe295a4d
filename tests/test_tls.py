"""TLS settings towards providers, and on listeners. What they do on the wire is in test_server.py and
test_faults.py, and in test_listenertls.py."""

from __future__ import annotations

import ssl
from types import SimpleNamespace

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy import tls as tls_module
from proxy.config import ProviderConfig, ServerConfig, parse
from proxy.listeners import StartError
from proxy.tls import Certificate, ProviderTLS, listener_tls, read_certificate, server_context, ssl_context


def provider(url: str, ca_file: str = "") -> ProviderConfig:
    more = f'ca_file = "{ca_file}"\n' if ca_file else ""
    return parse(f'[providers.p]\nbase_url = "{url}"\n{more}[models."p/m"]\n').providers["p"]


def test_plain_http_needs_none():
    assert ssl_context(provider("http://127.0.0.1:1")) is None


def test_certificates_and_names_are_checked(tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    for ca_file in ("", str(tmp_path / "ca.pem")):
        context = ssl_context(provider("https://127.0.0.1:1", ca_file))
        assert context is not None
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


def test_a_ca_file_that_is_none(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(OSError):
            ssl_context(provider("https://127.0.0.1:1", str(tmp_path / name)))


@pytest.mark.parametrize(
    "session", [None, SimpleNamespace(has_ticket=False), SimpleNamespace(has_ticket=True)]
)
def test_only_a_session_with_a_ticket_is_kept(session):
    context = ProviderTLS(ssl.PROTOCOL_TLS_CLIENT)
    transport = SimpleNamespace(get_extra_info=lambda name: SimpleNamespace(session=session))
    context.remember(transport)  # type: ignore[arg-type]
    assert context.session is (session if session is not None and session.has_ticket else None)


# ---------------------------------------------------------------------- on the data listeners


ISSUED = trustme.CA().issue_cert("gateway.example")
CHAIN, KEY = ISSUED.cert_chain_pems[0].bytes(), ISSUED.private_key_pem.bytes()


def encrypted() -> bytes:
    key = serialization.load_pem_private_key(KEY, None)
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(
        serialization.Encoding.PEM, pkcs8, serialization.BestAvailableEncryption(b"secret")
    )


def files(folder, chain: bytes | None = CHAIN, key: bytes | None = KEY) -> ServerConfig:
    for name, content in (("c.pem", chain), ("k.pem", key)):
        if content is not None:
            (folder / name).write_bytes(content)
    return ServerConfig(tls_cert=str(folder / "c.pem"), tls_key=str(folder / "k.pem"))


def made(server: ServerConfig) -> ssl.SSLContext:
    certificate = read_certificate(server)
    assert certificate is not None
    return server_context(certificate, server)


def test_without_a_certificate():
    assert read_certificate(ServerConfig()) is None


@pytest.mark.parametrize("with_memfd", [True, False])
def test_a_context_of_certificate_and_key(tmp_path, monkeypatch, with_memfd):
    if not with_memfd:
        monkeypatch.delattr(tls_module.os, "memfd_create")
    context = made(files(tmp_path))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert made(files(tmp_path, CHAIN + KEY, CHAIN + KEY))  # both in one


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


@pytest.mark.parametrize(("chain", "key", "complaint"), WRONG)
def test_what_cant_be_used_is_named(tmp_path, chain, key, complaint):
    server = files(tmp_path, chain, key)
    with pytest.raises(StartError) as caught:
        made(server)
    assert complaint.format(folder=tmp_path) in str(caught.value)
    assert str(caught.value).startswith("[server] tls_")
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_certificate(tmp_path):
    server = ServerConfig(tls_cert=str(tmp_path), tls_key=str(tmp_path))
    with pytest.raises(StartError, match="tls_cert can't be read: Is a directory"):
        read_certificate(server)


def test_a_key_is_shown_nowhere():
    assert "PRIVATE" not in repr(Certificate(CHAIN, KEY))


def test_a_listeners_certificate_is_replaced_and_its_handshakes_are_counted(tmp_path):
    first, second = made(files(tmp_path)), made(files(tmp_path))
    listener = listener_tls(first, lambda: 2, lambda: b"")
    a, b = (listener.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True) for _ in range(2))
    assert (a.context, b.context, len(listener.handshakes)) == (first, first, 2)
    with pytest.raises(ConnectionRefusedError):
        listener.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    del a  # however it ended
    listener.current = second
    c = listener.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert c.context is second
