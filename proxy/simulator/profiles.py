"""Profiles of the simulated models: pace, length, vocabulary, token counts and vectors.

Everything here is pure. Chance comes in as one seeded generator, and each request takes the same number of
draws from it in the order of arrival (:func:`draw`), so that the same seed and the same sequence of requests
give the same answers and the same latencies, whatever was streamed, cut short or abandoned in between.

The numbers of :data:`PROFILES` are rounded from public measurements of the hosted models. They are meant to
make routing decisions look right next to each other, not to be a benchmark of anybody.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import Any, NamedTuple

import orjson

BYTES_PER_TOKEN = 4  # English text with the current tokenisers: 4.0–4.5
IMAGE_TOKENS = 765  # a 1024×1024 picture in high detail, by OpenAI's own arithmetic
AUDIO_TOKENS = 200  # about 20 s of speech
MESSAGE_TOKENS = 4  # role and separators around each message
REPLY_TOKENS = 3  # every prompt ends with the opening of the answer
PREFILL_TOKENS_PER_S = 20_000  # a long prompt delays the first token by this pace
CACHE_MIN_TOKENS, CACHE_STEP_TOKENS = 1024, 128  # OpenAI caches prompts from 1,024 tokens on, in steps of 128
MAX_OUTPUT_TOKENS = 100_000  # bounds the memory of one answer, whatever a header asks for
MAX_CONTENT_DEPTH = 4  # message → part → tool result → part; deeper nesting counts nothing
TOPIC_CHARS = 60  # how much of the question an answer repeats


@dataclass(frozen=True, slots=True)
class Profile:
    """The pace of one family of models. Times in seconds, at speed 1."""

    ttft_s: float  # median time to the first token of a short prompt
    tokens_per_s: float
    output_tokens: int = 220  # median length of an answer without a limit
    sigma: float = 0.25  # of the logarithm of the time to first token
    reasoning_tokens: int = 0  # median; hidden from the answer, counted in its usage
    dimensions: int = 1536  # of its vectors, when it is asked for any
    owned_by: str = "simulator"


_OPENAI, _ANTHROPIC, _GOOGLE, _MISTRAL, _META = "openai", "anthropic", "google", "mistralai", "meta"

DEFAULT = Profile(0.6, 80)

# By prefix of the upstream name, the longest match wins.
PROFILES: dict[str, Profile] = {
    "gpt-3.5-turbo": Profile(0.35, 100, 180, owned_by=_OPENAI),
    "gpt-4": Profile(0.8, 35, 240, owned_by=_OPENAI),
    "gpt-4-turbo": Profile(0.7, 45, 260, owned_by=_OPENAI),
    "gpt-4o": Profile(0.45, 90, 260, owned_by=_OPENAI),
    "gpt-4o-mini": Profile(0.35, 110, 220, owned_by=_OPENAI),
    "gpt-4.1": Profile(0.5, 85, 280, owned_by=_OPENAI),
    "gpt-4.1-mini": Profile(0.4, 110, 240, owned_by=_OPENAI),
    "gpt-4.1-nano": Profile(0.3, 170, 200, owned_by=_OPENAI),
    "gpt-5": Profile(0.7, 90, 320, 0.35, 400, owned_by=_OPENAI),
    "gpt-5-mini": Profile(0.5, 130, 280, 0.35, 250, owned_by=_OPENAI),
    "gpt-5-nano": Profile(0.4, 190, 220, 0.35, 200, owned_by=_OPENAI),
    "gpt-6": Profile(0.7, 110, 340, 0.35, 300, owned_by=_OPENAI),
    "gpt-6-luna": Profile(0.35, 180, 220, owned_by=_OPENAI),
    "o1": Profile(1.2, 90, 400, 0.4, 900, owned_by=_OPENAI),
    "o3": Profile(0.9, 100, 380, 0.4, 700, owned_by=_OPENAI),
    "o3-mini": Profile(0.7, 150, 320, 0.4, 500, owned_by=_OPENAI),
    "o4-mini": Profile(0.7, 140, 320, 0.4, 500, owned_by=_OPENAI),
    "text-embedding-3-small": Profile(0.08, 1e4, 1, 0.3, dimensions=1536, owned_by=_OPENAI),
    "text-embedding-3-large": Profile(0.1, 1e4, 1, 0.3, dimensions=3072, owned_by=_OPENAI),
    "text-embedding-ada-002": Profile(0.08, 1e4, 1, 0.3, dimensions=1536, owned_by=_OPENAI),
    "omni-moderation": Profile(0.15, 1e4, 1, 0.3, owned_by=_OPENAI),
    "claude": Profile(0.8, 75, 280, owned_by=_ANTHROPIC),
    "claude-3-haiku": Profile(0.45, 130, 200, owned_by=_ANTHROPIC),
    "claude-3-opus": Profile(1.4, 28, 320, owned_by=_ANTHROPIC),
    "claude-3-5-haiku": Profile(0.6, 80, 220, owned_by=_ANTHROPIC),
    "claude-3-5-sonnet": Profile(0.8, 70, 280, owned_by=_ANTHROPIC),
    "claude-3-7-sonnet": Profile(0.85, 75, 320, owned_by=_ANTHROPIC),
    "claude-haiku-4": Profile(0.5, 140, 260, owned_by=_ANTHROPIC),
    "claude-sonnet-4": Profile(0.9, 75, 340, owned_by=_ANTHROPIC),
    "claude-opus-4": Profile(1.3, 50, 380, owned_by=_ANTHROPIC),
    "claude-haiku-5": Profile(0.45, 150, 240, owned_by=_ANTHROPIC),
    "claude-sonnet-5": Profile(0.8, 85, 320, owned_by=_ANTHROPIC),
    "claude-opus-5": Profile(1.2, 60, 380, owned_by=_ANTHROPIC),
    "gemini": Profile(0.5, 130, 260, owned_by=_GOOGLE),
    "gemini-flash": Profile(0.35, 180, 220, owned_by=_GOOGLE),
    "gemini-1.5-flash": Profile(0.35, 180, 220, owned_by=_GOOGLE),
    "gemini-1.5-pro": Profile(0.9, 60, 300, owned_by=_GOOGLE),
    "gemini-2.0-flash": Profile(0.35, 190, 240, owned_by=_GOOGLE),
    "gemini-2.5-flash": Profile(0.4, 200, 280, 0.35, 150, owned_by=_GOOGLE),
    "gemini-2.5-pro": Profile(1.0, 120, 400, 0.4, 600, owned_by=_GOOGLE),
    "gemini-3.1-pro": Profile(0.95, 110, 360, 0.35, 400, owned_by=_GOOGLE),
    "gemini-3.5-flash-lite": Profile(0.3, 230, 220, owned_by=_GOOGLE),
    "gemini-3.8-flash": Profile(0.35, 200, 240, owned_by=_GOOGLE),
    "gemini-embedding": Profile(0.1, 1e4, 1, 0.3, dimensions=3072, owned_by=_GOOGLE),
    "text-embedding-004": Profile(0.08, 1e4, 1, 0.3, dimensions=768, owned_by=_GOOGLE),
    "mistral": Profile(0.4, 80, 240, owned_by=_MISTRAL),
    "mistral-large": Profile(0.55, 55, 280, owned_by=_MISTRAL),
    "mistral-small": Profile(0.35, 120, 220, owned_by=_MISTRAL),
    "mistral-embed": Profile(0.09, 1e4, 1, 0.3, dimensions=1024, owned_by=_MISTRAL),
    "codestral": Profile(0.35, 140, 260, owned_by=_MISTRAL),
    "llama": Profile(0.4, 100, 240, owned_by=_META),
    "llama-3.1-8b": Profile(0.25, 170, 200, owned_by=_META),
    "llama-3.3-70b": Profile(0.4, 90, 260, owned_by=_META),
    "llama-4": Profile(0.4, 120, 260, owned_by=_META),
    "muse": Profile(0.45, 110, 280, owned_by=_META),
    "deepseek": Profile(1.2, 40, 320, owned_by="deepseek"),
    "qwen": Profile(0.5, 80, 260, owned_by="qwen"),
    "rerank": Profile(0.15, 1e4, 1, 0.3, owned_by="cohere"),
}


@lru_cache(maxsize=512)
def profile_of(model: str) -> Profile:
    """The profile of an upstream model name; a vendor in front of a slash and the case are ignored."""
    name = model.rpartition("/")[2].lower()
    best = max((prefix for prefix in PROFILES if name.startswith(prefix)), key=len, default="")
    return PROFILES.get(best, DEFAULT)


class Draw(NamedTuple):
    """All chance of one request. Times in seconds at speed 1; ``id`` is 32 hexadecimal digits."""

    id: str
    ttft_s: float
    tokens_per_s: float
    output_tokens: int
    reasoning_tokens: int
    chapter: float  # 0 to 1: where in the prose the answer begins
    cached_share: float  # of the prompt, before rounding down to whole steps


def draw(profile: Profile, rng: random.Random) -> Draw:
    """One request's chance. Always six draws, so that what one request asks for never shifts the next."""
    exp, gauss = math.exp, rng.gauss
    luck = rng.random()
    return Draw(
        f"{rng.getrandbits(128):032x}",
        profile.ttft_s * exp(profile.sigma * gauss(0.0, 1.0)),
        profile.tokens_per_s * exp(0.12 * gauss(0.0, 1.0)),
        int(profile.output_tokens * exp(0.45 * gauss(0.0, 1.0))) + 1,
        int(profile.reasoning_tokens * (0.5 + luck)),
        rng.random(),
        (luck - 0.6) / 0.4 if luck > 0.6 else 0.0,
    )


