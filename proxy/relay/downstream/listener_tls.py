"""TLS on the data listeners: handshakes, and the certificate that is replaced while connections stay."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable
from weakref import WeakSet

log = logging.getLogger("tokenhub.tls")

# What OpenSSL says of a handshake that begins as HTTP does: by GET, POST, HEAD or PUT, or by CONNECT.
_PLAIN_HTTP = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")


class ServedTLS(ssl.SSLObject):
    """TLS with one client.

    A client that speaks plain HTTP is told so in clear text: :attr:`listener` has the response. The event
    loop knows nothing of it. It takes the handshake to wait for more, writes what there is to write, and
    gives the connection up when the client leaves, or a handshake's time is over.
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
                self.outgoing.read()  # an alert would stand before the response
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

    :param limit: the number of clients that may be at their handshake.
    :param answer_in_clear: the whole answer to a client that speaks plain HTTP.
    """
    made = ListenerTLS(ssl.PROTOCOL_TLS_SERVER)
    made.current = context
    made.limit = limit
    made.answer_in_clear = answer_in_clear
    made.handshakes = WeakSet()
    return made
