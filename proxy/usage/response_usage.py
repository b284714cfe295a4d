"""Reads the provider's token counts from the end of a response.

Only the last few KiB of a response are kept while it streams past, so the readers here work on a tail whose
beginning may be missing. They rest on one fact: in valid JSON the bytes ``"usage"`` without a backslash
before them are one whole string token (an unescaped quote that closed a string could not be followed by a
letter). If the tail from there on, with the missing opening put in front, is valid JSON up to its end, the
token is a key at exactly the depth of that opening. Text that a model wrote has its quotes escaped and can't
pass.

Only a usage at its known place counts: at the top of a response or event, in its first choice or a vendor's
member there, in an event's ``response``, in the ``message`` of a ``message_start``, in the ``delta`` of a
``message-end``; of several the last. What stands in it is :mod:`proxy.usage.tokens`' business.
"""

from __future__ import annotations

from json import JSONDecoder
from typing import Any, Final

import orjson

from proxy.usage.tokens import Usage, merged, of_object
from proxy.wire.sse import data_of, split_events

# How many objects called "usage" are tried, from the end: honest answers have one or two, and the cap keeps a
# tail that is full of them from costing a parse each.
_MAX_CANDIDATES: Final = 8
_KEY: Final = b'"usage"'
_DECODER: Final = JSONDecoder()
_BACKSLASH: Final = 0x5C
_SPACE: Final = 0x20
_COLON: Final = 0x3A
_BRACE: Final = 0x7B
# Groq's member of a response that has the usage too. Not `metadata`: that is the client's own, come back.
_VENDOR: Final = "x_groq"
# What vendors have in place of a usage: Gemini; Cohere with vectors and scores; llama.cpp if not asked.
_INSTEAD: Final = ("usageMetadata", "meta", "timings")
_INSTEAD_KEYS: Final = (b'"usageMetadata"', b'"meta"', b'"timings"')

# Tokens per byte of English JSON text, where nothing was observed.
TOKENS_PER_BYTE: Final = 0.25
# Output tokens of a response, where nothing was observed: a short one.
USUAL_OUTPUT_TOKENS: Final = 300.0


def read_plain(tail: bytes, endpoint: str, aside: bytes = b"") -> Usage | None:
    """The usage of a JSON answer.

    :param tail: the last bytes of its body, up to its end; all of them where they fit.
    :param endpoint: as in :data:`proxy.config.settings.ENDPOINTS`.
    :param aside: the bytes from the response's own key ``"usage"`` on that stood before the tail; b"" where
        there was none. They count where the tail has no usage.
    :returns: None if the response has no usage at its known places, or it can't be seen.
    """
    holder = _read_suffix(tail, b"{", _KEY)
    found = None if holder is None else holder["usage"]
    if found is None:
        # The key may be spelled with escapes, stand behind too many others, or within a choice: ask the
        # parser, if all is here. (A true tail never parses as an object: its last brace closes one that began
        # before.)
        body = _loads(tail)
        found = _held_by(body) if isinstance(body, dict) else None
        if body is None:
            found = _object_behind_key(aside) if aside else _instead_in(tail)
    return of_object(found, endpoint)


def read_events(tail: bytes, endpoint: str, head: bytes = b"", aside: bytes = b"") -> Usage | None:
    """The usage of an event stream: that of the last event which has one. Where it leaves a figure out, or
    says zero, the one before it counts.

    :param tail: the last bytes of the stream; its first event may be cut at the front.
    :param endpoint: as in :data:`proxy.config.settings.ENDPOINTS`.
    :param head: the first bytes of the stream where they are not in the tail. Only ``messages`` needs them:
        its input tokens come with the first event, its output tokens with the last but one.
    :param aside: as in :func:`read_plain`, of an event that is longer than the tail.
    :returns: None if no event in reach has a usage. Without the first event of ``messages`` the input tokens
        may be 0.
    """
    blocks = split_events(tail)
    last: Usage | None = None
    raw: dict[str, Any] | None = None
    left = _MAX_CANDIDATES
    for position in range(len(blocks) - 1, -1, -1):
        found = _event_usage(blocks[position], endpoint, is_cut=position == 0)
        if found is None:
            continue
        if endpoint == "messages":
            raw = found
            break
        last = _filled(last, of_object(found, endpoint))
        left -= 1
        if not left or (last is not None and last.input_tokens and last.output_tokens):
            break
    if endpoint != "messages":
        return of_object(_object_behind_key(aside), endpoint) if last is None and aside else last
    start = _message_start(head) or _message_start(tail)
    return of_object(merged(start or {}, raw or {}), endpoint)


def _filled(last: Usage | None, before: Usage | None) -> Usage | None:
    """``last``, with the figures it lacks from the one before."""
    if last is None or before is None:
        return last or before
    given, output = last, last
    if not last.input_tokens:
        given = before
    if not last.output_tokens:
        output = before
    return Usage(
        given.input_tokens, given.cached_tokens, given.cache_write_tokens, output.output_tokens,
        output.reasoning_tokens, False, given.audio_input_tokens, output.audio_output_tokens,
    )  # fmt: skip


