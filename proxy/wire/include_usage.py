"""Asks for the usage of a stream on the gateway's own account, and keeps the response as it would have been.

``stream_options.include_usage`` of a chat or completions request adds two things to a stream: one more event
before ``[DONE]`` with an empty list of choices and the usage, and ``"usage":null`` in every other event.
:func:`ask_for_usage` puts the option into a request without touching anything else of it, and
:class:`UsageFilter` takes both out of the response, so that the client gets byte for byte what it would have
got.

What can't be told from the stream, and is decided here:

- A usage beside choices stays. Some providers send it with their last choices, or with all, whether they were
  asked or not; others only when asked. Choices are the response, and a client that did not ask ignores a
  usage.
- ``"usage":null`` and an event with a usage and no choices go, though a few providers may send them unasked.

What stands at the top level is told by :mod:`proxy.wire.outline`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import orjson

from proxy.endpoints import HAS_CHOICES
from proxy.wire.json_body import Keys, ends_of, is_empty_object, part_of
from proxy.wire.model_scanner import decoded
from proxy.wire.outline import BROKEN, ENDED, OUTSIDE, keys_of, outline, skip_white, value_at

# A larger event passes as it is: this much may be held of every open stream, and be searched in one turn of
# the event loop. A usage event has less than 1 KiB; what is larger holds images or sounds.
MAX_EVENT_BYTES: Final = 64 << 10
# Real options have less than 100 bytes.
MAX_OPTIONS_BYTES: Final = 4 << 10
# Where stream_options is known.
USAGE_ASKED_AT: Final = HAS_CHOICES
# Between a key and its value: see proxy.wire.outline.value_at.
_WHITE_BYTES: Final = 9 << 10

_OPTIONS_KEY: Final = b'"stream_options"'
_OPTION_KEY: Final = b'"include_usage"'
_USAGE_KEY: Final = b'"usage"'
_ASK: Final = b'"include_usage":true'
_WHITE: Final = b" \t\r\n"


# --- the request -----------------------------------------------------------------------------------------


class Edit(NamedTuple):
    """``body[start:end]`` is to be replaced."""

    start: int
    end: int
    replacement: bytes


class NoEdit(Enum):
    """Reasons why a body stays as it is. In either case nothing may be taken out of its response."""

    ASKED = auto()  # the client itself asks for the usage
    UNCLEAR = auto()  # two readers could take its options differently, or refuse them: the provider judges


_NULL_VALUE: Final = re.compile(rb"null[ \t\r\n]*+[,}]")


def ask_for_usage(pieces: Sequence[bytes], begin: int, keys: Keys) -> Edit | NoEdit:
    """Return the edit by which a request asks for the usage of its stream.

    :param pieces: of a whole body with ``"stream":true`` in it. It is not parsed; one that is no valid JSON
        is no better and no worse after the edit.
    :param begin: offset of its brace. :param keys: where its top-level keys that may be ``stream_options``
        begin and end, in any spelling.
    """
    ends, found = ends_of(pieces), []
    for start, stop in keys:
        key = part_of(pieces, ends, start, stop)
        if key == _OPTIONS_KEY:
            found.append((start, stop))
        elif key.find(b"\\") >= 0 and decoded(key) == "stream_options":
            return NoEdit.UNCLEAR  # no honest client writes it with escapes
    if not found:
        comma = b"" if is_empty_object(pieces, begin) else b","
        return Edit(begin + 1, begin + 1, b'"stream_options":{%b}%b' % (_ASK, comma))
    start, stop = found[0]
    part = part_of(pieces, ends, start, stop + _WHITE_BYTES + MAX_OPTIONS_BYTES)
    at = value_at(part, stop - start)
    if len(found) == 1 and part.startswith(b"{", at):
        edit = _edit_of_options(part, at)
        if isinstance(edit, NoEdit):
            return edit
        return Edit(start + edit.start, start + edit.end, edit.replacement)
    if len(found) == 1 and _NULL_VALUE.match(part, at):
        return Edit(start + at, start + at + 4, b"{%b}" % _ASK)
    return NoEdit.UNCLEAR


def is_clear(pieces: Sequence[bytes], begin: int, keys: Keys) -> bool:
    """Return whether all programs understand alike what a body says of the usage of its stream.

    Parameters as in :func:`ask_for_usage`.
    """
    ends = ends_of(pieces)
    for start, stop in keys:
        key = part_of(pieces, ends, start, stop)
        if key != _OPTIONS_KEY and (decoded(key) or "").casefold() == "stream_options":
            return False
    return ask_for_usage(pieces, begin, keys) is not NoEdit.UNCLEAR


def _edit_of_options(body: bytes, start: int) -> Edit | NoEdit:
    """The edit where the client has options of its own, which begin at ``start``."""
    options = _object_at(body, start)
    parsed = _loads(options)
    if not isinstance(parsed, dict):
        return NoEdit.UNCLEAR
    if parsed.get("continuous_usage_stats"):
        # vLLM's option to send a usage with every event: it waits for include_usage, and would begin with it.
        is_asked = parsed.get("include_usage") is True and len(list(_members(options, _OPTION_KEY))) == 1
        return NoEdit.ASKED if is_asked else NoEdit.UNCLEAR
    found = [value for _, value in _members(options, _OPTION_KEY)]
    if not found:
        return Edit(start + 1, start + 1, _ASK + (b"," if parsed else b""))
    at = found[0]
    if len(found) == 1:
        value = parsed["include_usage"]
        if value is True:
            return NoEdit.ASKED
        if value is False or value is None:
            return Edit(start + at, start + at + (4 if value is None else 5), b"true")
    return NoEdit.UNCLEAR


_OPTIONS_TOKEN: Final = re.compile(rb'"[^"\\]*+"|[{}\\]')


def _object_at(body: bytes, start: int) -> bytes:
    """The object that begins at ``start``; empty if it is too long, or has escapes, which no option needs."""
    depth = 0
    for token in _OPTIONS_TOKEN.finditer(body, start, start + MAX_OPTIONS_BYTES):
        kind = token[0][:1]
        if kind == b"{":
            depth += 1
        elif kind == b"}":
            depth -= 1
            if not depth:
                return body[start : token.end()]
        elif kind == b"\\":
            break
    return b""


def _members(body: bytes, key: bytes) -> Iterator[tuple[int, int]]:
    """Yield the beginnings of the top-level members ``key`` (plain spelling, with quotes), and of their
    values."""
    for start, stop in keys_of(body):
        if body[start:stop] == key:
            yield start, value_at(body, stop)


# --- the response ------------------------------------------------------------------------------------------

# An empty line, from the last byte of the line end before it on (WHATWG HTML, 9.2.6: LF, CRLF or CR). A CR
# may be half of a CRLF whose LF is still to come; that LF then stands before the next event. Other than
# proxy.wire.sse, which looks for what providers write, this takes line ends of two kinds in a row: half of an
# event must not be taken out.
_EVENT_END: Final = re.compile(rb"(?:\n|\r(?!\n))(?:\r\n?|\n)")
_EMPTY_LINES: Final = re.compile(rb"[\r\n]*+")
_LONGEST_END_BYTES: Final = 4
_EMPTY_LIST: Final = re.compile(rb"\[[ \t\r\n]*+\]")
_CHOICES_KEY: Final = b'"choices"'
_ERROR_KEY: Final = b'"error"'
_NO_NUMBERS: Final = re.compile(rb"Infinity|NaN")
_TOLD: Final = bytes(byte in b"uce" for byte in range(256))  # first letters of these three


class UsageFilter:
    """Fed with the payload of an event stream piece by piece, it gives what goes to the client.

    Whole events go out at once. One that is cut is held until the rest of it is there: whether it is to go
    shows at its end. For every split of a stream the output is the same.
    """

    __slots__ = ("_drop_lf", "_held", "_sent")

    def __init__(self) -> None:
        self._held = bytearray()  # an event's beginning
        # How many bytes of what is held have gone out: not 0 only within an event that is too large.
        self._sent = 0
        self._drop_lf = False  # a removed event ended with CR: an LF behind it is part of that line end

    @property
    def is_between_events(self) -> bool:
        """True if the output ends at the end of an event, and nothing is held."""
        return not self._held

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the payload; returns what goes to the client, which may be nothing."""
        held = self._held
        if self._drop_lf and data:
            self._drop_lf = False
            data = data[1:] if data[0] == 0x0A else data
        if not held:
            if data.endswith((b"\n\n", b"\r\n\r\n")) and _USAGE_KEY not in data:
                return data
            return self._take(data, 0, True)
        begin = len(held) - 1  # the last byte may be half of a line end, or the first of two
        held += data
        return self._take(held, begin, False)

    def finish(self) -> bytes:
        """The stream has ended: what is left, judged as if an empty line had closed its last event."""
        left = b"" if self._sent else without_usage(bytes(self._held))
        self._held.clear()
        self._sent = 0
        return left

    def _take(self, data: bytes | bytearray, begin: int, is_fresh: bool) -> bytes:
        """Pass on the events whose ends are found in ``data`` from ``begin`` on, and hold the rest.

        :param is_fresh: no event has begun before ``begin``.
        """
        out: list[bytes | bytearray] = []
        at = 0
        end = len(data)
        has_cr = data.find(b"\r", begin) >= 0
        while at < end:
            if is_fresh and data[at] in b"\r\n":  # more empty lines than are needed belong to no event
                begin = _EMPTY_LINES.match(data, at).end()  # type: ignore[union-attr]  # it always matches
                out.append(data[at:begin])
                at = begin
            if is_fresh and not has_cr:  # all events up to one with a usage in it are passed on as one
                usage = data.find(_USAGE_KEY, at)
                stop = data.rfind(b"\n\n", at, end if usage < 0 else usage) + 2
                if stop > at + 1:
                    out.append(data[at:stop])
                    at = begin = stop
                    continue
            stop = _end_of_event(data, begin, has_cr)
            if stop < 0:
                break
            out.append(self._judge(data[at:stop], stop == end))
            at = begin = stop
            is_fresh = True
        self._hold(data, at)
        if self._sent or _is_too_large(self._held):
            out.append(self._held[self._sent :])
            del self._held[:-1]
            self._sent = 1
        return b"".join(out)

    def _hold(self, data: bytes | bytearray, at: int) -> None:
        if data is self._held:
            del self._held[:at]
        else:
            self._held += data[at:]

    def _judge(self, event: bytes | bytearray, is_last: bool) -> bytes | bytearray:
        """Return the part of a complete event that goes out."""
        if self._sent:
            event = event[self._sent :]
            self._sent = 0
            return event
        if _is_too_large(event):
            return event
        kept = without_usage(bytes(event))
        if not kept and is_last:
            self._drop_lf = event[-1] == 0x0D
        return kept


