"""TLS: towards providers, and on the data listeners."""

from __future__ import annotations

import asyncio
import logging
import ssl

from proxy.config.settings import ProviderConfig

log = logging.getLogger("tokenhub.tls")

ALPN = ["http/1.1"]


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
    context.set_alpn_protocols(ALPN)
    return context


# ---------------------------------------------------------------------- on the data listeners