def partial_usage(tail: bytes, first: bytes, endpoint: str) -> Usage | None:
    """Return the provider's count of a response that was broken off, or whose client disconnected.

    The output may be provisional: ``message_start`` counts one token or none, and continuous usage (vLLM's
    ``continuous_usage_stats``) what had been written by then.

    :param tail: the last bytes that came; its last event may be cut short.
    :param first: the first ones where they are not in the tail.
    :param endpoint: as in :data:`proxy.config.settings.ENDPOINTS`.
    :returns: None if nothing was counted yet. Zeros are no counts: some vendors begin with them.
    """
    usage = read_events(tail, endpoint, first)
    if usage is None and first:
        usage = read_events(first, endpoint)
    return usage if usage is not None and (usage.input_tokens or usage.output_tokens) else None


def _event_usage(block: bytes, endpoint: str, *, is_cut: bool) -> dict[str, Any] | None:
    """The usage object of one event; ``is_cut``: its beginning may be missing."""
    if block.find(b"usage") < 0 and block.find(b'"timings"') < 0:  # usageMetadata too
        return None
    data = data_of(block)
    event = _loads(data)
    found = None
    if isinstance(event, dict):
        holder: Any = event
        if endpoint == "responses":
            holder = event.get("response", event)
        elif endpoint == "messages" and event.get("type") == "message_start":
            holder = event.get("message")
        elif event.get("type") == "message-end":  # Cohere's own
            holder = event.get("delta")
        found = _held_by(holder) if isinstance(holder, dict) else None
    elif event is None:
        # Cut at the front: response.completed repeats the whole response and is often longer than the tail.
        # Or text that orjson refuses: half of a surrogate pair, where a model's token ends within a
        # character.
        if is_cut:
            line, _, rest = block.partition(b"\n")
            data = line + b"\n" + data_of(rest)
        cut = _read_suffix(data, b'{"":{' if endpoint == "responses" else b"{", _KEY)
        found = None if cut is None else cut["usage"]
    return found if isinstance(found, dict) and found else None


def _held_by(holder: dict[str, Any]) -> Any:
    """The usage in a response or event: its own, that of its first choice, or in what a vendor adds to it."""
    found = holder.get("usage")
    if isinstance(found, dict) and found:
        return found
    choices = holder.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        found = choices[0].get("usage")
        if isinstance(found, dict) and found:
            return found
    vendor = holder.get(_VENDOR)
    if isinstance(vendor, dict):
        found = vendor.get("usage")
        if isinstance(found, dict) and found:
            return found
    for name in _INSTEAD:
        found = holder.get(name)
        if isinstance(found, dict) and found:
            return found
    return holder if "eval_count" in holder else None  # Ollama's own answers have the counts beside the text


def _instead_in(tail: bytes) -> Any:
    """Read what the last bytes of a response have in place of a usage."""
    for name, key in zip(_INSTEAD, _INSTEAD_KEYS, strict=True):
        holder = _read_suffix(tail, b"{", key)
        if holder is not None:
            return holder[name]
    return None


def _message_start(stream: bytes) -> dict[str, Any] | None:
    """The usage in the ``message_start`` event of the Anthropic API, if that event is whole in ``stream``."""
    for block in split_events(stream):
        if b"message_start" in block:
            event = _loads(data_of(block))
            if isinstance(event, dict) and event.get("type") == "message_start":
                message = event.get("message")
                usage = message.get("usage") if isinstance(message, dict) else None
                return usage if isinstance(usage, dict) else None
    return None


def _read_suffix(tail: bytes, opening: bytes, key: bytes) -> dict[str, Any] | None:
    """Find the last ``key`` that lies exactly as deep as ``opening`` opens.

    :param opening: ``{``, or ``{"":{`` for a key within the outer object's last but one brace.
    :param key: with its quotes, and without escapes.
    :returns: the object with that key and all behind it; None if none was proven to lie there.
    """
    end, left = len(tail), _MAX_CANDIDATES
    while left and (end := tail.rfind(key, 0, end)) >= 0:
        if end and tail[end - 1] == _BACKSLASH:
            continue
        if not _is_object(tail, end + len(key)):
            continue  # in what a model wrote, or a key or value of metadata: text
        left -= 1
        found = _loads(opening + tail[end:])
        if found is not None:
            holder: Any = found[""] if len(opening) > 1 else found
            return holder if isinstance(holder, dict) else None  # another "" may follow in what is garbage
    return None


def _is_object(text: bytes, at: int) -> bool:
    """Return whether an object follows on a key that ends at ``at``; byte by byte, as a pattern costs far
    more."""
    wanted, size = _COLON, len(text)
    while at < size:
        byte = text[at]
        if byte == wanted:
            if byte == _BRACE:
                return True
            wanted = _BRACE
        elif byte > _SPACE:  # below it is white space, or no JSON
            return False
        at += 1
    return False


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
