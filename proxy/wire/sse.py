"""Whether the first event of a stream is an error in disguise: a 200 that turns out to be none."""

from __future__ import annotations

import re
from typing import Final

import orjson

# An event ends with an empty line (WHATWG HTML, server-sent events); lines end with LF, CRLF or CR.
EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
# A stream is held no longer than this for its first event.
PEEK_S: Final = 2.0


def is_error(stream: bytes) -> bool | None:
    """Look at the first event; None while it is not complete. Comments before it are no event."""
    begin = 0
    while match := EVENT_END.search(stream, begin):
        event = stream[begin : match.start()]
        begin = match.end()
        name, data = read_event(event)
        if name or data:
            return name == b"error" or holds_error(data)
    return None


def read_event(event: bytes) -> tuple[bytes, bytes]:
    """The name and the data of an event; comments have neither."""
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
    """Whether a JSON object says that it is an error."""
    if b'"error"' not in data:
        return False
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and (bool(found.get("error")) or found.get("type") == "error")
