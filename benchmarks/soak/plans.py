"""What becomes of each request of a soak: drawn from its number alone, so that both sides know it.

The client puts a number and a kind into each body, and the provider answers as the plan for that number says.
The client makes the same plan, and knows what it must have got: which fault, how many events and tokens.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

import orjson

# Before the head of an answer: what is wrong with it, and how the gateway is to tell the client, where it
# asked nobody else: a status, and the code of its envelope; "" where the provider's own answer passes.
BEFORE: Final = {
    "e500": (500, ""),
    "e503": (503, ""),
    "e429": (429, ""),
    "e401": (502, "provider_auth_failed"),
    "reset": (502, "provider_bad_answer"),
    "garbage": (502, "provider_bad_answer"),
    "stall": (504, "provider_timeout"),
}
# Within it: the client has to see that it is cut.
WITHIN: Final = ("reset_within", "stall_within", "cut_within", "garbage_within")
# A stream whose last event is an error of the provider's own, and ends well but for that.
TOLD: Final = "error_event"

# Which shares of a provider's answers go wrong, and how much more often those of streams than of the rest.
FAULTY: Final = {"a": 0.02, "b": 0.02, "f": 0.4}
# The two that take long are rarer than the others: each occupies a client for as long as a limit.
_RARE: Final = 0.25

FIRST_BYTE_S: Final = 10.0  # limits of the gateway's configuration
IDLE_S: Final = 30.0
BULK_EVENT_BYTES: Final = 16 << 10
# A process that comes to its turn so late is starved by whatever else the machine does.
LATE_S: Final = 2.0
BEAT_S: Final = 0.5
# Longest gap between two events of a slow stream; far below IDLE_S, whatever else the machine does.
GAP_S: Final = (1.0, 2.0)


class Plan(NamedTuple):
    """What a provider does with a request.

    :param fate: "good", a name of :data:`BEFORE` or :data:`WITHIN`, or :data:`TOLD`.
    :param wait_s: until the head. :param events: of a stream. :param gap_s: between them.
    :param at: of a stream that goes wrong, how many events come before.
    :param input_tokens: and ``output_tokens``: what its usage says.
    :param closes_s: the connection is closed so long after the answer; None: it is kept.
    """

    fate: str
    wait_s: float
    events: int
    gap_s: float
    at: int
    input_tokens: int
    output_tokens: int
    closes_s: float | None


def is_stream(kind: str) -> bool:
    return kind in ("slow", "quick", "bulk")


def plan(seed: int, number: int, provider: str, kind: str, slow_s: tuple[float, float]) -> Plan:
    """The plan for one request.

    :param kind: "plain" or "embed" (JSON), "slow", "quick" or "bulk" (event streams).
    :param slow_s: how long a slow stream takes, at least and at most.
    """
    rng = Random((seed << 40) ^ (number << 8) ^ ord(provider))
    fate = "good"
    if rng.random() < FAULTY[provider]:
        names = [*BEFORE, *WITHIN, *([TOLD] if is_stream(kind) else [])]
        weights = [_RARE if "stall" in name else 1.0 for name in names]
        fate = rng.choices(names, weights)[0]
    gap_s = {"slow": rng.uniform(*GAP_S), "quick": 0.01, "bulk": 0.0}.get(kind, 0.0)
    events = rng.randrange(3, 20)
    if kind == "slow":
        events = max(3, int(rng.uniform(*slow_s) / gap_s))
    elif kind == "bulk":
        events = rng.randrange(32, 64)
    wait_s = rng.choice([0.0, 0.0, 0.0, 0.005, 0.03])
    if rng.random() < 0.01:  # slow first bytes are no fault
        wait_s = rng.uniform(0.5, 2.0)
    closes_s = rng.choice([0.0, 0.0, 0.002, 0.5]) if rng.random() < 0.05 else None
    return Plan(
        fate, wait_s, events, gap_s, rng.randrange(events), 10 + number % 997, 5 + number % 499, closes_s
    )


def marker(number: int, provider: str) -> str:
    """What an answer has of its request, and of no other."""
    return f"soak-{provider}-{number}-end"


def event(number: int, provider: str, at: int, kind: str, with_null: bool) -> bytes:
    """One event of a stream. ``with_null``: with the empty usage that comes where usage was asked for."""
    fill = "x" * (BULK_EVENT_BYTES if kind == "bulk" else 60)
    content = f"{marker(number, provider)} {at} {fill}"
    said: dict[str, object] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}],
    }
    if with_null:
        said["usage"] = None
    return b"data: " + orjson.dumps(said) + b"\n\n"


def usage(planned: Plan) -> dict[str, int]:
    """What the provider says of tokens."""
    given, made = planned.input_tokens, planned.output_tokens
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def last_events(number: int, planned: Plan) -> bytes:
    """The usage of a stream, before its ``[DONE]``."""
    said = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "choices": [],
        "usage": usage(planned),
    }
    return b"data: " + orjson.dumps(said) + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"


def error(number: int, provider: str, status: int) -> bytes:
    """A provider's own error."""
    return orjson.dumps({"error": {"message": marker(number, provider), "type": "soak", "code": str(status)}})


def answer(number: int, provider: str, kind: str, planned: Plan) -> bytes:
    """A whole answer that is no stream."""
    said: dict[str, object] = {"id": marker(number, provider), "usage": usage(planned)}
    if kind == "embed":
        width = 1536 if number % 2 else 64
        said["data"] = [{"index": 0, "embedding": [(number % 89) / 97] * width}]
        said["usage"] = {
            "prompt_tokens": planned.input_tokens,
            "total_tokens": planned.input_tokens,
        }
    else:
        content = f"{marker(number, provider)} " + "y" * (number % 700)
        said["choices"] = [{"index": 0, "message": {"role": "assistant", "content": content}}]
    return orjson.dumps(said)
