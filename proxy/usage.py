"""Reads the provider's token counts from the end of an answer, and prices them.

Only the last few KiB of an answer are kept while it streams past, so the readers here work on a tail whose
beginning may be missing. They rest on one fact: in valid JSON the bytes ``"usage"`` without a backslash
before them are one whole string token (an unescaped quote that closed a string could not be followed by a
letter). If the tail from there on, with the missing opening put in front, is valid JSON up to its end, the
token is a key at exactly the depth of that opening. Text that a model wrote has its quotes escaped and can't
pass.

Counts are normalised: ``input_tokens`` includes cached ones and cache writes, ``output_tokens`` includes
reasoning, whatever the provider's own convention. Only a usage at its known place counts: at the top of an
answer or event, in an event's ``response``, in the ``message`` of a ``message_start``; of several the last.

Money is integer: prices become pico-USD per token when the configuration is loaded, costs nano-USD.
"""

from __future__ import annotations

from decimal import Decimal
from json import JSONDecoder
from math import ceil
from typing import Any, Final, NamedTuple

import orjson

from proxy.config import ModelConfig

# No answer has a hundred million tokens: a larger number is garbage and must not reach a key's budget.
_MAX_COUNT: Final = 100_000_000
# How many places called "usage" are tried, from the end: honest answers have one or two, and the cap keeps a
# tail that is full of them from costing a parse each.
_MAX_CANDIDATES: Final = 8
_KEY: Final = b'"usage"'
_DECODER: Final = JSONDecoder()
_WRITING: Final = ("chat", "completions")
_BACKSLASH: Final = 0x5C

# Tokens per byte of English JSON text, where nothing was observed.
TOKENS_PER_BYTE: Final = 0.25
# Output tokens of an answer, where nothing was observed: a short one.
USUAL_OUTPUT_TOKENS: Final = 300.0
# Bytes of an event stream per token: a chat chunk with one token has 200 to 300 bytes, Anthropic's deltas
# carry several tokens in 120.
_STREAM_BYTES_PER_TOKEN: Final = 160


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


class PartPrices(NamedTuple):
    """What parts of input and output cost, in pico-USD per token; None where unknown."""

    cache_write_pusd: int | None
    reasoning_pusd: int | None
    audio_input_pusd: int | None
    audio_output_pusd: int | None


class Prices(NamedTuple):
    """Prices of a model in pico-USD (1e-12) per token; None where the configuration has none.

    ``parts`` is None for most models, whose parts all cost what the rest does: nothing to look at for them.
    """

    input_pusd: int | None
    cached_pusd: int | None
    output_pusd: int | None
    parts: PartPrices | None = None


def prices_of(model: ModelConfig) -> Prices:
    """The model's prices as integers: exact up to six decimals of a USD per million tokens."""
    given = _pusd_per_token(model.input_price_usd_per_mtok)
    output = _pusd_per_token(model.output_price_usd_per_mtok)
    parts = PartPrices(
        _pusd_per_token(model.cache_write_price_usd_per_mtok, given),
        _pusd_per_token(model.reasoning_price_usd_per_mtok, output),
        _pusd_per_token(model.audio_input_price_usd_per_mtok, given),
        _pusd_per_token(model.audio_output_price_usd_per_mtok, output),
    )
    cached = _pusd_per_token(model.cached_input_price_usd_per_mtok, given)
    return Prices(given, cached, output, None if parts == (given, output, given, output) else parts)


def price_nusd(usage: Usage, prices: Prices) -> int | None:
    """What an answer costs in nano-USD, rounded half up; None where a price that it needs is unknown."""
    input_pusd, cached_pusd, output_pusd, parts = prices  # not by name: each costs a call
    if parts is not None:
        return _price_apart_nusd(usage, prices, parts)
    given, cached, output = usage[0], usage[1], usage[3]
    if input_pusd is None or cached_pusd is None:
        return None
    cost_pusd = (given - cached) * input_pusd + cached * cached_pusd
    if output:
        if output_pusd is None:
            return None
        cost_pusd += output * output_pusd
    return (cost_pusd + 500) // 1000


