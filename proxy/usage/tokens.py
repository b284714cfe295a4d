"""Token counts, and how to read them from a usage as vendors write it.

By field and not by vendor, as most speak another's language: a count is taken from whichever field has it.
Counts are normalised: ``input_tokens`` includes cached ones and cache writes, ``output_tokens`` includes
reasoning, whatever the provider's own convention. Where two conventions use one field, arithmetic decides
which it is: what the total says, and that parts are no more than the whole.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.endpoints import HAS_CHOICES

# No response has a hundred million tokens: a larger number is garbage and must not reach a key's budget.
_MAX_COUNT: Final = 100_000_000

# Prompt, answer and sum: OpenAI's, and most others'; Responses' and Anthropic's; Gemini's; Bedrock's;
# Ollama's; llama.cpp's timings.
_GIVEN: Final = (
    "prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count", "prompt_n",
)  # fmt: skip
_WRITTEN: Final = (
    "completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count", "predicted_n",
)  # fmt: skip
_TOTAL: Final = ("total_tokens", "totalTokenCount", "totalTokens")
_DETAILS_IN: Final = (
    "prompt_tokens_details", "input_tokens_details", "input_token_details", "prompt_token_details",
)  # fmt: skip
_DETAILS_OUT: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
# Parts of the prompt read from a cache: in the details, and beside them Moonshot's, DeepSeek's, Mistral's,
# Gemini's.
_CACHED: Final = (
    "cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cachedContentTokenCount",
)  # fmt: skip
# Anthropic's, Bedrock's, and llama.cpp's, which are not within the input; others have them within their
# prompt_tokens, or beside. In details they are within.
_READ: Final = ("cache_read_input_tokens", "cacheReadInputTokens", "cache_n")
_CREATED: Final = ("cache_creation_input_tokens", "cacheWriteInputTokens")
# OpenAI's; Qwen's and Perplexity's.
_CREATED_WITHIN: Final = ("cache_write_tokens", "cache_creation_input_tokens")
_READ_WITHIN: Final = ("cached_tokens", "cache_read_input_tokens")
# By how long the cache keeps them, where their sum is not told.
_KEPT: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
# Reasoning: in the details OpenAI's and Anthropic's; beside them xAI's and Perplexity's, Gemini's.
_REASONING: Final = ("reasoning_tokens", "thinking_tokens", "thoughtsTokenCount")
# What the passes of one answer add up to, as Anthropic tells them: those by the model that was asked.
_PASSES: Final = ("message", "compaction")
_MOST_PASSES: Final = 1000
_SUMMED: Final = ("input_tokens", "output_tokens", _READ[0], _CREATED[0])
_NOTHING: Final[dict[str, Any]] = {}


class Usage:
    """Tokens of one response.

    ``cached_tokens``, ``cache_write_tokens`` and ``audio_input_tokens`` are parts of ``input_tokens``,
    ``reasoning_tokens`` and ``audio_output_tokens`` of ``output_tokens``; parts don't overlap, and together
    are never more than the whole. ``estimated``: counted by us from bytes, not by the provider.

    No dataclass: its ``__init__`` would run in the interpreter where this is compiled.
    """

    __slots__ = (
        "audio_input_tokens", "audio_output_tokens", "cache_write_tokens", "cached_tokens", "estimated",
        "input_tokens", "output_tokens", "reasoning_tokens",
    )  # fmt: skip

    def __init__(
        self, input_tokens: int = 0, cached_tokens: int = 0, cache_write_tokens: int = 0,
        output_tokens: int = 0, reasoning_tokens: int = 0, estimated: bool = False,
        audio_input_tokens: int = 0, audio_output_tokens: int = 0,
    ) -> None:  # fmt: skip
        self.input_tokens = input_tokens
        self.cached_tokens = cached_tokens
        self.cache_write_tokens = cache_write_tokens
        self.output_tokens = output_tokens
        self.reasoning_tokens = reasoning_tokens
        self.estimated = estimated
        self.audio_input_tokens = audio_input_tokens
        self.audio_output_tokens = audio_output_tokens

    def counts(self) -> tuple[int, int, int, int, int, bool, int, int]:
        """All of it, in the order of the parameters."""
        return (
            self.input_tokens, self.cached_tokens, self.cache_write_tokens, self.output_tokens,
            self.reasoning_tokens, self.estimated, self.audio_input_tokens, self.audio_output_tokens,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Usage) and self.counts() == other.counts()

    def __hash__(self) -> int:
        return hash(self.counts())

    def __repr__(self) -> str:
        return f"Usage{self.counts()}"


def merged(before: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """Two usages of one answer as Anthropic tells them: the last counts, but need not repeat the one before.

    Some say nothing in the last but zeros. Others (Kimi, Qwen) begin with the whole prompt as input, and only
    in the last take out of it what a cache had; then that input counts, even if nothing is left of it.
    """
    both = before | {name: value for name, value in last.items() if value or before.get(name) is None}
    if _first_of(last, _READ + _CREATED) and not _first_of(before, _READ + _CREATED):
        both["input_tokens"] = last.get("input_tokens", both.get("input_tokens"))
    return both


def of_object(found: Any, endpoint: str) -> Usage | None:
    """Read a usage object of any of the known shapes; None if nothing in it is a count."""
    if type(found) is not dict:
        return None
    given, output = found.get("prompt_tokens"), found.get("completion_tokens")
    total = found.get("total_tokens")
    if (
        type(given) is int and type(output) is int and type(total) is int
        and 0 <= given <= _MAX_COUNT and output >= 0 and given + output == total <= _MAX_COUNT
    ):  # fmt: skip
        in_details = found.get("prompt_tokens_details")
        out_details = found.get("completion_tokens_details")
        if len(found) == 3 + (in_details is not None) + (out_details is not None):
            return _usual(given, output, in_details, out_details)
    return _unusual(found, endpoint)


def _usual(given: int, output: int, in_details: Any, out_details: Any) -> Usage:
    """OpenAI's own shape, with nothing beside."""
    cached = written = heard = reasoning = spoken = 0
    if type(in_details) is dict:
        cached = _part(_count(in_details, "cached_tokens"), given)
        sound = in_details.get("audio_tokens")
        if sound or len(in_details) > (1 if sound is None else 2):
            written = _part(_first_of(in_details, _CREATED_WITHIN), given - cached)
            heard = _part(_count(in_details, "audio_tokens"), given - cached - written)
    if type(out_details) is dict:
        reasoning = _part(_count(out_details, "reasoning_tokens"), output)
        if out_details.get("audio_tokens"):
            spoken = _part(_count(out_details, "audio_tokens"), output - reasoning)
    return Usage(given, cached, written, output, reasoning, False, heard, spoken)


