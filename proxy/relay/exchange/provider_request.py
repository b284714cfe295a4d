"""A request as one provider gets it: its head, and the body with the model put in.

Beside the model only two settings change the body. ``request_stream_usage`` of the provider adds
``stream_options.include_usage``; ``max_tokens`` of the key limits a response whose request does not, or only
in a word that the provider may not know. Such bodies are held until they are whole.
"""

from __future__ import annotations

from typing import Final

from proxy.deployments.deployment import Deployment
from proxy.relay.exchange.request import Request
from proxy.relay.upstream.provider import Provider
from proxy.wire.framing import framed
from proxy.wire.include_usage import USAGE_ASKED_AT, Edit
from proxy.wire.output_limits import MAX_TOKENS, WORDS

_OLDER_WORD: Final = f'"{WORDS[MAX_TOKENS]}"'.encode()


def encode(
    request: Request, provider: Provider, deployment: Deployment, pieces: list[bytes], line: bytes
) -> tuple[list[bytes | memoryview], bool]:
    """The head, and as much of the body as is there; whether it asks for a usage in the client's place.

    :param pieces: of the body. :param line: a header line of this attempt's own, with its CRLF; or nothing.
    """
    head, body, edits, asks_usage = request.head, request.body, None, False
    prepared = head.prepared.get(provider)
    if prepared is None or head.dropped is not None:
        prepared = request.context.prepare(head, provider, request.path)
    if line:
        prepared += line
    if request.answer_limit or provider.asks_usage:
        edits, asks_usage = edits_of(request, provider, pieces)
    parts, growth = body.with_model(pieces, deployment.upstream_literal, edits)
    length = request.length
    if length is None and request.is_whole():  # it came in chunks, but its length is known by now
        length = body.size
    return framed(prepared, parts, None if length is None else length + growth, body.done), asks_usage


def edits_of(request: Request, provider: Provider, pieces: list[bytes]) -> tuple[list[Edit] | None, bool]:
    """The edits, if there are any, and whether one of them asks for a usage that the client did not ask for.

    :param pieces: of the whole body.
    """
    endpoint, body = request.endpoint, request.body
    edits: list[Edit] = []
    asks_usage = False
    if request.streamed and provider.asks_usage and endpoint in USAGE_ASKED_AT:
        found = body.asking_for_usage(pieces)
        if isinstance(found, Edit):
            edits, asks_usage = [found], True
    if request.answer_limit:
        word = provider.limit_words[endpoint]
        # A server that knows only chat's older word passes over the newer one, and gets both. Where the newer
        # one is known, it is enough, and OpenAI refuses both together.
        if not request.has_newer_limit or word == _OLDER_WORD:
            edits += body.limiting(pieces, word, request.answer_limit)
    return edits or None, asks_usage
