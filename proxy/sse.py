"""The end of an event stream by its own word, whatever becomes of the connection after it.

OpenAI's chat and completions end with ``data: [DONE]``, its Responses with ``response.completed``,
``response.incomplete`` or ``response.failed``; Anthropic's Messages with ``message_stop``, in which Bedrock
puts members of its own; others with ``event: done``. The last event of a Responses stream repeats the whole
answer, so of one that is longer than what is kept of a stream its beginning is remembered
(:func:`begin_of_last`).
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from proxy.peek import read_event

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


def is_ended(tail: bytes, begin: bytes = b"") -> bool:
    """Whether the last event of a stream says that it is the last, and is there as a whole.

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


def begin_of_last(kept: bytes, keep: int, before: bytes, *, is_first: bool) -> bytes:
    """What to remember of the last event, of which only the last ``keep`` bytes of ``kept`` will stay.

    :param before: what was remembered until now. :param is_first: ``kept`` begins with the stream.
    :returns: its beginning; b"" where that stays.
    """
    at = _start(kept, _stop(kept, len(kept)))
    if at < 0:
        if not is_first:
            return before
        at = 0
    return kept[at : at + BEGIN_BYTES] if at < len(kept) - keep else b""


def _stop(text: bytes, end: int) -> int:
    """Where the last line that is not empty ends, before ``end``."""
    while end and text[end - 1] in _LINE_ENDS:
        end -= 1
    return end


def _start(text: bytes, stop: int) -> int:
    """Where the event begins whose last line ends at ``stop``; below 0: not in this text."""
    found = last = -1
    for line_end in (b"\n\n", b"\r\n\r\n", b"\r\r"):
        at = text.rfind(line_end, last if last > 0 else 0, stop)
        if at >= 0 and at + len(line_end) > found:
            found, last = at + len(line_end), at
    return found


def _closes(rest: bytes) -> bool:
    return rest.startswith((b"\n\n", b"\r\n\r\n", b"\r\r"))


def _is_last(name: bytes, data: bytes, is_closed: bool) -> bool:
    if data.strip() == b"[DONE]":
        return True
    if is_closed and name in _LAST_NAMES:
        return True
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("type") in _LAST_TYPES


def _names_end(begin: bytes) -> bool:
    name, _ = read_event(begin)
    if name in _LAST_NAMES:
        return True
    match = _TYPE_FIRST.search(begin)
    return match is not None and match[1].decode() in _LAST_TYPES
