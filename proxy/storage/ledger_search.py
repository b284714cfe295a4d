"""A line of the ledger by the id of its request, searched from the newest on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import orjson

from proxy.storage.ledger_ingest import _listed

# Some 250,000 requests. With a rest after each slice that takes half a second, and a tenth of a core.
SEARCHED_BYTES = 64 << 20
REST_S = 0.002
# Searching this takes 0.2 ms, for which nobody else has the interpreter.
SLICE_BYTES = 256 << 10
# Longer than any line.
_LINE_BYTES = 64 << 10


def needle_of(id: str) -> bytes:
    """The beginning of the line of a request."""
    return b'{"id":"%b",' % id.encode()


def is_of(line: bytes, key: str) -> bool:
    """Return whether a line is of a key's request."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(record, dict) and record.get("key") == key


def find_line(directory: Path, id: str, key: str, pause: Callable[[], object]) -> bytes | None:
    """Return the line of a key's request; None: it is not in the latest :data:`SEARCHED_BYTES`.

    A request of another key is passed over, so that looking for it takes as long as for one that never was.

    :param pause: called after each slice. What it raises ends the search.
    :raises OSError: the ledger can't be read.
    """
    needle, left = needle_of(id), SEARCHED_BYTES
    for file in sorted(_listed(directory), key=lambda file: file.written_ns, reverse=True):
        try:
            with file.path.open("rb", buffering=0) as source:
                end = os.fstat(source.fileno()).st_size
                while end > 0 and left > 0:
                    begin = max(0, end - SLICE_BYTES)
                    source.seek(begin)
                    data = source.read(end - begin + len(needle))  # it may stand across the cut
                    at = data.find(needle)
                    if at >= 0:
                        source.seek(begin + at)
                        line, newline, _ = source.read(_LINE_BYTES).partition(b"\n")
                        if newline and is_of(line, key):
                            return line
                    left -= end - begin
                    end = begin
                    pause()
        except FileNotFoundError:  # it was added up and deleted meanwhile
            continue
        if left <= 0:
            break
    return None
