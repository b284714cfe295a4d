"""The lead-in of an event stream: the events before the first that carries output.

What comes first is mostly no output: comments, ``ping``, the role, a response that is created. Whether a
provider works, and how fast it is, shows by the first text, reasoning, tool call, refusal or sound. A reason
why the response stopped, without any output before it, is an answer as well; an error is none; and neither is
a stream that comes to its end without either.

What counts as output is told by each API in its own way, so each has a function here. An event of a type that
is not known counts as output: to hold it back would delay what a client waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from proxy.wire.sse import EVENT_END, read_event

# What has come so far.
LEAD_IN: Final = 0  # nothing that decides
OUTPUT: Final = 1
ENDED: Final = 2  # a reason why the response stopped, and no output before it
ERROR: Final = 3
EMPTY: Final = 4  # the last event, or the end of the message, without any of these
# The most that is held of a stream, and looked at; longer lead-ins are none.
MOST_BYTES: Final = 64 << 10
# Of what comes at once no more events are looked at: each takes some microseconds.
_MOST_EVENTS: Final = 500

# How the delta of chat begins that carries text, as nearly all that carry output do. In a string a backslash
# stands before each quotation mark.
_DELTA: Final = b'"delta":'
_QUOTE: Final = 0x22
_TEXTS: Final = tuple(
    b'"delta":%b{%b"%b":%b"' % (space, role.replace(b" ", space), name, space)
    for space in (b"", b" ")
    for role in (b"", b'"role": "assistant", ')
    for name in (b"content", b"reasoning_content", b"reasoning")
)
_NO_TEXTS: Final = tuple(text + b'"' for text in _TEXTS)
# Events of the Responses API and of Messages before any output.
_PRELUDES: Final = frozenset((
    "response.created", "response.in_progress", "response.queued",
    "response.output_item.added",
    "response.content_part.added", "response.reasoning_summary_part.added", "ping", "keepalive",
))  # fmt: skip
_STOPS: Final = frozenset(("response.completed", "response.incomplete", "response.cancelled"))


class LeadIn:
    """Follows a stream until something decides. ``verdict``: what has come so far, as above.

    :param endpoint: as in :data:`proxy.endpoints.ENDPOINTS`.
    """

    __slots__ = ("_is_chat", "_judge", "_looked", "_rest", "_size", "verdict")

    def __init__(self, endpoint: str) -> None:
        self.verdict = LEAD_IN
        self._judge = _JUDGES.get(endpoint, _any)
        self._is_chat = endpoint == "chat"
        self._rest = bytearray()  # of the event that is not whole yet
        self._looked = 0  # how much of it was searched for its end
        self._size = 0  # of all that has come

    def feed(self, data: bytes) -> int:
        """Take the next bytes of the stream. Returns the verdict; once it is another than ``LEAD_IN``, what
        follows changes nothing."""
        if not self._rest and self._is_chat and data.startswith(b"data:"):
            at = data.find(_DELTA)
            if at > 0 and data.find(b"\n", 0, at) < 0 and _begins_text(data, at):
                self.verdict = OUTPUT
                return OUTPUT
        rest = self._rest
        rest += data
        self._size += len(data)
        begin = 0
        for _ in range(_MOST_EVENTS):
            match = EVENT_END.search(rest, self._looked, MOST_BYTES)
            if match is None:
                break
            self.verdict = self._look(bytes(rest[begin : match.start()]))
            if self.verdict != LEAD_IN:
                return self.verdict
            begin = self._looked = match.end()
        if match is not None or self._size > MOST_BYTES:
            self.verdict = OUTPUT
            return OUTPUT
        del rest[:begin]
        self._looked = max(len(rest) - 3, 0)  # three bytes of the empty line that ends it may be there
        return LEAD_IN

    def finish(self) -> int:
        """The message is at its end: some leave out the empty line behind the last event."""
        if self.verdict == LEAD_IN:
            self.verdict = self._look(bytes(self._rest)) or EMPTY
        return self.verdict

    def _look(self, event: bytes) -> int:
        name, data = read_event(event)
        if not name and not data:
            return LEAD_IN  # a comment
        if data.strip() == b"[DONE]":
            return EMPTY
        try:
            found = orjson.loads(data) if data else None
        except orjson.JSONDecodeError:
            found = None
        if isinstance(found, list) and len(found) == 1:  # Google's streams wrap their error so
            found = found[0]
        said = found if isinstance(found, dict) else {}
        kind = said.get("type")
        word = kind if isinstance(kind, str) else name.decode("latin-1")
        if name == b"error" or word in ("error", "response.failed") or said.get("error"):
            return ERROR
        return self._judge(word, said)


def _begins_text(data: bytes, at: int) -> bool:
    """Return whether the delta at ``at`` begins with text, as far as it is here. A pattern costs far more."""
    is_cut = data[-1] == _QUOTE  # which may begin a text, or an empty one
    return not is_cut and data.startswith(_TEXTS, at) and not data.startswith(_NO_TEXTS, at)


def _chat(word: str, said: dict[str, Any]) -> int:
    verdict = LEAD_IN
    for choice in _choices(said):
        for holder in (choice.get("delta"), choice.get("message")):
            if isinstance(holder, dict) and any(value for key, value in holder.items() if key != "role"):
                return OUTPUT
        if choice.get("text"):
            return OUTPUT
        if choice.get("finish_reason"):
            verdict = ENDED
    return verdict


def _choices(said: dict[str, Any]) -> list[dict[str, Any]]:
    choices = said.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _messages(word: str, said: dict[str, Any]) -> int:
    if word == "message_start":
        message = said.get("message")
        return OUTPUT if isinstance(message, dict) and message.get("content") else LEAD_IN
    if word in ("content_block_start", "content_block_delta"):
        part = said.get("content_block" if word == "content_block_start" else "delta")
        has_any = isinstance(part, dict) and any(value for key, value in part.items() if key != "type")
        return OUTPUT if has_any else LEAD_IN
    if word == "message_delta":
        delta = said.get("delta")
        return ENDED if isinstance(delta, dict) and delta.get("stop_reason") else LEAD_IN
    if word == "message_stop":
        return EMPTY
    return LEAD_IN if word in ("ping", "content_block_stop", "") else OUTPUT


def _responses(word: str, said: dict[str, Any]) -> int:
    if word in _STOPS:
        return ENDED
    if word in _PRELUDES or word in ("", "done"):
        return LEAD_IN
    return LEAD_IN if word.endswith(".delta") and not said.get("delta") else OUTPUT


def _any(word: str, said: dict[str, Any]) -> int:
    return LEAD_IN if word in ("ping", "keepalive") else OUTPUT


_JUDGES: Final[dict[str, Callable[[str, dict[str, Any]], int]]] = {
    "chat": _chat, "completions": _chat, "messages": _messages, "responses": _responses,
}  # fmt: skip
