"""The answer of a simulated model to one request, before it takes the shape of one of the APIs.

Pure: chance and time come with the :class:`Conditions`. A :class:`Turn` holds what was "said" (pieces of one
token each, why it stopped, what it counted); a :class:`SimulatedResponse` is what the server sends, with its
timing. Mistakes of the request are raised as :class:`~proxy.errors.BadRequest`, with the messages and codes
that the OpenAI API uses for them.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from proxy.errors import BadRequest
from proxy.simulator import profiles

Json = dict[str, Any]

MAX_MODEL_CHARS = 256
HOLE = "\0"  # where a template of :func:`deltas` takes its piece


class Conditions(NamedTuple):
    """The inputs of an answer beside the request."""

    rng: random.Random
    now: int  # Unix seconds
    chunks: int | None = None  # x-sim-chunks


@dataclass(slots=True)
class SimulatedResponse:
    """One response: a body, or (``deltas`` is set) an event stream. Times in seconds at speed 1.

    ``delay_s`` passes before the head, ``gap_s`` between one delta and the next. Every element of
    ``opening``, ``deltas`` and ``closing`` is one whole event.
    """

    id: str
    body: bytes = b""
    delay_s: float = 0.0
    status: int = 200
    extra_head: bytes = b""
    opening: Sequence[bytes] = ()
    deltas: Iterator[bytes] | None = None
    count: int = 0  # of deltas
    gap_s: float = 0.0
    closing: Sequence[bytes] = ()


def dumps(value: Any) -> bytes:
    """JSON; lone surrogates, which orjson does not write, come out escaped as they came in."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def event(data: bytes, name: str = "") -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def parse_body(body: bytes) -> Json:
    """The request as an object. What only orjson refuses (``1E400``, lone surrogates) is JSON too."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise BadRequest(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
            "your HTTP library correctly. The API expects a JSON payload, but what was sent was not valid "
            "JSON.)"
        )
    return value


# --- reading the request ---------------------------------------------------------------------------------


def missing(name: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)


def wrong_type(name: str, wanted: str, value: Any) -> BadRequest:
    got = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    found = got.get(type(value), "a number")
    return BadRequest(
        f"Invalid type for '{name}': expected {wanted}, but got {found} instead.",
        code="invalid_type",
        param=name,
    )


def model_of(body: Json, default: str = "") -> str:
    model = body.get("model", default or None)
    if model is None or model == "":
        raise BadRequest("you must provide a model parameter")
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    if len(model) > MAX_MODEL_CHARS:  # it becomes the key of small caches
        raise BadRequest("The model does not exist.", status=404, code="model_not_found", param="model")
    return model


def list_of(body: Json, name: str) -> list[Any]:
    value = body.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, list):
        raise wrong_type(name, "an array", value)
    if not value:
        raise BadRequest(
            f"Invalid '{name}': empty array. Expected an array with minimum length 1.",
            code="empty_array",
            param=name,
        )
    return value


def count_of(body: Json, *names: str) -> int | None:
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(name, "an integer", value)
        if value < 1:
            raise BadRequest(
                f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value}.",
                code="integer_below_min_value",
                param=name,
            )
        return value
    return None


def wants_usage(body: Json) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


# --- a turn of a model -----------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _fingerprint(model: str) -> str:
    return f"fp_{zlib.crc32(model.encode('utf-8', 'surrogatepass')):010x}"


@dataclass(slots=True)
class Turn:
    """The text of a model, and its token counts. ``finish`` is ``stop``, ``length`` or ``tool_calls``."""

    id: str
    model: str
    created: int
    pieces: list[str]
    finish: str
    prompt_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    first_s: float  # until the first piece
    piece_s: float  # between one piece and the next
    tool: str = ""  # the tool the pieces are arguments of

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def output_tokens(self) -> int:
        return len(self.pieces) + self.reasoning_tokens

    @property
    def whole_s(self) -> float:
        return self.first_s + len(self.pieces) * self.piece_s

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.model)

    def usage(self) -> Json:
        """As chat and completions report it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def plain(self, body: Json) -> SimulatedResponse:
        return SimulatedResponse(self.id, dumps(body), self.whole_s)

    def stream(
        self, opening: list[bytes], deltas: Iterator[bytes], closing: list[bytes]
    ) -> SimulatedResponse:
        return SimulatedResponse(
            self.id,
            delay_s=self.first_s,
            opening=opening,
            deltas=deltas,
            count=len(self.pieces),
            gap_s=self.piece_s,
            closing=closing,
        )


def take_turn(
    ctx: Conditions,
    model: str,
    prompt_tokens: int,
    limit: int | None,
    *,
    topic: str = "",
    call: tuple[str, str] | None = None,
) -> Turn:
    """Let a model answer.

    :param limit: most output tokens, hidden reasoning included, as OpenAI counts ``max_completion_tokens``.
    :param call: name and JSON arguments, when the answer has to be a tool call.
    """
    profile = profiles.profile_of(model)
    chance = profiles.draw(profile, ctx.rng)
    reasoning, finish = chance.reasoning_tokens, "stop"
    if call:
        pieces, finish = re.findall(r"(?s).{1,4}", call[1]), "tool_calls"
    else:
        pieces = profiles.compose(model, topic, chance, ctx.chunks)
    if limit is not None and reasoning + len(pieces) > limit:
        reasoning = min(reasoning, limit)
        pieces, finish = pieces[: limit - reasoning], "length"
    piece_s = 1.0 / chance.tokens_per_s
    return Turn(
        id=chance.id,
        model=model,
        created=ctx.now,
        pieces=pieces,
        finish=finish,
        prompt_tokens=prompt_tokens,
        cached_tokens=profiles.cached_tokens(prompt_tokens, chance.cached_share),
        reasoning_tokens=reasoning,
        first_s=chance.ttft_s + prompt_tokens / profiles.PREFILL_TOKENS_PER_S + reasoning * piece_s,
        piece_s=piece_s,
        tool=call[0] if call else "",
    )


def deltas(
    template: Any, pieces: list[str], name: str = "", first_number: int | None = None
) -> Iterator[bytes]:
    """The events of all pieces: the template is written once, and each piece set where its ``HOLE`` stands.

    :param first_number: the ``sequence_number`` of the first event, for the API that numbers them.
    """
    before, _, after = event(dumps(template), name).partition(b'"\\u0000"')
    if first_number is None:
        for piece in pieces:
            yield before + dumps(piece) + after
        return
    opening, brace, rest = before.partition(b"data: {")
    for number, piece in enumerate(pieces, first_number):
        yield b'%b%b"sequence_number":%d,%b%b%b' % (opening, brace, number, rest, dumps(piece), after)
