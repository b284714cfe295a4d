"""The last event of a stream that a provider broke off: an error in the client's own protocol, at which SDKs
raise.

- Chat and completions: ``data: {"error":…}``, where the official SDKs look into every event.
- Messages: ``event: error``, since Anthropic's SDKs go by an event's name and skip one without.
- Responses: the same for OpenAI's, whose error has its members at the top (``ResponseErrorEvent`` of its
  reference) and, for those who look as at chat, within ``error`` too; then ``response.failed``, for clients
  that wait for a response's last word. Their numbers go on from the provider's, and the response is the one
  that it had begun.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from proxy.errors import GatewayError

# Only keys have a quotation mark without a backslash before them: what a model wrote is in strings.
_NUMBER: Final = re.compile(rb'(?<!\\)"sequence_number"\s*:\s*(\d{1,15})')
# How a stream of Responses begins: with the response that it is about.
_RESPONSE: Final = re.compile(rb'(?<!\\)"response"\s*:\s*\{([^{}\[\]]*)')
_ID: Final = re.compile(rb'(?<!\\)"id"\s*:\s*"([A-Za-z0-9._:-]{1,200})"')
_CREATED: Final = re.compile(rb'(?<!\\)"created_at"\s*:\s*(\d{1,12})')


def last_event(error: GatewayError, endpoint: str, request_id: bytes, first: bytes, tail: bytes) -> bytes:
    """The event, or events, in place of the end that never came.

    :param endpoint: as in :data:`proxy.endpoints.ENDPOINTS`. :param request_id: the gateway's.
    :param first: the stream's first bytes, if they are no longer in ``tail``, its last ones.
    """
    if endpoint == "messages":
        return b"event: error\ndata: %b\n\n" % error.anthropic_envelope(request_id)
    if endpoint != "responses":
        return b"data: %b\n\n" % error.envelope()
    numbers = _NUMBER.findall(tail)
    number = int(numbers[-1]) + 1 if numbers else 0
    own = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    failed = {"id": f"resp_{request_id.decode()}", **_response(first or tail)} | {
        "object": "response", "status": "failed", "output": [], "usage": None, "incomplete_details": None,
        "error": {"code": "server_error", "message": error.message},
    }  # fmt: skip
    return _event("error", {**own, "type": "error", "sequence_number": number, "error": own}) + _event(
        "response.failed", {"type": "response.failed", "sequence_number": number + 1, "response": failed}
    )


def _response(begin: bytes) -> dict[str, Any]:
    """Return the members by which a client knows its response, from the beginning of the stream."""
    match = _RESPONSE.search(begin)
    about = match[1] if match else b""
    known: dict[str, Any] = {}
    if found := _ID.search(about):
        known["id"] = found[1].decode()
    if found := _CREATED.search(about):
        known["created_at"] = int(found[1])
    return known


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
