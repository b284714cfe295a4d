"""What the gateway saw of a request, and whether a reader ran anything else."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from proxy.errors import BadRequest
from proxy.wire.json_body import stream_of
from proxy.wire.model_scanner import ModelScanner
from proxy.wire.output_limits import OUTPUT_LIMITS, read_output_limits, written_limits
from tests.readers.programs.reading import WORDS

# What the key of the tests may use; the provider calls it by the short name.
MODEL, UPSTREAM_MODEL = "p/cheap", "cheap"
MAX_TOKENS = 100
# What limits an answer at chat, and is put in.
PUT_IN = "max_tokens"


class Seen(NamedTuple):
    """What the gateway saw in a body: ``limits`` by word, the largest of each; infinite: no number.
    ``body[start:end]`` is the model."""

    model: str | None
    limits: dict[str, float]
    stream: bool
    put_in: int = 0  # the limit that a key with ``max_tokens`` gets into the body; 0: it says it itself
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        told = [f"{word} {value:g}" for word, value in self.limits.items()]
        return ", ".join([f"model {self.model!r}", *told, *(["stream"] if self.stream else [])])


def seen_in(body: bytes) -> Seen | None:
    """None: it refused the body as such."""
    scanner = ModelScanner()
    try:
        scanner.feed(body, True)
    except BadRequest:
        return None
    limits: dict[str, float] = {}
    for word, value in (one for one in written_limits(body, scanner.keys) if one[0] < len(WORDS)):
        limits[WORDS[word]] = max(value, limits.get(WORDS[word], value))
    stream, found = stream_of(body, scanner.keys)[0], scanner.found
    wants = read_output_limits(body, scanner.keys, written_limits(body, scanner.keys), "chat")
    put_in = MAX_TOKENS // wants.answers
    if wants.output:
        put_in = wants.output if wants.in_newer_word else 0
    if found is None:
        return Seen(None, limits, stream, put_in)
    return Seen(found.name, limits, stream, put_in, found.start, found.end)


def number(value: Any) -> float:
    """A limit; infinite where it is no number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return math.inf if math.isnan(found) else found


def faults(
    seen: Seen | None, ran: dict[str, Any], *, limited: bool, model: str = UPSTREAM_MODEL
) -> list[str]:
    """What a reader ran that the gateway did not see, in words.

    :param ran: a reading, as the programs tell it. :param limited: the key has ``max_tokens``.
    :param model: what the gateway put in.
    """
    found = []
    if ran["model"] != model:
        found.append(f"ran model {ran['model']!r} in place of {model!r}")
    if seen is None:
        return [*found, "ran a body that the gateway can't read"]
    for word, value in ran["limits"].items():
        real = number(value)
        known = seen.limits.get(word)
        if limited and word == PUT_IN and real == seen.put_in:
            continue
        if known is None:
            found.append(f"ran {word} {value}, which the gateway did not see")
        elif real > max(known, 0):
            found.append(f"ran {word} {value} where the gateway saw {known:g}")
        if limited and WORDS.index(word) in OUTPUT_LIMITS and real > MAX_TOKENS:
            found.append(f"ran {word} {value} for a key that may have {MAX_TOKENS}")
    if limited and not 0 < number(ran["limits"].get(PUT_IN)) <= MAX_TOKENS:  # it may know no other
        found.append("ran without a limit, for a key that has one")
    if limited and ran["stream"] != seen.stream:
        found.append(f"ran stream {ran['stream']} where the gateway saw {seen.stream}")
    found += [f"got the header {name}" for name in ran["evil"]]
    return found
