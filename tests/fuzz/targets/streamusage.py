"""Asking for a stream's usage, and taking it out again: nothing else of request or answer changes."""

from __future__ import annotations

import json
import re
from typing import Any

from proxy.wire.include_usage import MAX_EVENT_BYTES, Edit, UsageFilter, ask_for_usage
from proxy.wire.outline import keys_of
from tests.fuzz.source import pieces

SEEDS = [
    b'\x00data: {"usage":{"x":1}}\n\ndata: {"choices":null,"usage":{"x":1}}\n\n',
    b'\x00data: {"choices":[{"a":1}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"x":1}}\n\ndata: [DONE]\n\n',
    b'\x01data: {"usage":null,"choices":[]}\r\n\r\ndata:{"choices":[],"usage":{}}\r\n\r\n',
    b'\x02: c\n\nevent: x\rdata: {"choices":[],"usage":{"x":1}}\r\rdata: a\ndata: b\n\n',
    b'\x83{"stream":true,"stream_options":{"include_usage":false,"x":1},"model":"a"}',
    b'\x00{"stream":true}',
    b'\x00{"stream_options":null,"stream":true}',
    b'\x00{"stream_options":{},"stream":true}',
    b'\x00data: {"error":{"a":1},"choices":[],"usage":{"x":1}}\n\n\n\n\r\n',
    b'\x05data: {"usage" : null , "a":"\\ud83d","choices":[]}\n\ndata: {"choices":[],"usage":{',
]
_LINE_END = re.compile(rb"\r\n|\n|\r")


def test_one(data: bytes) -> None:
    if not data:
        return
    text = data[1:]
    whole = filtered([text])
    assert filtered(pieces(text, data[0])) == whole
    check_answer(text, whole)
    check_request(text)


def filtered(reads: list[bytes]) -> bytes:
    usage_filter = UsageFilter()
    out = b""
    held = 0
    for piece in reads:
        out += usage_filter.feed(piece)
        held += len(piece)
        assert len(usage_filter._held) <= min(held, MAX_EVENT_BYTES + 8)
        if usage_filter.is_between_events:
            held = 0
    return out + usage_filter.finish()


def events_of(stream: bytes) -> list[tuple[bytes, ...]]:
    """The lines of every event, the last one's too if nothing ends it; of empty events none."""
    events: list[tuple[bytes, ...]] = []
    lines: list[bytes] = []
    for line in [*_LINE_END.split(stream), b""]:
        if line:
            lines.append(line)
        elif lines:
            events.append(tuple(lines))
            lines = []
    return events


def check_answer(stream: bytes, out: bytes) -> None:
    """What went was a usage without choices; what changed lost a null; all else is as it was."""
    if b'"usage"' not in stream:
        assert out == stream
        return
    left = events_of(out)
    for event in events_of(stream):
        if left and left[0] == event:
            del left[0]
            continue
        found = data_of(event)
        if found is None:  # no JSON, before and behind: its null may go all the same
            assert data_of(left.pop(0)) is None, event
            continue
        assert isinstance(found, dict) and "usage" in found, event
        assert not found.get("error")
        if found["usage"] is not None:
            assert isinstance(found["usage"], dict) and found["choices"] == []
            continue
        # Whoever says it twice has one less.
        before, changed = data_of(event, Pairs), data_of(left.pop(0), Pairs)
        before.remove(("usage", None))
        assert sorted(map(repr, changed)) == sorted(map(repr, before))
    assert not left


def data_of(event: tuple[bytes, ...], hook: Any = None) -> Any:
    lines = [line[5:] for line in event if line.startswith(b"data:")]
    try:
        return json.loads(b"\n".join(lines).decode("utf-8", "replace"), object_pairs_hook=hook)
    except (ValueError, RecursionError):
        return None


def check_request(body: bytes) -> None:
    """What a parser sees of the edited body is what it saw before, and the option."""
    begin = body.find(b"{")
    if begin < 0 or body[:begin].strip(b" \t\r\n"):
        return
    edit = ask_for_usage([body], begin, keys_of(body))
    if not isinstance(edit, Edit):
        return
    try:
        before = json.loads(body.decode(), object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return
    edited = body[: edit.start] + edit.replacement + body[edit.end :]
    after = json.loads(edited.decode(), object_pairs_hook=Pairs)
    options = [value for name, value in after if name == "stream_options"]
    assert len(options) == 1
    assert [value for name, value in options[0] if name == "include_usage"] == [True]
    rest = [pair for pair in after if pair[0] != "stream_options"]
    assert rest == [pair for pair in before if pair[0] != "stream_options"]
    old = [value for name, value in before if name == "stream_options"]
    assert len(old) <= 1
    kept = [pair for pair in options[0] if pair[0] != "include_usage"]
    assert kept == [pair for pair in (old[0] if old and old[0] else ()) if pair[0] != "include_usage"]


class Pairs(list[Any]):
    """An object as it is written, with members that are said twice."""
