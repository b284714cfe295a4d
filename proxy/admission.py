"""A request that is to be sent: held against the limits of its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.access import Grant
from proxy.asked import (
    COUNT,
    MAX_COMPLETION_TOKENS,
    MAX_OUTPUT_TOKENS,
    MAX_TOKENS,
    OUTPUT_LIMITS,
    asked,
)
from proxy.body import Keys
from proxy.errors import BadRequest
from proxy.limits import Permit
from proxy.pool import Pool
from proxy.usage import TOKENS_PER_BYTE, USUAL_OUTPUT_TOKENS

# Which words limit an answer's length where: another's are ignored there, and promise nothing.
_WORDS_OF: Final = {
    "chat": (MAX_TOKENS, MAX_COMPLETION_TOKENS),
    "completions": (MAX_TOKENS,),
    "responses": (MAX_OUTPUT_TOKENS,),
    "messages": (MAX_TOKENS,),
}
# Where several answers can be asked for.
_SEVERAL: Final = frozenset({"chat", "completions"})
_MOST_ANSWERS: Final = 128
_MOST_OUTPUT: Final = 1e6  # no model writes a million tokens
# Of pictures and sounds so many bytes count as one of text: 1 MB is then 2,600 tokens, as a large one has.
_BYTES_A_BYTE: Final = 100
_UNSEEN = TOKENS_PER_BYTE, 0.0, USUAL_OUTPUT_TOKENS


def admit(
    grant: Grant, pool: Pool, fallbacks: Sequence[Pool], text: bytes, keys: Keys,
    body_bytes: int, text_bytes: int, streamed: bool, now: float, unix_s: float,
) -> Permit | None:  # fmt: skip
    """Let a request in; None: the key has nothing to count it against.

    :param fallbacks: what else it may go to.
    :param text: what the body says at its top-level ``keys`` that may be asked for, as far as it is there; at
        all of them for a key with ``max_tokens``.
    :param body_bytes: its size as far as it is there. :param text_bytes: that of its text, as far as known.
    :param now: monotonic seconds. :param unix_s: the same moment for calendars.
    :raises GatewayError: 402, 422 or 429: a limit of the key is reached.
    """
    account, most = grant.account, grant.max_tokens
    wanted = asked(text, keys) if most is not None or account.reserves else ()
    if most is not None and any(value > most for word, value in wanted if word in OUTPUT_LIMITS):
        raise BadRequest(
            f"The request asks for more output than this API key may: {most} tokens a request.",
            status=422,
            code="max_tokens_exceeded",
            param="max_tokens",
        )
    if not account.is_limited:
        return None
    tokens = nusd = 0
    if account.reserves:
        tokens, nusd = _estimate(pool, fallbacks, body_bytes, text_bytes, streamed, wanted)
    return account.admit(now, unix_s, tokens, nusd)


def _estimate(
    pool: Pool, fallbacks: Sequence[Pool], body_bytes: int, text_bytes: int, streamed: bool,
    wanted: Sequence[tuple[int, float]],
) -> tuple[int, int]:  # fmt: skip
    """Tokens and nano-USD to reserve: the prompt's, and of the answer what is asked for, or usual; at the
    price of whoever is the dearest of those that may answer."""
    row = (pool.streamed_rows if streamed else pool.plain_rows)[0]
    per_byte, _, output = row.charges.ratios or _UNSEEN
    words = _WORDS_OF.get(pool.endpoint)
    if words is None:
        output = 0.0
    elif wanted:
        limit, count = 0.0, 1.0
        for word, value in wanted:
            if word in words:
                limit = max(limit, value)
            elif word >= COUNT:
                count = max(count, value)
        if limit > 0:
            output = min(limit, _MOST_OUTPUT)
        if count > 1 and pool.endpoint in _SEVERAL:
            output *= min(count, _MOST_ANSWERS)
    output_tokens = int(output)
    pictures = body_bytes - text_bytes
    given = int((text_bytes + (pictures // _BYTES_A_BYTE if pictures > 0 else 0)) * per_byte) + 1
    input_pusd, output_pusd = pool.dearest
    for fallback in fallbacks:
        input_pusd, output_pusd = max(input_pusd, fallback.dearest[0]), max(output_pusd, fallback.dearest[1])
    return given + output_tokens, (input_pusd * given + output_pusd * output_tokens) // 1000
