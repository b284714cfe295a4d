"""The end of an event stream by its own word, whatever becomes of the connection after it.

OpenAI's chat and completions end with ``data: [DONE]``, its Responses with ``response.completed``,
``response.incomplete`` or ``response.failed``; Anthropic's Messages with ``message_stop``, in which Bedrock
puts members of its own; others with ``event: done``. The last event of a Responses stream repeats the whole
answer, so of one that is longer than what is kept of a stream its beginning is remembered
(:func:`begin_of_last`).

Not all providers send such an event, or get to it. A response is whole too once it says why it stopped
(:func:`how_ended`): a ``finish_reason`` of every choice, or a ``stop_reason``. A usage may still follow it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from proxy.endpoints import HAS_CHOICES
from proxy.wire.sse import EVENT_END, EVENT_ENDS, read_event

_LAST_TYPES: Final = frozenset(
    ("message_stop", "response.completed", "response.incomplete", "response.failed")
)
_LAST_NAMES: Final = frozenset((b"done", *(name.encode() for name in sorted(_LAST_TYPES))))
# The type of an event whose data is longer than what is kept: where those that write such put it.
_TYPE_FIRST: Final = re.compile(rb'^data: ?\{\s*"type"\s*:\s*"([a-z_.]+)"', re.M)
# Enough of an event's beginning for its name and type.
BEGIN_BYTES: Final = 256
# Comments behind the last event are no events; a stream with more of them in a row has not come to its end.
_MOST_COMMENTS: Final = 8
_LINE_ENDS: Final = b"\r\n"

# What the last event says: nothing of an end, that the response is whole, or that the provider failed.
UNENDED: Final = 0
WHOLE: Final = 1
ERROR: Final = 2

# In JSON text these are keys, and never what a model wrote: there quotation marks have a backslash before
# them. For events that can't be parsed, as they are cut, or have NaN in them.
_FINISHED: Final = re.compile(rb'(?<!\\)"finish_reason"\s*:\s*"[^"]')
_STOPPED: Final = re.compile(rb'(?<!\\)"stop_reason"\s*:\s*"[^"]')
_INDEX: Final = re.compile(rb'(?<!\\)"index"\s*:\s*(\d{1,9})')


def how_ended(tail: bytes, begin: bytes, endpoint: str, has_finished: bool = False) -> int:
    """Return the state of a stream after its last event: ``UNENDED``, ``WHOLE`` or ``ERROR``.

    :param tail: and ``begin``: as in :func:`is_ended`.
    :param endpoint: ``chat`` and ``completions`` are whole once each choice of which there is anything in the
        tail has its ``finish_reason``, ``messages`` once there was a ``stop_reason``. Half an event behind
        that is no end.
    :param has_finished: what was there before the tail said last why the response stopped.
    """
    if is_ended(tail, begin):
        return WHOLE
    events = EVENT_END.split(tail)
    if is_half(events[-1]):
        return UNENDED
    if _is_error(events, begin, endpoint):
        return ERROR
    if endpoint in HAS_CHOICES:
        return WHOLE if _have_finished(events, has_finished) else UNENDED
    is_whole = endpoint == "messages" and (has_finished or any(map(_has_stopped, events)))
    return WHOLE if is_whole else UNENDED


def is_half(rest: bytes) -> bool:
    """Return whether bytes that no empty line closes are half an event. It is a whole one if its JSON is."""
    name, data = read_event(rest)
    if data:
        return _parsed(data) is None
    return bool(name) or any(line and not line.startswith(b":") for line in rest.splitlines())


def _parsed(data: bytes) -> Any:
    """Parse the data of an event; None: it is not JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _is_error(events: list[bytes], begin: bytes, endpoint: str) -> bool:
    """Return whether the last of the events is an error of the provider's own, at which SDKs of the endpoint
    raise. Those of messages go by its name, those of chat and completions by what it holds.

    :param begin: of the last one, where the tail begins within it.
    """
    for event in reversed(events):
        name, data = read_event(event)
        if name or data:
            break
    else:
        name, data = read_event(begin)[0], b""
    if endpoint == "messages":
        return name == b"error"
    found = _parsed(data) if data else None
    is_held = isinstance(found, dict) and bool(found.get("error"))
    return is_held or (endpoint == "responses" and name == b"error")