def _price_apart_nusd(usage: Usage, prices: Prices, parts: PartPrices) -> int | None:
    """As :func:`price_nusd`, each part at its own price."""
    given, cached, written, output, reasoning, _, audio_input, audio_output = usage
    cost_pusd = 0
    for tokens, pusd in (
        (given - cached - written - audio_input, prices.input_pusd),
        (cached, prices.cached_pusd),
        (written, parts.cache_write_pusd),
        (audio_input, parts.audio_input_pusd),
        (output - reasoning - audio_output, prices.output_pusd),
        (reasoning, parts.reasoning_pusd),
        (audio_output, parts.audio_output_pusd),
    ):
        if tokens:
            if pusd is None:
                return None
            cost_pusd += tokens * pusd
    return (cost_pusd + 500) // 1000


def estimate(body_bytes: int, tokens_per_byte: float, output_bytes: int, *, streamed: bool = False) -> Usage:
    """A usage for an answer that reported none.

    :param body_bytes: size of the request body, base64 data URLs left out.
    :param tokens_per_byte: as observed for the deployment, else :data:`TOKENS_PER_BYTE`.
    :param output_bytes: size of the answer's body.
    :param streamed: the answer is an event stream, most of which is wrapping.
    """
    per_byte = 1 / _STREAM_BYTES_PER_TOKEN if streamed else TOKENS_PER_BYTE
    return Usage(
        input_tokens=ceil(body_bytes * tokens_per_byte),
        output_tokens=ceil(output_bytes * per_byte),
        estimated=True,
    )


def read_plain(tail: bytes, endpoint: str, aside: bytes = b"") -> Usage | None:
    """The usage of a JSON answer.

    :param tail: the last bytes of its body, up to its end; all of them where they fit.
    :param endpoint: as in :data:`proxy.config.ENDPOINTS`.
    :param aside: the bytes from a key ``"usage"`` on that stood before the tail; b"" where there was none.
        They count where the tail has no usage. At what depth it stood is not known: an object in the answer's
        own JSON, as text that a model wrote has its quotes escaped.
    :returns: None if the answer has no top-level ``usage``, or it can't be seen.
    """
    depth_proven, found = _read_suffix(tail, b"{")
    if not depth_proven:
        # The key may be spelled with escapes, or stand behind too many others: ask the parser, if all is
        # here. (A true tail never parses as an object: its last brace closes one that began before it.)
        body = _loads(tail)
        found = body.get("usage") if isinstance(body, dict) else None
        if body is None and aside:
            found = _object_behind_key(aside)
    return _from_object(found, endpoint)


def read_events(tail: bytes, endpoint: str, head: bytes = b"") -> Usage | None:
    """The usage of an event stream: that of the last event which has one.

    :param tail: the last bytes of the stream; its first event may be cut at the front.
    :param endpoint: as in :data:`proxy.config.ENDPOINTS`.
    :param head: the first bytes of the stream where they are not in the tail. Only ``messages`` needs them:
        its input tokens come with the first event, its output tokens with the last but one.
    :returns: None if no event in reach has a usage. Without the first event of ``messages`` the input tokens
        may be 0.
    """
    blocks = _blocks(tail)
    last: dict[str, Any] | None = None
    for position in range(len(blocks) - 1, -1, -1):
        last = _event_usage(blocks[position], endpoint, is_cut=position == 0)
        if last is not None:
            break
    if endpoint != "messages":
        return _from_object(last, endpoint)
    start = _message_start(head) or _message_start(tail)
    # message_delta counts up to the end and wins, but need not repeat what message_start said.
    # Some say nothing there but zeros.
    merged = dict(start or {})
    merged |= {name: value for name, value in (last or {}).items() if value or merged.get(name) is None}
    return _from_object(merged, endpoint)


