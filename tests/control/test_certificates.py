"""The listeners' certificate and its key."""

from __future__ import annotations

import ssl

import pytest

from proxy.config.settings import ServerConfig
from proxy.control import certificates
from proxy.control.certificates import Certificate, read_certificate
from proxy.errors import StartError
from tests.support.certificates import CHAIN, KEY, WRONG, files, made


def test_without_a_certificate():
    assert read_certificate(ServerConfig()) is None


@pytest.mark.parametrize("with_memfd", [True, False])
def test_a_context_of_certificate_and_key(tmp_path, monkeypatch, with_memfd):
    if not with_memfd:
        monkeypatch.delattr(certificates.os, "memfd_create")
    context = made(files(tmp_path))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert made(files(tmp_path, CHAIN + KEY, CHAIN + KEY))  # both in one


@pytest.mark.parametrize(("chain", "key", "complaint"), WRONG)
def test_what_cant_be_used_is_named(tmp_path, chain, key, complaint):
    server = files(tmp_path, chain, key)
    with pytest.raises(StartError) as caught:
        made(server)
    assert complaint.format(folder=tmp_path) in str(caught.value)
    assert str(caught.value).startswith("[server] tls_")
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_certificate_and_a_key_is_shown_nowhere(tmp_path):
    server = ServerConfig(tls_cert=str(tmp_path), tls_key=str(tmp_path))
    with pytest.raises(StartError, match="tls_cert can't be read: Is a directory"):
        read_certificate(server)
    assert "PRIVATE" not in repr(Certificate(CHAIN, KEY))