def _end_of_event(data: bytes | bytearray, begin: int, has_cr: bool) -> int:
    """Offset behind the first empty line from ``begin`` on, or -1."""
    if has_cr:
        match = _EVENT_END.search(data, begin)
        return match.end() if match else -1
    at = data.find(b"\n\n", begin)  # a tenth of the time
    return at + 2 if at >= 0 else -1


def _is_too_large(event: bytes | bytearray) -> bool:
    """Without its end: the same however a stream is cut, and whether or not the event is complete."""
    size = len(event)
    if size <= MAX_EVENT_BYTES:
        return False
    end = event[-_LONGEST_END_BYTES:]
    return size - len(end) + len(end.rstrip(b"\r\n")) > MAX_EVENT_BYTES


def without_usage(event: bytes) -> bytes:
    """Return an event as it would be if the usage were not asked for; nothing if it would not be sent.

    It goes with all its lines. Events whose data is not one line with an object in it stay as they are. So do
    errors, whatever else they hold, and objects that two readers could take differently.
    """
    if event.find(_USAGE_KEY) < 0:
        return event
    begin, end = _data_span(event)
    payload = event[begin:end]
    start, stop, choices = _find_usage(payload)
    if start < 0:
        return event
    value = value_at(payload, stop)
    if _NULL_VALUE.match(payload, value):
        return event[:begin] + _without(payload, start, value + 4) + event[end:]
    is_usage = payload.startswith(b"{", value) and choices >= 0 and _EMPTY_LIST.match(payload, choices)
    return b"" if is_usage else event