def partial_usage(tail: bytes, first: bytes, endpoint: str) -> Usage | None:
    """What a provider had counted of an answer that was broken off, or whose client left.

    The output may be provisional: ``message_start`` counts one token or none, and continuous usage (vLLM's
    ``continuous_usage_stats``) what had been written by then.

    :param tail: the last bytes that came; its last event may be cut short.
    :param first: the first ones where they are not in the tail.
    :param endpoint: as in :data:`proxy.config.ENDPOINTS`.
    :returns: None if nothing was counted yet. Zeros are no counts: some vendors begin with them.
    """
    usage = read_events(tail, endpoint, first)
    if usage is None and first:
        usage = read_events(first, endpoint)
    return usage if usage is not None and (usage.input_tokens or usage.output_tokens) else None


def _blocks(stream: bytes) -> list[bytes]:
    """The events of a stream, with LF line ends. JSON has no bare CR in strings: none is content."""
    if b"\r" in stream:
        stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return stream.split(b"\n\n")


def _event_usage(block: bytes, endpoint: str, *, is_cut: bool) -> dict[str, Any] | None:
    """The usage object of one event; ``is_cut``: its beginning may be missing."""
    if b"usage" not in block:
        return None
    data = _data(block)
    event = _loads(data)
    found = None
    if isinstance(event, dict):
        holder: Any = event
        if endpoint == "responses":
            holder = event.get("response", event)
        elif endpoint == "messages" and event.get("type") == "message_start":
            holder = event.get("message")
        found = holder.get("usage") if isinstance(holder, dict) else None
    elif event is None:
        # Cut at the front: response.completed repeats the whole answer and is often longer than the tail. Or
        # text that orjson refuses: half of a surrogate pair, where a model's token ends within a character.
        if is_cut:
            line, _, rest = block.partition(b"\n")
            data = line + b"\n" + _data(rest)
        found = _read_suffix(data, b'{"":{' if endpoint == "responses" else b"{")[1]
    return found if isinstance(found, dict) and found else None


def _message_start(stream: bytes) -> dict[str, Any] | None:
    """The usage in the ``message_start`` event of the Anthropic API, if that event is whole in ``stream``."""
    for block in _blocks(stream):
        if b"message_start" in block:
            event = _loads(_data(block))
            if isinstance(event, dict) and event.get("type") == "message_start":
                message = event.get("message")
                usage = message.get("usage") if isinstance(message, dict) else None
                return usage if isinstance(usage, dict) else None
    return None


def _data(block: bytes) -> bytes:
    """The data of one event: its ``data`` lines, joined (WHATWG HTML, 9.2.6)."""
    return b"\n".join(line[5:] for line in block.split(b"\n") if line.startswith(b"data:"))


def _read_suffix(tail: bytes, opening: bytes) -> tuple[bool, Any]:
    """Find the last ``"usage"`` key that lies exactly as deep as ``opening`` opens.

    :param opening: ``{``, or ``{"":{`` for a key within the outer object's last but one brace.
    :returns: whether one was proven to lie there, and its value.
    """
    end = len(tail)
    for _ in range(_MAX_CANDIDATES):
        end = tail.rfind(_KEY, 0, end)
        if end < 0:
            break
        if end and tail[end - 1] == _BACKSLASH:
            continue
        found = _loads(opening + tail[end:])
        if found is not None:
            return True, (found[""] if len(opening) > 1 else found)["usage"]
    return False, None


def _object_behind_key(aside: bytes) -> Any:
    """The object that follows on a key and its colon, whatever comes behind it; None if it is not whole."""
    text = aside.decode("utf-8", "replace")
    try:
        return _DECODER.raw_decode(text, text.index("{"))[0]
    except (ValueError, RecursionError):
        return None


