"""The paths of the data listener, and the API endpoint behind each."""

from __future__ import annotations

from typing import Final

# Path below the version prefix -> the endpoint whose rules and figures it shares.
PATHS: Final = {
    b"/chat/completions": "chat",
    b"/completions": "completions",
    b"/embeddings": "embeddings",
    b"/responses": "responses",
    b"/messages": "messages",
    b"/messages/count_tokens": "count_tokens",
    b"/images/generations": "images",
    b"/audio/speech": "speech",
    b"/moderations": "moderations",
    b"/rerank": "rerank",
}
# Clients forget the /v1 all the time.
PROXIED: Final[dict[bytes, tuple[str, bytes]]] = {
    prefix + path: (endpoint, path) for path, endpoint in PATHS.items() for prefix in (b"/v1", b"")
}
