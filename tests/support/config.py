"""What the tests of configuration files share: a file to build on, and texts that mark their mistakes."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.config.tables import ConfigError, Mistake

# Enough of a file for all else to be read; what a case is about stands before it.
BASE = """
[providers.openai]
base_url = "https://api.openai.com/v1"
[models."openai/gpt-4o"]
[models."openai/gpt-4o-mini"]
[models."openai/embed"]
capabilities = ["embeddings"]
"""

P = '[providers.x]\nbase_url = "http://x/v1"\n'
M = '[models."openai/x"]\n'


def mistakes_of(text: str) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.mistakes


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its « marks, and the places these stood at."""
    places = []
    while (offset := text.find("«")) >= 0:
        text = text[:offset] + text[offset + 1 :]
        places.append((text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)))
    return text, places


def check_mistake(case: str, message: str) -> None:
    """The only mistake of a file stands at its « mark; the message contains this."""
    text, [place] = marked(case)
    found = mistakes_of(text + "\n" + BASE)
    assert [(m.line, m.column) for m in found] == [place], found
    assert message in found[0].message
    assert "geheim" not in found[0].message  # what may be a secret is never shown
