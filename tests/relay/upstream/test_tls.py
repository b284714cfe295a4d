"""TLS settings towards providers, and on listeners. What they do on the wire is in test_server.py and
test_faults.py, and in test_listenertls.py."""

from __future__ import annotations

import ssl
from types import SimpleNamespace

import pytest
import trustme

from proxy.config.parse import parse
from proxy.config.settings import ProviderConfig
from proxy.relay.upstream.tls import ProviderTLS, ssl_context


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
