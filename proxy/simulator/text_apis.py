"""The APIs that answer with text: chat completions, completions, responses and messages.

Pure functions from a parsed request to an :class:`~proxy.simulator.turns.SimulatedResponse`. Each takes one
:class:`~proxy.simulator.turns.Turn` and writes it down in the shape of its API, whole or as the events of a
    stream.
"""

from __future__ import annotations

from typing import Any

from proxy.errors import BadRequest
from proxy.simulator import profiles
from proxy.simulator.turns import (
    HOLE,
    Conditions,
    Json,
    SimulatedResponse,
    Turn,
    count_of,
    deltas,
    dumps,
    event,
    list_of,
    missing,
    model_of,
    take_turn,
    wants_usage,
)

# --- chat completions ------------------------------------------------------------------------------------


def _sample(schema: Any) -> Any:
    """A value that fits a simple JSON schema."""
    if not isinstance(schema, dict):
        return "simulated"
    choices = schema.get("enum")
    if isinstance(choices, list) and choices and isinstance(choices[0], str | int):
        return choices[0]
    kind = schema.get("type")
    fixed = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}
    return fixed.get(kind, "simulated") if isinstance(kind, str) else "simulated"


def _forced_call(body: Json) -> tuple[str, str] | None:
    """Name and arguments of the tool call that ``tool_choice`` demands, or None."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if not isinstance(choice, dict) and choice != "required":
        return None
    functions = [t.get("function") for t in tools if isinstance(t, dict)] if isinstance(tools, list) else []
    known = {f["name"]: f for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str)}
    wanted = choice.get("function") if isinstance(choice, dict) else None
    name = wanted.get("name") if isinstance(wanted, dict) else next(iter(known), None)
    if not isinstance(name, str) or name not in known:
        raise BadRequest(f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
    schema = known[name].get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    values = properties if isinstance(properties, dict) else {}
    return name, dumps({key: _sample(value) for key, value in values.items()}).decode()


def chat(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /chat/completions."""
    model, messages = model_of(body), list_of(body, "messages")
    tokens = profiles.message_tokens(messages)
    if body.get("tools"):
        tokens += profiles.json_tokens(body["tools"])
    limit = count_of(body, "max_completion_tokens", "max_tokens")
    call, topic = _forced_call(body), profiles.topic_of(messages)
    turn = take_turn(ctx, model, tokens, limit, topic=topic, call=call)
    if body.get("stream") is True:
        return _chat_stream(turn, wants_usage(body))
    message: Json = {"role": "assistant", "content": None if call else turn.text, "refusal": None}
    if call:
        function = {"name": turn.tool, "arguments": turn.text}
        message["tool_calls"] = [{"id": f"call_{turn.id[:24]}", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": turn.finish}
    return turn.plain(_chat_envelope(turn, "chat.completion", [choice]) | {"usage": turn.usage()})


def _chat_envelope(turn: Turn, kind: str, choices: list[Json]) -> Json:
    return {
        "id": f"chatcmpl-{turn.id[:29]}",
        "object": kind,
        "created": turn.created,
        "model": turn.model,
        "service_tier": "default",
        "system_fingerprint": turn.fingerprint,
        "choices": choices,
    }


def _chat_stream(turn: Turn, with_usage: bool) -> SimulatedResponse:
    # asked for usage, OpenAI puts "usage":null into every other chunk
    tail: Json = {"usage": None} if with_usage else {}

    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _chat_envelope(turn, "chat.completion.chunk", [choice]) | tail

    role: Json = {"role": "assistant", "content": "", "refusal": None}
    piece: Json = {"content": HOLE}
    if turn.tool:
        function = {"name": turn.tool, "arguments": ""}
        call = {"index": 0, "id": f"call_{turn.id[:24]}", "type": "function", "function": function}
        role = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
        piece = {"tool_calls": [{"index": 0, "function": {"arguments": HOLE}}]}
    closing = [event(dumps(chunk({}, turn.finish)))]
    if with_usage:
        last = _chat_envelope(turn, "chat.completion.chunk", []) | {"usage": turn.usage()}
        closing.append(event(dumps(last)))
    closing.append(event(b"[DONE]"))
    return turn.stream([event(dumps(chunk(role)))], deltas(chunk(piece), turn.pieces), closing)


# --- completions -----------------------------------------------------------------------------------------


def completions(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /completions, the legacy endpoint: 16 tokens unless told otherwise."""
    model, prompt = model_of(body), body.get("prompt", "")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    tokens = sum(profiles.text_tokens(p) if isinstance(p, str) else _token_count(p) for p in prompts)
    turn = take_turn(ctx, model, tokens, count_of(body, "max_tokens") or 16, topic=profiles.topic_of(prompts))
    with_usage = wants_usage(body)

    def envelope(text: str, finish: str | None) -> Json:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return {
            "id": f"cmpl-{turn.id[:29]}",
            "object": "text_completion",
            "created": turn.created,
            "model": turn.model,
            "system_fingerprint": turn.fingerprint,
            "choices": [choice],
        }

    if body.get("stream") is not True:
        return turn.plain(envelope(turn.text, turn.finish) | {"usage": turn.usage()})
    tail: Json = {"usage": None} if with_usage else {}
    closing = [event(dumps(envelope("", turn.finish) | tail))]
    if with_usage:
        closing.append(event(dumps(envelope("", None) | {"choices": [], "usage": turn.usage()})))
    closing.append(event(b"[DONE]"))
    return turn.stream([], deltas(envelope(HOLE, None) | tail, turn.pieces), closing)


def _token_count(value: Any) -> int:
    """Tokens of an element of a token array: itself, or its length when it is an array of tokens."""
    return len(value) if isinstance(value, list) else 1


# --- responses -------------------------------------------------------------------------------------------


def responses(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /responses."""
    turn = _response_turn(body, ctx)
    if body.get("stream") is True:
        return _response_stream(body, turn)
    return turn.plain(_response(body, turn, done=True))


def compact(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /responses/compact."""
    turn = _response_turn(body, ctx)
    item = {"id": f"cmp_{turn.id}", "type": "compaction", "encrypted_content": turn.text}
    return turn.plain(
        {
            "id": f"resp_{turn.id}",
            "object": "response.compaction",
            "created_at": turn.created,
            "output": [item],
            "usage": _response_usage(turn),
        }
    )


def input_tokens(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /responses/input_tokens."""
    model, tokens = model_of(body), _response_prompt(body)
    chance = profiles.draw(profiles.profile_of(model), ctx.rng)
    told = {"object": "response.input_tokens", "input_tokens": tokens}
    return SimulatedResponse(chance.id, dumps(told), chance.ttft_s / 4)


def _response_items(body: Json) -> list[Any]:
    given = body.get("input")
    if given is None:
        raise missing("input")
    return given if isinstance(given, list) else [{"content": given}]


def _response_prompt(body: Json) -> int:
    return profiles.message_tokens(_response_items(body)) + profiles.content_tokens(body.get("instructions"))


def _response_turn(body: Json, ctx: Conditions) -> Turn:
    model, items = model_of(body), _response_items(body)
    limit = count_of(body, "max_output_tokens")
    return take_turn(ctx, model, _response_prompt(body), limit, topic=profiles.topic_of(items))


def _response_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response_item(turn: Turn, *, done: bool) -> Json:
    content = [_response_text(turn.text)] if done else []
    status = "in_progress" if not done else "incomplete" if turn.finish == "length" else "completed"
    return {
        "id": f"msg_{turn.id}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _response_usage(turn: Turn) -> Json:
    return {
        "input_tokens": turn.prompt_tokens,
        "input_tokens_details": {"cached_tokens": turn.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": turn.output_tokens,
        "output_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
        "total_tokens": turn.prompt_tokens + turn.output_tokens,
    }


def _response(body: Json, turn: Turn, *, done: bool) -> Json:
    """The response object, as it stands before the first piece or after the last."""
    cut = done and turn.finish == "length"
    instructions = body.get("instructions")
    return {
        "id": f"resp_{turn.id}",
        "object": "response",
        "created_at": turn.created,
        "status": "in_progress" if not done else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": instructions if isinstance(instructions, str) else None,
        "max_output_tokens": body.get("max_output_tokens"),
        "model": turn.model,
        "output": [_response_item(turn, done=True)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _response_usage(turn) if done else None,
        "user": None,
        "metadata": {},
    }


def _response_stream(body: Json, turn: Turn) -> SimulatedResponse:
    place = {"item_id": f"msg_{turn.id}", "output_index": 0, "content_index": 0}
    first_delta = 4  # behind the four opening events

    def named(kind: str, number: int, fields: Json) -> bytes:
        name = f"response.{kind}"
        return event(dumps({"type": name, "sequence_number": number} | fields), name)

    begun = {"response": _response(body, turn, done=False)}
    opening = [
        named("created", 0, begun),
        named("in_progress", 1, begun),
        named("output_item.added", 2, {"output_index": 0, "item": _response_item(turn, done=False)}),
        named("content_part.added", 3, place | {"part": _response_text("")}),
    ]
    delta = {"type": "response.output_text.delta"} | place | {"delta": HOLE, "logprobs": []}
    behind = first_delta + len(turn.pieces)
    last = "incomplete" if turn.finish == "length" else "completed"
    closing = [
        named("output_text.done", behind, place | {"text": turn.text, "logprobs": []}),
        named("content_part.done", behind + 1, place | {"part": _response_text(turn.text)}),
        named("output_item.done", behind + 2, {"output_index": 0, "item": _response_item(turn, done=True)}),
        named(last, behind + 3, {"response": _response(body, turn, done=True)}),
    ]
    events = deltas(delta, turn.pieces, "response.output_text.delta", first_number=first_delta)
    return turn.stream(opening, events, closing)


# --- messages (Anthropic) --------------------------------------------------------------------------------


def _message_prompt(body: Json) -> tuple[list[Any], int]:
    """The messages and the prompt's tokens, system text and tools included."""
    messages = list_of(body, "messages")
    tokens = profiles.message_tokens(messages) + profiles.content_tokens(body.get("system"))
    if body.get("tools"):
        tokens += profiles.json_tokens(body["tools"])
    return messages, tokens


def messages(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /messages. ``max_tokens`` is required there, and cached tokens don't count as input."""
    model, (given, tokens) = model_of(body), _message_prompt(body)
    limit = count_of(body, "max_tokens")
    if limit is None:
        raise missing("max_tokens")
    turn = take_turn(ctx, model, tokens, limit, topic=profiles.topic_of(given))
    stop = "max_tokens" if turn.finish == "length" else "end_turn"
    usage = {
        "input_tokens": turn.prompt_tokens - turn.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": turn.cached_tokens,
        "output_tokens": turn.output_tokens,
    }
    message = {
        "id": f"msg_{turn.id[:24]}",
        "type": "message",
        "role": "assistant",
        "model": turn.model,
        "content": [{"type": "text", "text": turn.text}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }
    if body.get("stream") is not True:
        return turn.plain(message)
    begun = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    ended = {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}

    def named(kind: str, fields: Json) -> bytes:
        return event(dumps({"type": kind} | fields), kind)

    opening = [
        named("message_start", {"message": begun}),
        named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        named("ping", {}),
    ]
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": HOLE}}
    closing = [
        named("content_block_stop", {"index": 0}),
        named("message_delta", ended),
        named("message_stop", {}),
    ]
    return turn.stream(opening, deltas(delta, turn.pieces, "content_block_delta"), closing)


def count_tokens(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /messages/count_tokens."""
    model, (_, tokens) = model_of(body), _message_prompt(body)
    chance = profiles.draw(profiles.profile_of(model), ctx.rng)
    return SimulatedResponse(chance.id, dumps({"input_tokens": tokens}), chance.ttft_s / 4)
