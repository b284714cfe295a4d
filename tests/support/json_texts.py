"""JSON bodies that mislead simple searches, for hypothesis."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import strategies as st

from proxy.wire.model_scanner import ModelScanner, ModelSpan

# Strings that look like what the scanner searches for, so that the dangerous cases are the common ones.
nasty = st.sampled_from(
    [
        "model", '"model"', '"model":', '\\"model\\":', "model\\", "\\", '"', '{"model":"x"}', "}", "{",
        "[", "]",
        "\\u006dodel", "mod", "é", "日本", "😀", "\\\\", '\\"', "\n", "\u2028", "Model", '":{"', "null",
    ]
)  # fmt: skip
text = st.lists(st.one_of(nasty, st.text(max_size=5)), max_size=5).map("".join)
keys = st.one_of(st.sampled_from(["models", "mode", "type", "messages", "tools", "stream", "Model"]), text)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(keys, st.just("model")), inner, max_size=4)
    ),
    max_leaves=12,
)
white = st.sampled_from(["", " ", "\n", "\t \r\n", "   " * 20])


PLAIN = st.just('"model"')


@st.composite
def bodies(draw, models=1, spelling=PLAIN):
    """A JSON object as bytes with ``models`` top-level model members at drawn places."""
    members = [
        (json.dumps(k, ensure_ascii=draw(st.booleans())), v)
        for k, v in draw(st.dictionaries(keys, values, max_size=4)).items()
        if k != "model" and "\0" not in k
    ]
    for _ in range(models):
        name = draw(st.one_of(st.text(min_size=1, max_size=12), st.sampled_from(["openai/gpt-4o", "model"])))
        members.insert(draw(st.integers(0, len(members))), (draw(spelling), name))
    ascii_only = draw(st.booleans())
    gap = lambda: draw(white)  # noqa: E731
    parts = [f"{gap()}{k}{gap()}:{gap()}{json.dumps(v, ensure_ascii=ascii_only)}{gap()}" for k, v in members]
    return (gap() + "{" + (",".join(parts) or gap()) + "}" + gap()).encode("utf-8", "surrogatepass")


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def scan(pieces: list[bytes]) -> ModelSpan | None:
    scanner = ModelScanner()
    for i, piece in enumerate(pieces):
        scanner.feed(piece, i == len(pieces) - 1)
    return scanner.found
