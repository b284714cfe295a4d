"""Server-sent events (WHATWG HTML, section 9.2): where one ends, and its fields; an error as the first one.

Two readers have a scan of their own, since they run on every chunk and need positions in the received bytes:
:mod:`proxy.wire.response` keeps track of the last event, :mod:`proxy.wire.include_usage` takes events out.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

# An event ends with an empty line; lines end with LF, CRLF or CR.
EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")


def is_error(stream: bytes) -> bool | None:
    """Tell whether the first event is an error: a 200 in disguise. None while the event is not complete.

    Comments before it are skipped.
    """
    begin = 0
    while match := EVENT_END.search(stream, begin):
        event = stream[begin : match.start()]
        begin = match.end()
        name, data = read_event(event)
        if name or data:
            return name == b"error" or holds_error(data)
    return None


def split_events(stream: bytes) -> list[bytes]:
    """The events of a stream, with LF line ends. JSON has no bare CR in strings, so no content changes."""
    if stream.find(b"\r") >= 0:
        stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return stream.split(b"\n\n")


def data_of(event: bytes) -> bytes:
    """The data of an event that is JSON: maybe with white space around it; b"": it has none."""
    at = 0 if event.startswith(b"data:") else event.find(b"\ndata:") + 1
    if (at or event.startswith(b"data:")) and event.find(b"\n", at) < 0 and event.find(b"\r", at) < 0:
        return event[at + 5 :]  # nearly always
    return read_event(event)[1]


def read_event(event: bytes) -> tuple[bytes, bytes]:
    """The name and the data of an event; comments have neither. Lines of data are joined (9.2.6)."""
    name, data = b"", []
    for line in re.split(rb"\r\n|\n|\r", event):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
    return name, b"\n".join(data)


def holds_error(data: bytes) -> bool:
    """Tell whether data is a JSON object that says it is an error."""
    if data.find(b'"error"') < 0:  # an "in" of bytes makes an exception first
        return False
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and (bool(found.get("error")) or found.get("type") == "error")
