"""One of the gateway's errors as a whole HTTP response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.endpoints import is_anthropic, path_of
from proxy.errors import GatewayError

if TYPE_CHECKING:
    from proxy.wire.request_head import RequestHead

REASONS: Final = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 411: b"Length Required",
    413: b"Content Too Large", 415: b"Unsupported Media Type", 417: b"Expectation Failed",
    422: b"Unprocessable Content",
    429: b"Too Many Requests", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip


def gateway_response(
    error: GatewayError,
    request_id: bytes,
    head: RequestHead | None = None,
    begin: bytes = b"",
    *,
    extra: bytes = b"",
    close: bool,
) -> bytes:
    """A response of the gateway's own, whole, in the shape that the client of the API at its path reads.

    :param head: of the request: to a HEAD, the response has the length of its body, and no body. None: it
        can't be read, or is not whole, and ``begin`` is what there is of it.
    :param extra: header lines beside the error's own, each with its CRLF.
    """
    status = error.status
    if is_anthropic(path_of(begin), ()) if head is None else is_anthropic(head.path, head.lines):
        body = error.anthropic_envelope(request_id)
        extra = b"request-id: %b\r\n%b" % (request_id, extra)
    else:
        body = error.envelope()
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            % (status, REASONS.get(status, b"Unknown"), len(body)),
            b"X-Inferoute-Request-Id: %b\r\nx-request-id: %b\r\n" % (request_id, request_id),
            b"x-should-retry: true\r\n" if error.should_retry else b"x-should-retry: false\r\n",
            extra,
            error.header_lines(),
            b"Connection: close\r\n\r\n" if close else b"\r\n",
            b"" if head is not None and head.method == b"HEAD" else body,
        )
    )


def own_head(status: int, request_id: bytes, lines: bytes, body_bytes: int, *, close: bool) -> bytes:
    """The head of another response of the gateway's own.

    :param lines: header lines, each with its CRLF. :param body_bytes: the size of its body.
    """
    length = b"" if status == 204 else b"Content-Length: %d\r\n" % body_bytes  # RFC 9110 section 8.6
    end = b"Connection: close\r\n\r\n" if close else b"\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%bX-Inferoute-Request-Id: %b\r\n%b" % (
        status, REASONS[status], length, lines, request_id, end,
    )  # fmt: skip
