"""Explains which parts of a request's head would reach which provider: a part of the admin API's explain.

The head is read and filtered as in the data plane. The result has names, and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from proxy.access.grants import others
from proxy.config.forwarding import TOO_LONG, Passing
from proxy.config.settings import ProviderConfig
from proxy.errors import BadRequest
from proxy.routing.request_options import read_options
from proxy.wire.header_lines import MAX_HEAD_BYTES
from proxy.wire.query import parameters
from proxy.wire.request_head import RequestHead, read_request_head

KINDS = ("header", "parameter")
_QUERY = re.compile(r"[!\"$-~]*")
_LINE = re.compile(r"[^\r\n:]+:[^\r\n]*")


def forwarding(lines: object, query: object, providers: Iterable[ProviderConfig]) -> list[dict[str, Any]]:
    """A row for each header and each parameter at each provider.

    :param lines: the request's headers, ``Name: value`` each; None: not given.
    :param query: as it stands in an address; None: not given.
    :raises BadRequest: they can't be read, or the data plane would refuse them.
    """
    written = _lines(lines)
    head = _head(written, _query(query))
    names = dict.fromkeys(line.partition(b":")[0] for line in written)
    return [row for provider in providers for row in _rows(head, list(names), provider)]


def _lines(given: object) -> list[bytes]:
    lines = [] if given is None else given
    if not isinstance(lines, list) or not all(
        isinstance(line, str) and _LINE.fullmatch(line) for line in lines
    ):
        text = "'headers' must be a list of lines such as \"OpenAI-Beta: assistants=v2\"."
        raise BadRequest(text, code="invalid_headers", param="headers")
    return [line.encode("utf-8", "replace") for line in lines]


def _query(given: object) -> bytes:
    if given is None:
        return b""
    if not isinstance(given, str) or not _QUERY.fullmatch(given):
        text = "'query' must be text as it stands in an address behind the '?', percent-encoded."
        raise BadRequest(text, code="invalid_headers", param="query")
    return given.encode()


def _head(lines: Sequence[bytes], query: bytes) -> RequestHead:
    first = b"POST /v1/chat/completions%b%b HTTP/1.1" % (b"?" if query else b"", query)
    has_host = any(line.partition(b":")[0].lower() == b"host" for line in lines)
    data = b"\r\n".join([first, *([] if has_host else [b"Host: explain"]), *lines])
    if len(data) > MAX_HEAD_BYTES:
        raise BadRequest("The head is larger than 32 KiB.", code="invalid_headers", param="headers")
    try:
        head = read_request_head(data)
        read_options(head)
    except BadRequest as error:
        text = f"Such a request is refused ({error.status}): {error.message}"
        raise BadRequest(text, code="invalid_headers", param="headers") from None
    return head


def _rows(head: RequestHead, names: Sequence[bytes], provider: ProviderConfig) -> Iterator[dict[str, Any]]:
    passing = Passing(provider)
    lines, dropped = passing.lines(head)
    sent = {line.partition(b":")[0].lower() for line in lines}
    if passing.is_passthrough:
        sent.update(name for name, _ in others(head.credentials) if passing.lets(name))
    if provider.compression == "pass":
        sent.add(b"accept-encoding")
    for name in names:
        lower = name.lower()
        reason = None
        if lower not in sent:
            reason = passing.why_no_header(lower)
            if reason is None and lower in dict(head.credentials):
                reason = "holds a key of this gateway"
            elif reason is None and lower in dropped:
                reason = TOO_LONG
            elif reason is None:
                reason = "is named by the Connection header"
        yield _row(provider, "header", name, reason)
    for name in dict.fromkeys(name for name, _ in parameters(head.query)):
        yield _row(provider, "parameter", name, passing.why_no_parameter(name))


def _row(provider: ProviderConfig, kind: str, name: bytes, reason: str | None) -> dict[str, Any]:
    return {
        "provider": provider.name,
        "kind": kind,
        "name": name.decode("latin-1"),
        "passes": reason is None,
        "reason": reason,
    }
