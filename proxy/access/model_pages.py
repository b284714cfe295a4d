"""``/v1/models`` as Anthropic's API has it: rows of its shape, and a list in pages.

A list is one text with all rows, built once (:mod:`proxy.access.model_list`); a page is a piece of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from proxy.errors import BadRequest
from proxy.wire.query import INVALID, parameters

# What one page holds at most. Anthropic's API gives 20 where no limit is asked for; more does no harm to who
# asks for further pages, and others see all of them.
MAX_ROWS: Final = 1000
# Of memory that a row takes beside its text: its id, and where it is.
_ROW_BYTES: Final = 200
_MAX_TOLD: Final = 200


class Paging(NamedTuple):
    """The page that a query asks for: up to ``limit`` rows, behind one id or before another; "": from the
    first on."""

    limit: int = MAX_ROWS
    after: str = ""
    before: str = ""


def paging_of(query: bytes) -> Paging:
    """Read the page that a query asks for. Other parameters are ignored.

    :raises BadRequest: it makes no sense.
    """
    found: dict[bytes, str] = {}
    for name, part in parameters(query):
        value = part.partition(b"=")[2]
        if name in (b"limit", b"after_id", b"before_id") and value:
            found[name] = unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace")
    limit = found.get(b"limit", str(MAX_ROWS))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MAX_ROWS):
        raise _wrong("limit", f"'limit' must be a number from 1 to {MAX_ROWS}.")
    after, before = found.get(b"after_id", ""), found.get(b"before_id", "")
    if after and before:
        raise _wrong("before_id", "'after_id' and 'before_id' can't both be given: a page goes one way.")
    return Paging(int(limit), after, before)


class ModelPages:
    """A whole list, from which pages are taken.

    :param ids: of its models. :param rows: as :func:`anthropic_row`, of each.
    """

    def __init__(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        self._ids = ids
        self._at = {id: index for index, id in enumerate(ids)}
        self._data = b",".join(rows)
        self._begins = [0]
        for row in rows:
            self._begins.append(self._begins[-1] + len(row) + 1)

    @property
    def size_bytes(self) -> int:
        """The memory it takes, roughly."""
        return len(self._data) + _ROW_BYTES * len(self._ids)

    def page(self, paging: Paging) -> bytes:
        """One page.

        :raises BadRequest: the id that it is to begin behind, or end before, is not in the list.
        """
        if paging.before:
            end = self._find("before_id", paging.before)
            begin = max(0, end - paging.limit)
            has_more = begin > 0
        else:
            begin = self._find("after_id", paging.after) + 1 if paging.after else 0
            end = min(len(self._ids), begin + paging.limit)
            has_more = end < len(self._ids)
        first, last = (self._ids[begin], self._ids[end - 1]) if begin < end else (None, None)
        rows = self._data[self._begins[begin] : self._begins[end] - 1] if begin < end else b""
        rest = orjson.dumps({"has_more": has_more, "first_id": first, "last_id": last})
        return b'{"data":[%b],%b' % (rows, rest[1:])

    def _find(self, param: str, id: str) -> int:
        index = self._at.get(id)
        if index is None:
            raise _wrong(param, f"'{param}' names no model of this list: '{id[:_MAX_TOLD]}'.")
        return index


def anthropic_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the list in the shape of Anthropic's API.

    :param row: as :func:`proxy.access.model_list.model_row` and :func:`proxy.access.model_list.group_row`
        have it.
    """
    created = datetime.fromtimestamp(row["created"], UTC)
    return {
        "type": "model",
        "id": row["id"],
        "display_name": row["id"],
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": row["context_window"],
        "max_tokens": row["max_output_tokens"],
    }


def _wrong(param: str, text: str) -> BadRequest:
    return BadRequest(text, code=INVALID, param=param)