def _unusual(found: dict[str, Any], endpoint: str) -> Usage | None:
    found = _summed(_billed(found))
    given, output, total = _first(found, _GIVEN), _first(found, _WRITTEN), _first(found, _TOTAL)
    if given < 0 and output < 0:
        # Embedding and rerank APIs exist that report only a total.
        return None if total < 0 else Usage(input_tokens=total)
    if given >= 0:  # Gemini's, of what its tools gave the model to read
        given += _count(found, "toolUsePromptTokenCount")
    if given < 0 or output < 0:
        other = max(total - max(given, output), 0)
        given, output = (other, output) if given < 0 else (given, other)
    into, out = _details(found, _DETAILS_IN), _details(found, _DETAILS_OUT)
    reasoning = _first_of(out, _REASONING) or _first_of(found, _REASONING)
    read, created = _first_of(found, _READ), _first_of(found, _CREATED) or _kept(found)
    beside = apart = read + created
    cached = max(read, _first_of(into, _READ_WITHIN)) or _first_of(found, _CACHED)
    written = max(created, _first_of(into, _CREATED_WITHIN))
    if not apart or "prompt_tokens" in found:
        beside = _beside(given, total - given - output, cached, written, reasoning)
        beside = apart if not beside and apart > given else beside  # it can't be within
    given += beside
    output += _left_out(found, endpoint, total - given - output, output, reasoning)
    if "citation_tokens" in found:
        # Perplexity's research: what it read and thought is paid for beside what it wrote, and in no sum.
        given, output = given + _count(found, "citation_tokens"), output + reasoning
    cached = _part(cached, given)
    written = _part(written, given - cached)
    reasoning = _part(reasoning, output)
    heard = _count(into, "audio_tokens") or _sound(found.get("promptTokensDetails"))
    spoken = _count(out, "audio_tokens") or _sound(found.get("candidatesTokensDetails"))
    heard, spoken = _part(heard, given - cached - written), _part(spoken, output - reasoning)
    return Usage(given, cached, written, output, reasoning, False, heard, spoken)


