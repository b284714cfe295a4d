"""Opening a connection to a provider, and why it could not be opened.

Not compiled with the rest of the data path: what runs once a connection gains nothing, and a compiled
coroutine does not hear of an exception that leaves an ``async with`` (mypy 2, Python 3.13).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, cast

from proxy.config import ProviderConfig
from proxy.tls import ProviderTLS

if TYPE_CHECKING:
    from proxy.attempt import Attempt
    from proxy.upstream import ProviderConnection


async def dial(
    attempt: Attempt, connection: ProviderConnection, provider: ProviderConfig, tls: ProviderTLS | None,
    connect_s: float,
) -> None:  # fmt: skip
    """Open ``connection`` for ``attempt``, which hears of it through on_connected or on_connect_failed.

    :param connect_s: seconds it may take, with the name's resolution and the handshake.
    """
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {}
    if tls is not None:
        options = {"ssl": tls, "server_hostname": provider.host}
    protocol = cast(asyncio.Protocol, connection)
    try:
        async with asyncio.timeout(connect_s):
            await loop.create_connection(lambda: protocol, provider.host, provider.port, **options)
    except asyncio.CancelledError:
        connection.undo()
        raise
    except TimeoutError:
        connection.undo()
        attempt.on_connect_failed(f"no connection within {connect_s:g} s")
    except ssl.SSLCertVerificationError as error:
        attempt.on_connect_failed(f"TLS: {error.verify_message}")
    except ssl.SSLError as error:
        attempt.on_connect_failed(f"TLS: {error.reason or error}")
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
        attempt.on_connect_failed(getattr(error, "strerror", None) or str(error))
    else:
        attempt.on_connected(connection)