def _find_usage(payload: bytes) -> tuple[int, int, int]:
    """Return the beginning and end of an object's key ``usage``, and the place of its ``choices``; -1 where
    missing.

    Not by parsing it: 64 KiB of empty lists take 6 ms.
    """
    keys, _, mode = outline(payload, 0, b"", OUTSIDE, _TOLD)
    if mode == BROKEN and _NO_NUMBERS.search(payload):  # vLLM and others write what Python's json writes
        payload = payload.replace(b"Infinity", b"0       ").replace(b"NaN", b"0  ")
        keys, _, mode = outline(payload, 0, b"", OUTSIDE, _TOLD)
    start = stop = choices = -1
    if mode != ENDED or not payload.startswith(b"{", skip_white(payload, 0)):
        return start, stop, choices
    for at in range(0, len(keys) - 1, 2):
        key = payload[keys[at] : keys[at + 1]]
        if key == _USAGE_KEY and start < 0:
            start, stop = keys[at], keys[at + 1]
        elif key == _CHOICES_KEY:
            choices = value_at(payload, keys[at + 1])
        elif (
            key == _USAGE_KEY  # twice
            or key.find(b"\\") >= 0  # no provider spells a member so
            or (key == _ERROR_KEY and not _NULL_VALUE.match(payload, value_at(payload, keys[at + 1])))
        ):
            return -1, -1, -1
    return start, stop, choices


def _data_span(event: bytes) -> tuple[int, int]:
    """Return the span of an event's data, with the white space around it; an empty span unless in one
    line."""
    end = len(event.rstrip(b"\r\n"))
    if event.startswith(b"data:") and event.find(b"\n", 0, end) < 0 and event.find(b"\r", 0, end) < 0:
        return 5, end  # by far most
    at = 0
    spans = []
    for line in event.splitlines(keepends=True):  # of bytes: at LF, CRLF and CR only
        if _is_data(line):
            spans.append((at + 5, at + len(line)))
        at += len(line)
    return spans[0] if len(spans) == 1 else (0, 0)


def _is_data(line: bytes) -> bool:
    return line.startswith(b"data:") or (line.startswith(b"data") and line.rstrip(b"\r\n") == b"data")


def _loads(payload: bytes) -> Any:
    """Parse JSON; None if it is not valid."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def _without(payload: bytes, start: int, stop: int) -> bytes:
    """A JSON object without the member ``payload[start:stop]`` and the comma that goes with it."""
    before, behind = payload[:start], payload[stop:]
    stripped = before.rstrip(_WHITE)
    if stripped.endswith(b","):
        return stripped[:-1].rstrip(_WHITE) + behind
    following = behind.lstrip(_WHITE)
    return before + following[1:].lstrip(_WHITE) if following.startswith(b",") else before + behind
