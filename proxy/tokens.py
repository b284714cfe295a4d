"""Token counts, and how to read them from a usage as vendors write it.

By field and not by vendor, as most speak another's language: a count is taken from whichever field has it.
Counts are normalised: ``input_tokens`` includes cached ones and cache writes, ``output_tokens`` includes
reasoning, whatever the provider's own convention. Where two conventions use one field, arithmetic decides
which it is: what the total says, and that parts are no more than the whole.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

# No answer has a hundred million tokens: a larger number is garbage and must not reach a key's budget.
_MAX_COUNT: Final = 100_000_000
# Where text is written, and reasoning may be left out of what was written.
_WRITING: Final = ("chat", "completions")

# Prompt, answer and sum: OpenAI's, and most others'; Responses' and Anthropic's; Gemini's; Ollama's.
_GIVEN: Final = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count")
_WRITTEN: Final = ("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count")
# Parts of the prompt read from a cache, beside those in the details: Moonshot's, DeepSeek's, Gemini's.
_CACHED: Final = ("cached_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount")
# Reasoning beside the details: xAI's and Perplexity's, Gemini's.
_REASONING: Final = ("reasoning_tokens", "thoughtsTokenCount")
# Anthropic's, which are not within its input_tokens; others have them within their prompt_tokens, or beside.
_READ: Final = "cache_read_input_tokens"
_CREATED: Final = "cache_creation_input_tokens"


class Usage(NamedTuple):
    """Tokens of one answer.

    ``cached_tokens``, ``cache_write_tokens`` and ``audio_input_tokens`` are parts of ``input_tokens``,
    ``reasoning_tokens`` and ``audio_output_tokens`` of ``output_tokens``; parts don't overlap, and together
    are never more than the whole. ``estimated``: counted by us from bytes, not by the provider.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0


def of_object(found: Any, endpoint: str) -> Usage | None:
    """Read a usage object of any of the known shapes; None if nothing in it is a count."""
    if type(found) is not dict:
        return None
    get = found.get
    given, output, total = get("prompt_tokens"), get("completion_tokens"), get("total_tokens")
    if (
        type(given) is int and type(output) is int and type(total) is int
        and 0 <= given <= _MAX_COUNT and output >= 0 and given + output == total <= _MAX_COUNT
    ):  # fmt: skip
        in_details, out_details = get("prompt_tokens_details"), get("completion_tokens_details")
        if len(found) == 3 + (in_details is not None) + (out_details is not None):
            return _usual(given, output, in_details, out_details)
    return _unusual(found, endpoint)


def _usual(given: int, output: int, in_details: Any, out_details: Any) -> Usage:
    """OpenAI's own shape, with nothing beside."""
    cached = written = heard = reasoning = spoken = 0
    if type(in_details) is dict:
        cached = _part(_count(in_details, "cached_tokens"), given)
        if in_details.get("audio_tokens") or in_details.get("cache_write_tokens"):
            written = _part(_count(in_details, "cache_write_tokens"), given - cached)
            heard = _part(_count(in_details, "audio_tokens"), given - cached - written)
    if type(out_details) is dict:
        reasoning = _part(_count(out_details, "reasoning_tokens"), output)
        if out_details.get("audio_tokens"):
            spoken = _part(_count(out_details, "audio_tokens"), output - reasoning)
    # Not by calling Usage: that takes twice as long.
    return tuple.__new__(Usage, (given, cached, written, output, reasoning, False, heard, spoken))


def _unusual(found: dict[str, Any], endpoint: str) -> Usage | None:
    given, output = _whole(found.get("prompt_tokens")), _whole(found.get("completion_tokens"))
    if given < 0 and output < 0:
        given, output = _first(found, _GIVEN), _first(found, _WRITTEN)
    total = _whole(found.get("total_tokens"))
    if total < 0:
        total = _whole(found.get("totalTokenCount"))
    if given < 0 and output < 0:
        # Embedding and rerank APIs exist that report only a total.
        return None if total < 0 else Usage(input_tokens=total)
    if given < 0 or output < 0:
        other = max(total - max(given, output), 0)
        given, output = (other, output) if given < 0 else (given, other)
    read, created = _count(found, _READ), _count(found, _CREATED)
    if (read or created) and _is_beside(found, given, output, total, read + created):
        given += read + created
    cached, written, audio_input = _parts_of_input(found, given, read, created)
    reasoning, audio_output = 0, 0
    details = found.get("completion_tokens_details") or found.get("output_tokens_details")
    if type(details) is dict:
        reasoning, audio_output = _count(details, "reasoning_tokens"), _count(details, "audio_tokens")
    for name in _REASONING:
        reasoning = reasoning or _count(found, name)
    # Some (Gemini's and xAI's OpenAI-compatible endpoints) leave reasoning out of what was written but charge
    # for it; their total tells, where nothing else explains it.
    more = total - given - output
    is_told = reasoning == more or (endpoint in _WRITING and (not reasoning or reasoning > output))
    if more > 0 and is_told:
        output += more
    reasoning = _part(reasoning, output)
    audio_output = _part(audio_output, output - reasoning)
    return Usage(given, cached, written, output, reasoning, False, audio_input, audio_output)


def _parts_of_input(found: dict[str, Any], given: int, read: int, created: int) -> tuple[int, int, int]:
    """What of a prompt was read from a cache, written to one, or sound."""
    written = audio = 0
    cached = read
    details = found.get("prompt_tokens_details") or found.get("input_tokens_details")
    if type(details) is dict:
        cached = max(read, _count(details, "cached_tokens"))
        written, audio = _count(details, "cache_write_tokens"), _count(details, "audio_tokens")
    if not cached:
        for name in _CACHED:
            cached = cached or _count(found, name)
    cached = _part(cached, given)
    written = _part(max(created, written), given - cached)
    return cached, written, _part(audio, given - cached - written)


def _is_beside(found: dict[str, Any], given: int, output: int, total: int, cache: int) -> bool:
    """Whether cache reads and writes are not within the prompt's tokens."""
    if "prompt_tokens" not in found or cache > given:
        return True  # Anthropic's own shape; or they can't be
    return total == given + output + cache


def _first(found: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of the fields that is a count, or -1."""
    for name in names:
        value = _whole(found.get(name))
        if value >= 0:
            return value
    return -1


def _count(holder: dict[str, Any], name: str) -> int:
    """A plausible count, or 0."""
    value = holder.get(name)
    return 0 if value is None else max(_whole(value), 0)


def _part(value: int, whole: int) -> int:
    return whole if value > whole else value


def _whole(value: Any) -> int:
    """A plausible count, or -1. ``type`` and not isinstance: True is an int to Python, and no count."""
    if type(value) is float and value.is_integer():  # some write all numbers so
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else -1
