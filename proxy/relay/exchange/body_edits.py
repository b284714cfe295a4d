"""What changes in a request's body beside the model, for one provider: two settings ask for it, no others.

``request_stream_usage`` of the provider adds ``stream_options.include_usage``; ``max_tokens`` of the key
limits an answer whose request does not, or only in a word that the provider may not know. Such bodies are
held until they are whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.wire.include_usage import USAGE_ASKED_AT, Edit
from proxy.wire.output_limits import MAX_TOKENS, WORDS

if TYPE_CHECKING:
    from proxy.relay.exchange.attempt import Attempt

_OLDER_WORD: Final = f'"{WORDS[MAX_TOKENS]}"'.encode()


def edits_of(attempt: Attempt, pieces: list[bytes]) -> list[Edit] | None:
    """The edits, if there are any; the attempt notes that a usage is to be taken out again.

    :param pieces: of the whole body.
    """
    exchange, provider = attempt.exchange, attempt.provider
    endpoint, body = exchange.endpoint, exchange.body
    edits: list[Edit] = []
    if exchange.streamed and provider.asks_usage and endpoint in USAGE_ASKED_AT:
        found = body.asking_for_usage(pieces)
        if isinstance(found, Edit):
            edits, attempt.asks_usage = [found], True
    if exchange.answer_limit:
        word = provider.limit_words[endpoint]
        # A server that knows only chat's older word passes over the newer one, and gets both. Where the newer
        # one is known, it is enough, and OpenAI refuses both together.
        if not exchange.has_newer_limit or word == _OLDER_WORD:
            edits += body.limiting(pieces, word, exchange.answer_limit)
    return edits or None