def cached_tokens(prompt_tokens: int, share: float) -> int:
    """Prompt tokens the provider says it had in its cache: whole steps, and none of a short prompt."""
    if prompt_tokens < CACHE_MIN_TOKENS:
        return 0
    return int(prompt_tokens * share) // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS


# --- prompts ---------------------------------------------------------------------------------------------


def text_tokens(text: str) -> int:
    """Tokens of a text by its UTF-8 length, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def json_tokens(value: Any) -> int:
    """Tokens of a value as it stands in the body (tool definitions, calls)."""
    try:
        return -(-len(orjson.dumps(value)) // BYTES_PER_TOKEN)
    except TypeError:  # nested deeper than orjson writes: a fuzzer's, and no price hangs on it
        return 0


def content_tokens(content: Any, depth: int = 0) -> int:
    """Tokens of a message's content in any of the APIs' shapes; other types count nothing."""
    if isinstance(content, str):
        return text_tokens(content)
    if not isinstance(content, list) or depth > MAX_CONTENT_DEPTH:
        return 0
    total = 0
    for part in content:
        if isinstance(part, str):
            total += text_tokens(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in ("image_url", "input_image", "image"):
                total += IMAGE_TOKENS
            elif kind == "input_audio":
                total += AUDIO_TOKENS
            else:
                text = part.get("text")
                total += text_tokens(text) if isinstance(text, str) else 0
                total += content_tokens(part.get("content"), depth + 1)
    return total


def message_tokens(messages: Sequence[Any]) -> int:
    """Prompt tokens of a list of messages or of input items."""
    total = REPLY_TOKENS
    for message in messages:
        total += MESSAGE_TOKENS
        if isinstance(message, dict):
            total += content_tokens(message.get("content"))
            total += content_tokens(message.get("output"))
            if message.get("tool_calls"):
                total += json_tokens(message["tool_calls"])
    return total


def topic_of(messages: Sequence[Any]) -> str:
    """The beginning of the last text in the messages, on one line."""
    for message in reversed(messages):
        content = message.get("content") if isinstance(message, dict) else message
        if isinstance(content, str) and content:
            return " ".join(content[: TOPIC_CHARS * 4].split())[:TOPIC_CHARS]
        parts = content if isinstance(content, list) else [content]
        for part in reversed(parts):
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str) and text:
                return " ".join(text[: TOPIC_CHARS * 4].split())[:TOPIC_CHARS]
    return ""


# --- prose -----------------------------------------------------------------------------------------------

_SUBJECTS = (
    "a good answer|the plan|every system|the team|this approach|a careful reader|the second option|the data"
    "|one service|the simplest design|a short test|the budget|each request|the report|a small change"
)
_VERBS = (
    "depends on|starts with|follows from|explains|improves|needs|shows|shapes|comes before|limits|supports"
    "|makes room for|says little about|is measured by|holds up without"
)
_OBJECTS = (
    "the people who use it|a clear goal|what was observed|the cost of waiting|three simple steps|the context"
    "|honest numbers|a second look|the details|time and patience|the first example|small, safe moves"
    "|what the evidence says|a shared vocabulary|the limits we know"
)
_TURNS = "In short,|For example,|By contrast,|In practice,|After that,|As a rule,|Still,|More often,"


@lru_cache(maxsize=1)
def _library() -> tuple[list[str], list[int]]:
    """About 4,000 pieces of prose, one token each, and the positions at which its sentences begin."""
    rng = random.Random("prose")
    pieces: list[str] = []
    starts: list[int] = []
    subjects, verbs, objects, turns = (s.split("|") for s in (_SUBJECTS, _VERBS, _OBJECTS, _TURNS))
    for _ in range(400):
        subject = rng.choice(subjects)
        opening = f"{rng.choice(turns)} {subject}" if rng.random() < 0.3 else subject.capitalize()
        starts.append(len(pieces))
        pieces += [f" {word}" for word in f"{opening} {rng.choice(verbs)} {rng.choice(objects)}.".split()]
    return pieces, starts


_WORDS = re.compile(r"\s*\S+")


@lru_cache(maxsize=128)
def _lead(model: str, topic: str) -> tuple[str, ...]:
    about = f' You asked: "{topic}".' if topic else ""
    return tuple(_WORDS.findall(f"This is a simulated answer in the name of {model}.{about}"))


def compose(model: str, topic: str, chance: Draw, exactly: int | None = None) -> list[str]:
    """An answer as pieces of one token each.

    :param exactly: how many pieces; None for the drawn length, continued to the end of its sentence.
    """
    pieces, starts = _library()
    lead = list(_lead(model, topic))
    wanted = chance.output_tokens if exactly is None else exactly
    wanted = min(wanted, MAX_OUTPUT_TOKENS)
    start = starts[int(chance.chapter * len(starts))]
    while len(lead) + len(pieces) - start < wanted + 32:  # 32: no sentence is longer
        lead += pieces[start:]
        start = 0
    end = start + max(wanted - len(lead), 0)
    if exactly is None:
        while end > start and not pieces[end - 1].endswith("."):
            end += 1
    return (lead + pieces[start:end])[: None if exactly is None else wanted]


# --- vectors ---------------------------------------------------------------------------------------------


def vector(model: str, data: bytes, dimensions: int | None = None) -> array[float]:
    """The unit vector of an input: the same for the same model and bytes, in single precision.

    A smaller ``dimensions`` is the head of the full vector, normalised again, as OpenAI shortens its own.
    """
    full = profile_of(model).dimensions
    seed = hashlib.blake2b(model.encode("utf-8", "surrogatepass") + b"\0" + data).digest()
    return _vector(seed, full, dimensions or full)


@lru_cache(maxsize=64)  # load tests repeat themselves; a vector of 3,072 takes 12 KiB
def _vector(seed: bytes, full: int, dimensions: int) -> array[float]:
    numbers = array("h", hashlib.shake_256(seed).digest(2 * full))[:dimensions]
    norm = math.sqrt(sum(map(mul, numbers, numbers))) or 1.0
    return array("f", [number / norm for number in numbers])
