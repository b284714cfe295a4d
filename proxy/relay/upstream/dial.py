"""Opening a connection to a provider, and why it could not be opened.

Not compiled with the rest of the data path: what runs once a connection gains nothing, and a compiled
coroutine does not hear of an exception that leaves an ``async with`` (mypy 2, Python 3.13).
"""

from __future__ import annotations

import asyncio
import errno
import random
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from proxy.relay.upstream.resolve import Addresses, reach
from proxy.relay.upstream.tls import ProviderTLS

if TYPE_CHECKING:
    from proxy.relay.upstream.connection import ProviderConnection, Receiver

# A connection that is always in use would never see that the provider's name has moved to other addresses.
# Names of providers live for one to five minutes, and a new connection in five minutes costs next to nothing.
MAX_AGE_S: Final = 300.0
# What was opened together is not to be opened again together.
_AGE_SPREAD: Final = 0.2
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH. Their messages name the host,
# which is no business of the client's.
_OTHER_NAME: Final = (62, 64)
# This machine, or this process, has no room for one more connection: nothing that a provider could help.
_OURS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


async def dial(
    receiver: Receiver, connection: ProviderConnection, addresses: Addresses, tls: ProviderTLS | None,
    host: str, connect_s: float,
) -> None:  # fmt: skip
    """Open ``connection`` for ``receiver``, which hears of it through on_connected or on_connect_failed.

    :param host: whom the certificate has to name.
    :param connect_s: seconds it may take, with the name's resolution and the handshake.
    """
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {}
    if tls is not None:
        # A handshake that is left in its middle stays in memory, with its buffers, until its own time is up.
        options = {"ssl": tls, "server_hostname": host, "ssl_handshake_timeout": connect_s}
    protocol = cast(asyncio.Protocol, connection)
    try:
        async with asyncio.timeout(connect_s):
            sock = await reach(await addresses.find())
            await loop.create_connection(lambda: protocol, sock=sock, **options)
    except asyncio.CancelledError:
        connection.undo()
        raise
    except TimeoutError:
        connection.undo()
        receiver.on_connect_failed(f"no connection within {connect_s:g} s")
    except ssl.SSLCertVerificationError as error:
        is_other = error.verify_code in _OTHER_NAME
        said = "the certificate is for another name" if is_other else error.verify_message
        receiver.on_connect_failed(f"TLS: {said}")
    except ssl.SSLError as error:
        receiver.on_connect_failed(f"TLS: {error.reason or error}")
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
        is_ours = isinstance(error, OSError) and error.errno in _OURS
        said = getattr(error, "strerror", None) or str(error)
        receiver.on_connect_failed(said or "the connection was closed", is_ours)  # in the handshake
    else:
        connection.kept_until = monotonic() + MAX_AGE_S * random.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD)
        receiver.on_connected(connection)
