"""The sentence for a gateway that can't be reached: its address, what happened there, and what to do.

The causes are those of http.client and of aiohttp, which wraps them; neither's own words are shown.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence

# By name, as commands of the admin API don't load aiohttp. A connection that ended without a response; and
# what is not HTTP.
_CLOSED = frozenset(
    (
        "ConnectionResetError",
        "ConnectionAbortedError",
        "BrokenPipeError",
        "SSLEOFError",
        "ServerDisconnectedError",
    )
)
_NO_HTTP = frozenset(("BadStatusLine", "BadHttpMessage", "ClientResponseError", "LineTooLong"))


def unreachable(error: BaseException, what: str, address: str, option: str, certificate: str = "") -> str:
    """One sentence.

    :param what: was looked for, such as "gateway". :param address: as people write it.
    :param option: that names another address.
    :param certificate: the file with the only one that is trusted; "": any that is valid.
    """
    happened, way_out = _told(list(_causes(error)), address, option, certificate)
    return f"no {what} at {address}: {happened}; {way_out}"


def _told(causes: Sequence[BaseException], address: str, option: str, certificate: str) -> tuple[str, str]:
    """Name what happened, and what to do."""
    start = f"start one with 'tokenhub serve', or name its address with {option}"
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    # aiohttp's own error is one of these too, with nothing in it.
    refused = [cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)]
    if refused:
        said = [getattr(cause, "verify_message", "") for cause in refused]
        reason = next(filter(None, said), "it can't be verified")
        trust = "use the name that it is for, or set SSL_CERT_FILE to a PEM file with who signed it"
        if certificate:
            trust = f"it must be {certificate} ([server] tls_cert): restart the gateway, or use {option}"
        return f"its certificate is not trusted ({reason})", trust
    is_closed = bool(names & _CLOSED)
    for applies, happened, way_out in (
        (
            address.startswith("https:") and (is_closed or "SSLError" in names),
            "the server there does not speak TLS",
            f"write http:// in {option}, or see what listens there",
        ),
        ("ConnectionRefusedError" in names, "nothing listens there", start),
        ("gaierror" in names, "its name can't be resolved", f"see how it is spelled in {option}"),
        ("FileNotFoundError" in names, "there is no such socket", start),
        ("PermissionError" in names, "this user may not open it", "[server] socket_mode says who may"),
        ("TimeoutError" in names, "it does not answer in time", f"see that it runs, or use {option}"),
        (
            is_closed or bool(names & _NO_HTTP),
            "the server there does not speak HTTP",
            f"write https:// in {option} if it speaks TLS, or see what listens there",
        ),
    ):
        if applies:
            return happened, way_out
    found = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return found or str(causes[0]) or type(causes[0]).__name__, start


# What wraps what, in http.client, asyncio and aiohttp.
_INNER = ("_os_error", "_certificate_error", "__cause__", "__context__")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it wraps."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            waiting += [getattr(one, name, None) for name in _INNER]
