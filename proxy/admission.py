"""A request that is to be sent: held against the limits of its key."""

from __future__ import annotations

import re

from proxy.access import Grant
from proxy.errors import BadRequest
from proxy.limits import Permit
from proxy.pool import Pool
from proxy.scanner import BracketCounter, skip_white
from proxy.usage import TOKENS_PER_BYTE, USUAL_OUTPUT_TOKENS

# What limits an answer's length: chat's older and newer word, and that of the Responses API.
_OUTPUT_LIMITS = (b"max_tokens", b"max_completion_tokens", b"max_output_tokens")
_UNSEEN = TOKENS_PER_BYTE, 0.0, USUAL_OUTPUT_TOKENS
_WRITING = frozenset({"chat", "completions", "responses", "messages"})
# Also as text, which some providers take; whole, since they may read on where it seems to end ("1_000").
_NUMBER = re.compile(rb'("?)(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\1(?=[ \t\r\n]*[,}])')
# What those who read keys in either case (Go's encoding/json) also take: the Kelvin sign, the long s.
_FOLDED = {"k": "\u212a", "s": "\u017f"}


def _spelled(name: bytes) -> bytes:
    r"""A pattern for a JSON key, whichever of its letters are written as ``\u0061``, and in either case."""
    letters = []
    for letter in name.decode():
        forms = sorted({letter, letter.upper(), _FOLDED.get(letter, letter)})
        plain = [re.escape(form) for form in forms]
        escaped = [rf"\\u(?i:{ord(form):04x})" for form in forms]
        letters.append(f"(?:{'|'.join([*plain, *escaped])})")
    return "".join(letters).encode()


_ASKED = re.compile(b'"(?:' + b"|".join(map(_spelled, _OUTPUT_LIMITS)) + b')"')


# The same as everybody writes them, with a value; no model writes a million tokens.
_LIMIT = re.compile(rb'"max_(?:completion_|output_)?tokens"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,6})')


def output_limits(body: bytes) -> list[float]:
    """All that a body says of how long the answer may be, at its top level.

    However often and in whatever spelling: providers differ in which one counts. Infinite for what is no
    number.
    """
    found: list[float] = []
    counter = BracketCounter()
    counted = 0
    for match in _ASKED.finditer(body):
        start, stop = match.span()
        if start and body[start - 1] == 0x5C:
            continue
        counter.feed(body, counted, start)
        counted = start
        colon = skip_white(body, stop)
        if counter.depth == 1 and body[colon : colon + 1] == b":":
            value = skip_white(body, colon + 1)
            if not body.startswith(b"null", value):
                number = _NUMBER.match(body, value)
                found.append(float(number[2]) if number else float("inf"))
    return found


def admit(
    grant: Grant, pool: Pool, body: bytes, text_bytes: int, streamed: bool, now: float, unix_s: float
) -> Permit | None:
    """Let a request in; None: the key has nothing to count it against.

    :param body: as far as it is there; all of it for a key with ``max_tokens``.
    :param text_bytes: the size of its text, as far as known.
    :param now: monotonic seconds. :param unix_s: the same moment for calendars.
    :raises GatewayError: 402, 422 or 429: a limit of the key is reached.
    """
    if grant.max_tokens is not None and any(limit > grant.max_tokens for limit in output_limits(body)):
        raise BadRequest(
            f"The request asks for more output than this API key may: {grant.max_tokens} tokens a request.",
            status=422,
            code="max_tokens_exceeded",
            param="max_tokens",
        )
    account = grant.account
    if not account.is_limited:
        return None
    tokens = nusd = 0
    if account.reserves:
        tokens, nusd = _estimate(pool, body, text_bytes, streamed, now)
    return account.admit(now, unix_s, tokens, nusd)


def _estimate(pool: Pool, body: bytes, text_bytes: int, streamed: bool, now: float) -> tuple[int, int]:
    """Tokens and nano-USD to reserve: the prompt's, and of the answer what is asked for, or usual."""
    row = (pool.streamed_rows if streamed else pool.plain_rows)[0]
    per_byte, _, output = row.charges.ratios or _UNSEEN
    output_tokens = 0
    if pool.endpoint in _WRITING:
        output_tokens = int(output)
        if b'"max_' in body and (asked := _LIMIT.search(body)):
            # Where it stands matters little for an estimate.
            output_tokens = int(asked[1])
    given = int(text_bytes * per_byte) + 1
    input_pusd, _, output_pusd, _ = pool.members[0].prices
    nusd = ((input_pusd or 0) * given + (output_pusd or 0) * output_tokens) // 1000
    return given + output_tokens, nusd
