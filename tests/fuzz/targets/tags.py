"""Tags: whatever a client says is read within bounds, or refused; and a line has just what was read."""

from __future__ import annotations

import json

from proxy.access.tagging import Tagging
from proxy.config.settings import UsageConfig
from proxy.config.usage_table import is_tag_value
from proxy.errors import BadRequest
from proxy.usage.counters import Counters
from proxy.usage.tags import HEADER, MAX_VALUE_CHARS, TagsError, read_tags

TAGS = (("team", ("search",)), ("app", ()))
CONFIG = UsageConfig(tags=TAGS, tag_values=3, metric_tags=("team", "app"))
# Lines of the header, an LF between them.
SEEDS = [
    b"team=search, feature=rag", b"team=ads\napp=x", b"app=\xc3\xbc ,team = a=b", b"team=a,team=b",
    b"=,==,\n",
    b"team=" + b"x" * 65, b",".join(b"a%d=b" % number for number in range(33)),
    b"app=a\x00b\nteam=\xff", b"",
]  # fmt: skip


def test_one(data: bytes) -> None:
    lines = data.split(b"\n")
    text = b",".join(line for line in lines if line)
    try:
        said = read_tags(text)
    except TagsError as error:
        assert str(error)
        said = {}
    for name, value in said.items():
        assert name == name.strip() and 0 < len(name) <= 32
        assert 0 < len(value) <= MAX_VALUE_CHARS and is_tag_value(value)
    try:
        found = Tagging(CONFIG, Counters()).tagged([(HEADER, line) for line in lines if line], None, 0.0)
    except BadRequest as error:
        assert (error.status, error.code, said) == (400, "invalid_tags", {})
        return
    counted = {name: value for name, value in said.items() if name in ("team", "app")}
    if found is None:
        assert not counted
        return
    line = json.loads(b'{"key":%b}' % found.members)
    assert line.get("tags", {}) | line.get("client_tags", {}) == counted
    assert line.get("tags", {"team": "search"}) == {"team": "search"}
    assert len(found.counters) == len(counted)