def _beside(given: int, rest: int, cached: int, written: int, reasoning: int) -> int:
    """Return the number of a cache's tokens that the prompt's count does not include.

    :param rest: what the total has more than prompt and answer: the reading counts under which it adds up.
    """
    both = cached + written
    for beside in (0, both, written, cached):
        if rest in (beside, beside + reasoning) and both - beside <= given:
            return beside
    return 0


def _left_out(found: dict[str, Any], endpoint: str, more: int, output: int, reasoning: int) -> int:
    """Reasoning that is not within what was written. Some (Gemini's and xAI's OpenAI-compatible endpoints)
    leave it out but charge for it; their total tells, where nothing else explains it.

    :param more: what the total has more than prompt and answer.
    """
    if more <= 0:
        return 0
    if reasoning == more:
        return more
    if endpoint not in HAS_CHOICES or (reasoning and reasoning <= output):
        return 0
    return 0 if _count(found, "prompt_audio_seconds") else more  # Mistral's total has the sound that it heard


def _billed(found: dict[str, Any]) -> dict[str, Any]:
    """Cohere's usage is in two kinds, of which the first is what is paid for; any other as it is."""
    for name in ("billed_units", "tokens"):
        inner = found.get(name)
        if type(inner) is dict and max(_first(inner, _GIVEN), _first(inner, _WRITTEN)) >= 0:
            return inner if name == "billed_units" else found | inner
    return found


def _summed(found: dict[str, Any]) -> dict[str, Any]:
    """Anthropic's usage of a response that took several passes: compacting what came before is in none of its
    sums, but paid for. A pass by another model has another price, and one that another model repeated is in
    the sums as far as it is paid for.
    """
    passes = found.get("iterations")
    if type(passes) is not list or not 0 < len(passes) <= _MOST_PASSES:
        return found
    own = [one for one in passes if type(one) is dict and one.get("type") in _PASSES]
    if any(type(one) is dict and one.get("type") == "fallback_message" for one in passes):
        return found
    sums = {name: sum([_count(one, name) for one in own]) for name in _SUMMED}
    return found | {name: count for name, count in sums.items() if count > _count(found, name)}


def _kept(found: dict[str, Any]) -> int:
    """Cache writes, where only their parts are told."""
    parts = found.get("cache_creation")
    return sum([_count(parts, name) for name in _KEPT]) if type(parts) is dict else 0


def _sound(details: Any) -> int:
    """The part of a Gemini count that is sound."""
    for part in details if type(details) is list else ():
        if type(part) is dict and part.get("modality") == "AUDIO":
            return _count(part, "tokenCount")
    return 0


def _details(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the parts of a count; empty where it has none."""
    for name in names:
        details = found.get(name)
        if type(details) is dict and details:
            return details
    return _NOTHING


def _first(found: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first count under these names that is more than 0; else 0 if there is one, else -1."""
    best = -1
    for name in names:
        if name in found:
            count = _whole(found[name])
            if count > 0:
                return count
            best = max(best, count)
    return best


def _first_of(found: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first count under these names that is more than 0, else 0."""
    return max(_first(found, names), 0)


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
