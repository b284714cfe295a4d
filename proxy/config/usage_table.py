"""Reads ``[usage]``: the tags that requests may carry, and how many of their values are told apart."""

from __future__ import annotations

import re
from typing import Final

from proxy.config import values
from proxy.config.settings import UsageConfig
from proxy.config.tables import Table

MAX_TAGS: Final = 10
MAX_TAG_VALUE_CHARS: Final = 64
TAG_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# A name stands beside these in questions to the totals, in their rows, and in the options of commands.
RESERVED: Final = frozenset(
    (
        *("key", "key_id", "group", "alias", "endpoint", "provider", "model", "day", "requests", "errors"),
        *("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "usd"),
        *("saved_usd", "charged_usd", "estimated", "tag", "tags", "by", "since", "until", "format"),
        *("forecast", "forecast_usd", "forecast_tokens", "reprice"),
    )
)


def is_tag_value(text: str) -> bool:
    """Return whether a tag can have a value: printable, without commas, no white space around it."""
    return (
        0 < len(text) <= MAX_TAG_VALUE_CHARS
        and text.isprintable()
        and text.find(",") < 0
        and text == text.strip()
    )


def tag_name(value: object) -> str:
    """Read the name of a tag. :raises ValueError: it can't be one."""
    name = values.text(value)
    if not TAG_NAME.fullmatch(name):
        raise ValueError(
            f"has a tag '{name[:40]}': names have up to 32 lower-case letters, digits, '_' and '-', and "
            "begin with a letter"
        )
    if name in RESERVED:
        raise ValueError(f"can't have a tag '{name}': totals have something else by this name")
    return name


def _tag_value(value: object) -> str:
    text = values.text(value)
    if not is_tag_value(text):
        raise ValueError(
            f"has a value '{text[:40]}': values have 1 to {MAX_TAG_VALUE_CHARS} printable characters and no "
            "comma"
        )
    return text


def usage(table: Table) -> UsageConfig:
    default = UsageConfig()
    tags: tuple[tuple[str, tuple[str, ...]], ...]
    if isinstance(table.content.get("tags"), dict):
        inner = table.table("tags")
        found = []
        for name in inner.content:
            try:
                tag_name(name)
            except ValueError as error:
                table.notes.wrong(inner.at(name), f"'tags' {error}", at_key=True)
            found.append((name, inner.take_list(name, (), _tag_value, may_be_empty=True)))
        inner.done()
        tags = tuple(found)
    else:
        tags = tuple((name, ()) for name in table.take_list("tags", (), tag_name, may_be_empty=True))
    names = [name for name, _ in tags]
    if len(set(names)) < len(names) or len(names) > MAX_TAGS:
        table.notes.wrong(table.at("tags"), f"'tags' must name up to {MAX_TAGS} tags, each once")
    config = UsageConfig(
        tags=tags,
        tag_values=table.take("tag_values", default.tag_values, values.whole(1, 100_000)),
        metric_tags=table.take_list(
            "metric_tags", (), values.choice(names, "tag") if names else _no_tag, may_be_empty=True
        ),
    )
    table.done()
    return config


def _no_tag(value: object) -> str:
    raise ValueError(f"names '{values.text(value)[:40]}', and 'tags' has none: list it there first")