def _have_finished(events: list[bytes], before: bool) -> bool:
    """Return whether all choices that the events have anything of say why they stopped; without any choice,
    whether it was said ``before``."""
    seen: set[int] = set()
    finished: set[int] = set()
    for event in events:
        data = read_event(event)[1] or event
        found = _parsed(data)
        if found is None:
            if _FINISHED.search(data):
                match = _INDEX.search(data)
                finished.add(int(match[1]) if match else 0)
            continue
        choices = found.get("choices") if isinstance(found, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                number = index if isinstance(index, int) else 0
                seen.add(number)
                reason = choice.get("finish_reason")
                if isinstance(reason, str) and reason:
                    finished.add(number)
    return (before or bool(finished)) and seen <= finished


def _has_stopped(event: bytes) -> bool:
    """Return whether an event of the Messages API says why the response stopped."""
    if event.find(b"stop_reason") < 0:
        return False
    data = read_event(event)[1] or event
    found = _parsed(data)
    if found is None:
        return _STOPPED.search(data) is not None
    delta = found.get("delta") if isinstance(found, dict) else None
    reason = delta.get("stop_reason") if isinstance(delta, dict) else None
    return isinstance(reason, str) and bool(reason)


def is_ended(tail: bytes, begin: bytes = b"") -> bool:
    """Return whether the last event of a stream says that it is the last, and is there as a whole.

    :param tail: the stream's last bytes. :param begin: of the event that the tail begins in; b"": the tail
        begins with the stream, or between two events.
    """
    end = len(tail)
    for _ in range(_MOST_COMMENTS):
        stop = _stop(tail, end)
        at = _start(tail, stop)
        event = tail[max(at, 0) : stop]
        is_closed = end < len(tail) or _closes(tail[stop:])
        if at < 0 and begin:
            return is_closed and _names_end(begin)
        name, data = read_event(event)
        if name or data:
            return _is_last(name, data, is_closed)
        if at <= 0:
            return False
        end = at
    return False


def begin_of_last(kept: bytes, keep: int, before: bytes, *, is_first: bool) -> tuple[bytes, int]:
    """Return what to remember of the last event, of which only the last ``keep`` bytes of ``kept`` will stay.

    :param before: what was remembered until now. :param is_first: ``kept`` begins with the stream.
    :returns: its beginning, b"" where that stays; and where it stands in ``kept``, below 0: before that.
    """
    at = _start(kept, _stop(kept, len(kept)))
    if at < 0:
        if not is_first:
            return before, at
        at = 0
    return kept[at : at + BEGIN_BYTES] if at < len(kept) - keep else b"", at


def _stop(text: bytes, end: int) -> int:
    """Return the end of the last line before ``end`` that is not empty."""
    while end and text[end - 1] in _LINE_ENDS:
        end -= 1
    return end


def _start(text: bytes, stop: int) -> int:
    """Return the beginning of the event whose last line ends at ``stop``; below 0: it is not in this text."""
    found = last = -1
    for line_end in EVENT_ENDS:
        at = text.rfind(line_end, last if last > 0 else 0, stop)
        if at >= 0 and at + len(line_end) > found:
            found, last = at + len(line_end), at
    return found


def _closes(rest: bytes) -> bool:
    return rest.startswith(EVENT_ENDS)


def _is_last(name: bytes, data: bytes, is_closed: bool) -> bool:
    if data.strip() == b"[DONE]":
        return True
    if is_closed and name in _LAST_NAMES:
        return True
    found = _parsed(data)
    kind = found.get("type") if isinstance(found, dict) else None
    return isinstance(kind, str) and kind in _LAST_TYPES


def _names_end(begin: bytes) -> bool:
    name, _ = read_event(begin)
    if name in _LAST_NAMES:
        return True
    match = _TYPE_FIRST.search(begin)
    return match is not None and match[1].decode() in _LAST_TYPES
