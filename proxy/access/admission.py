"""A request that is to be sent: the most it may use, held against the limits of its key.

The most a request may use is its prompt, and as much output as it asks for, for each prompt and each response
it wants; where it says nothing, as much as the models that may answer it write at most. This is reserved
before it is sent, and is the most it is charged if its usage is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.access.grants import Grant
from proxy.access.permits import Permit
from proxy.errors import BadRequest
from proxy.routing.pool import Pool
from proxy.usage.media_tokens import most_spoken
from proxy.usage.response_usage import TOKENS_PER_BYTE
from proxy.wire.output_limits import BEST_OF, COUNT, LIMITS_AT, OUTPUT_LIMITS, WORDS, OutputLimits

# See :func:`prompt_tokens`.
_LEAST_PER_BYTE: Final = 0.9 * TOKENS_PER_BYTE
_MOST_OUTPUT: Final = 1_000_000  # no model writes a million tokens
_MOST_ANSWERS: Final = 128  # OpenAI's maximum of n


class Most:
    """The most tokens a request may use: ``given`` in its prompt, ``output`` in all of its ``answers``.

    ``expected``: the likely size of its prompt: charged where the provider did not count.

    What has a price of its own, as far as one is known: ``heard`` of the prompt are sounds, ``writes_cache``:
    the rest goes into a cache; ``speaks``: the answers are sound.
    """

    __slots__ = ("answers", "expected", "given", "heard", "output", "speaks", "writes_cache")

    def __init__(
        self, given: int, output: int, answers: int = 1, heard: int = 0, *,
        writes_cache: bool = False, speaks: bool = False,
    ) -> None:  # fmt: skip
        self.given = self.expected = given
        self.output = output
        self.answers = answers
        self.heard = heard
        self.writes_cache = writes_cache
        self.speaks = speaks

    def __repr__(self) -> str:
        return f"<Most {self.given} + {self.output} tokens>"


def most_of(
    pool: Pool, fallbacks: Sequence[Pool], wants: OutputLimits, prompts: int, prompt_tokens: float
) -> Most:
    """The most a request may use.

    :param fallbacks: what else it may go to. :param prompts: how many prompts it has.
    :param prompt_tokens: an estimate of them all.
    """
    output = min(wants.output, _MOST_OUTPUT)
    if output <= 0:
        output = pool.most_output
        for fallback in fallbacks:
            output = max(output, fallback.most_output)
    elif wants.in_newer_word:
        output = max(output, pool.most_by_max_tokens)
        for fallback in fallbacks:
            output = max(output, fallback.most_by_max_tokens)
    if pool.endpoint == "speech":
        output = min(output, most_spoken(prompt_tokens))
    answers = wants.answers * max(prompts, 1)
    return Most(int(prompt_tokens) + 1, output * answers, answers, speaks=pool.endpoint == "speech")


def prompt_tokens(
    pool: Pool, streamed: bool, text_bytes: int, media_tokens: int, *, at_most: bool = False
) -> float:
    """An estimate of a prompt's tokens, by what the pool's first member was seen to count for each byte.

    It takes the median of the keys' own medians (:mod:`proxy.deployments.votes`), with 0.25 where fewer than
    three requests told, and never less than nine tenths of that: 4 bytes of English text make a token
    (OpenAI, "What are tokens and how to count them?"), and what one client sends must not make prompts cheap
    for all. At most it is one a byte, which no tokenizer exceeds.

    :param text_bytes: of the request, without pictures and sounds. :param media_tokens: of those.
    :param at_most: not what is to be expected, but what nine of ten prompts stay below: to reserve.
    """
    own, other = pool.streamed_rows[0], pool.plain_rows[0]
    votes = own.per_byte if streamed else other.per_byte
    if not votes.is_enough:
        votes = other.per_byte if streamed else own.per_byte
    per_byte = TOKENS_PER_BYTE
    if votes.is_enough:
        per_byte = min(max(votes.upper if at_most else votes.typical, _LEAST_PER_BYTE), 1.0)
    return text_bytes * per_byte + media_tokens


def limit_of(
    grant: Grant, endpoint: str, found: Sequence[tuple[int, float]], wants: OutputLimits, prompts: int
) -> int:
    """Return the limit to put on each response, in the provider's word: what a key's ``max_tokens`` leaves
    where the request does not limit them itself, and its own limit where it says that in a word which not all
    providers know. 0: it does, or nothing limits a response there.

    :param found: as :func:`proxy.wire.output_limits.written_limits` returns; and ``wants`` what they mean.
    :raises BadRequest: 422, it asks for more, or for something that is no number of tokens, or in a way that
        programs may read differently.
    """
    most = grant.max_tokens
    assert most is not None
    for word, value in found:
        if word in OUTPUT_LIMITS and value <= 0:
            raise _refused(f"'{WORDS[word]}' must be at least 1, not {value:g}.", word, "invalid_max_tokens")
        if word in OUTPUT_LIMITS and value > most:
            raise _refused(_TOO_MUCH.format(most), word, "max_tokens_exceeded")
    if endpoint not in LIMITS_AT:
        return 0
    answers = wants.answers * max(prompts, 1)
    words = LIMITS_AT[endpoint]
    if not words:
        return 0
    word = words[0]
    if wants.unclear >= 0:
        said = WORDS[wants.unclear]
        text = (
            f"'{said}' must be a whole number of at least 1, and stand in the body once, in plain spelling."
        )
        raise _refused(text, wants.unclear, "invalid_max_tokens")
    if wants.said * answers > most:
        text = f"{wants.said} tokens for each of {answers} answers are more than this API key may have in"
        raise _refused(f"{text} a request: {most} tokens.", word, "max_tokens_exceeded")
    if answers > most:
        text = f"{answers} answers are more than this API key may have in a request: {most} tokens."
        raise _refused(text, word, "max_tokens_exceeded")
    if wants.output:
        return wants.output if wants.in_newer_word else 0
    return most // answers


def check_answers(found: Sequence[tuple[int, float]], wants: OutputLimits) -> None:
    """Check the number of responses that a request asks for.

    :param found: as :func:`proxy.wire.output_limits.written_limits` returns; and ``wants`` what they mean.
    :raises BadRequest: 422, it asks for more than any API has, or for what is no number.
    """
    if wants.answers > _MOST_ANSWERS:
        word = max((value, word) for word, value in found if word in (COUNT, BEST_OF))[1]
        text = f"'{WORDS[word]}' must be a whole number up to {_MOST_ANSWERS}."
        raise _refused(text, word, "too_many_answers")


def admit(
    grant: Grant, pool: Pool, fallbacks: Sequence[Pool], most: Most | None, now: float, unix_s: float
) -> Permit | None:
    """Let a request in; None: the key has nothing to count it against.

    :param fallbacks: what else it may go to.
    :param most: what to reserve; None: nothing, as no limit of the key is about that.
    :param now: monotonic seconds. :param unix_s: the same moment for calendars.
    :raises LimitReached: 402 or 429: a limit of the key is reached.
    """
    account = grant.account
    if not account.is_limited:
        return None
    tokens = nusd = 0
    if most is not None:
        tokens, nusd = most.given + most.output, dearest_nusd(pool, fallbacks, most)
    return account.admit(now, unix_s, tokens, nusd)


def dearest_nusd(pool: Pool, fallbacks: Sequence[Pool], most: Most) -> int:
    """Return the most a request may cost, in nano-USD: at the price of the dearest model that may answer
    it."""
    given_pusd, output_pusd = pool.dearest
    for fallback in fallbacks:
        given_pusd = max(given_pusd, fallback.dearest[0])
        output_pusd = max(output_pusd, fallback.dearest[1])
    heard_pusd = given_pusd
    if most.heard or most.writes_cache or most.speaks:
        for each in (pool, *fallbacks):
            written, heard, spoken = each.dearest_parts or (0, 0, 0)
            heard_pusd = max(heard_pusd, heard)
            given_pusd = max(given_pusd, written) if most.writes_cache else given_pusd
            output_pusd = max(output_pusd, spoken) if most.speaks else output_pusd
    rest = most.given - most.heard
    return (given_pusd * rest + heard_pusd * most.heard + output_pusd * most.output) // 1000


_TOO_MUCH: Final = "The request asks for more output than this API key allows: {} tokens per request."


def _refused(text: str, word: int, code: str) -> BadRequest:
    return BadRequest(text, status=422, code=code, param=WORDS[word])