def _loads(data: bytes) -> Any:
    """The JSON value, or None if it is not valid (JSON's own null is of no use here either)."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _from_object(found: Any, endpoint: str) -> Usage | None:
    """Read a usage object of any of the known shapes; None if nothing in it is a count."""
    if type(found) is not dict:
        return None
    if "prompt_tokens" not in found and "completion_tokens" not in found:
        return _from_input_shape(found)
    given, output = _whole(found.get("prompt_tokens")), _whole(found.get("completion_tokens"))
    if given < 0 or output < 0:
        if given == output:
            return _from_input_shape(found)
        other = max(_whole(found.get("total_tokens")) - max(given, output), 0)
        given, output = (other, output) if given < 0 else (given, other)
    elif endpoint in _WRITING:
        # Some (Gemini's and xAI's OpenAI-compatible endpoints) leave reasoning out of completion_tokens but
        # charge for it; their total tells.
        total = found.get("total_tokens")
        if type(total) is int and total - given > output and total <= _MAX_COUNT:
            output = total - given
    cached = written = audio_input = reasoning = audio_output = 0
    details = found.get("prompt_tokens_details")
    if type(details) is dict:
        if details.get("audio_tokens") or details.get("cache_write_tokens"):
            cached, written, audio_input = _input_parts(details, given)
        else:  # nearly always; saves a call, as below
            cached = _part(details.get("cached_tokens"), given)
    details = found.get("completion_tokens_details")
    if type(details) is dict:
        if details.get("audio_tokens"):
            reasoning, audio_output = _output_parts(details, output)
        else:
            reasoning = _part(details.get("reasoning_tokens"), output)
    # Not by calling Usage: that takes twice as long.
    return tuple.__new__(Usage, (given, cached, written, output, reasoning, False, audio_input, audio_output))


def _from_input_shape(found: dict[str, Any]) -> Usage | None:
    """The shapes with ``input_tokens``: Responses, images (cached ones within), Anthropic (cached apart).

    Anthropic's ``cache_creation`` tells for how long what was written is kept, and
    ``cache_creation_input_tokens`` is the sum of that.
    """
    given = _count(found, "input_tokens")
    output = _count(found, "output_tokens")
    if given is None and output is None:
        # Embedding and rerank APIs exist that report only a total.
        total = _count(found, "total_tokens")
        return None if total is None else Usage(input_tokens=total)
    read = _count(found, "cache_read_input_tokens") or 0
    written = _count(found, "cache_creation_input_tokens") or 0
    given = (given or 0) + read + written
    output = output or 0
    audio_input = reasoning = audio_output = 0
    details = found.get("input_tokens_details")
    if type(details) is dict:
        cached, cache_write, audio_input = _input_parts(details, given - read - written)
        read, written = read or cached, written or cache_write
    details = found.get("output_tokens_details")
    if type(details) is dict:
        reasoning, audio_output = _output_parts(details, output)
    return Usage(given, read, written, output, reasoning, False, audio_input, audio_output)


def _input_parts(details: dict[str, Any], whole: int) -> tuple[int, int, int]:
    """Cached tokens, cache writes (OpenAI from GPT-5.6 on, OpenRouter) and audio; at most ``whole``."""
    cached = _part(details.get("cached_tokens"), whole)
    written = _part(details.get("cache_write_tokens"), whole - cached)
    return cached, written, _part(details.get("audio_tokens"), whole - cached - written)


def _output_parts(details: dict[str, Any], whole: int) -> tuple[int, int]:
    """Reasoning and audio; together at most ``whole``."""
    reasoning = _part(details.get("reasoning_tokens"), whole)
    return reasoning, _part(details.get("audio_tokens"), whole - reasoning)


def _part(value: Any, whole: int) -> int:
    """A plausible count, at most ``whole``; 0 if it is none."""
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        value = max(_whole(value), 0)
    return whole if value > whole else value


def _count(holder: Any, name: str) -> int | None:
    """A plausible count, or None. ``type`` and not isinstance: True is an int to Python, and no count."""
    value = _whole(holder.get(name)) if type(holder) is dict else -1
    return None if value < 0 else value


def _whole(value: Any) -> int:
    """A plausible count, or -1."""
    if type(value) is float and value.is_integer():  # some write all numbers so
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else -1


def _pusd_per_token(usd_per_mtok: float | None, default: int | None = None) -> int | None:
    """1 USD per 1e6 tokens is 1e6 times 1e-12 USD per token. Decimal of repr: 0.1 is meant as written."""
    return default if usd_per_mtok is None else round(Decimal(repr(usd_per_mtok)) * 1_000_000)
