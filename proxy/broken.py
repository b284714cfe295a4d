"""How a stream that a provider broke off says so: a last event in the client's own protocol, at which SDKs
raise.

- Chat and completions: ``data: {"error":…}``, where the official SDKs look into every event.
- Messages: ``event: error``, since Anthropic's SDKs go by an event's name and skip one without.
- Responses: the same for OpenAI's, whose error has its members at the top (``ResponseErrorEvent`` of its
  reference) and, for those who look as at chat, within ``error`` too; then ``response.failed``, for clients
  that wait for a response's last word.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.errors import GatewayError


def last_event(error: GatewayError, endpoint: str, request_id: bytes) -> bytes:
    """The event, or events, in place of the end that never came.

    :param endpoint: as in :data:`proxy.config.ENDPOINTS`. :param request_id: the gateway's.
    """
    if endpoint == "messages":
        told = {"type": "api_error", "message": error.message, "code": error.code}
        return _event("error", {"type": "error", "error": told, "request_id": request_id.decode()})
    if endpoint != "responses":
        return b"data: %b\n\n" % error.envelope()
    own = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    failed = {
        "id": request_id.decode(), "object": "response", "status": "failed", "output": [],
        "error": {"code": "server_error", "message": error.message},
    }  # fmt: skip
    return _event("error", {**own, "type": "error", "sequence_number": 0, "error": own}) + _event(
        "response.failed", {"type": "response.failed", "sequence_number": 1, "response": failed}
    )


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
