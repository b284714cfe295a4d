"""A gateway with one scripted provider: its keys, its ledger, and that the two agree."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e import Gateway, run
from tests.e2e.asking import CHAT, NUMBERS, fetch
from tests.e2e.background import in_thread, scripted
from tests.support.fakes import Script, answers

ANSWER = b'{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}'
USD = 0.0002  # 100 tokens at 1, and 50 at 2 USD per million
TEXT = """
[state]
path = "t.db"
[providers]
p = {{ base_url = "{url}", auth = "none" }}
[models]
"p/m" = {{ input_price = 1, output_price = 2 }}
"""


@contextlib.contextmanager
def provider_of(script: Script | None = None) -> Iterator[str]:
    """The address of one in a thread, which answers at once, unless its script says otherwise."""
    with in_thread(scripted(script or answers(ANSWER))) as made:
        yield made.url


def told(folder: Path, *command: str) -> list[dict]:
    return json.loads(run(*command, "--config", "gateway.toml", "--json", cwd=folder).stdout)["data"]


# ---------------------------------------------------------------------- keys


def make_key(folder: Path) -> str:
    """One whose limits nobody reaches, without a gateway."""
    created = run("keys", "create", "--config", "gateway.toml", "--name", "k", "--rpm", "1000000000",
                  "--monthly-tokens", "1000000000000", cwd=folder)  # fmt: skip
    assert created.returncode == 0, created.stderr
    return created.stdout.strip()


def keys(gateway: Gateway, *command: str) -> str:
    """What ``tokenhub keys`` says at a running gateway."""
    where = ("--admin", gateway.admin, "--config", str(gateway.config))
    done = run("keys", *command, *where, cwd=gateway.config.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def asking(gateway: Gateway, key: str) -> http.client.HTTPResponse:
    body = {"model": "p/m", "user": str(next(NUMBERS))}
    return fetch(gateway, "POST", CHAT, body, Authorization=f"Bearer {key}")


def statuses(gateway: Gateway, key: str, count: int) -> Counter[int]:
    """Of so many requests, 16 at a time, each on a connection of its own: they spread over the workers."""
    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(lambda _: asking(gateway, key).status, range(count)))


# ---------------------------------------------------------------------- the ledger


def lines(folder: Path) -> list[dict]:
    found = []
    for file in sorted((folder / "t.db-ledger").glob("*.jsonl")):
        found += [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
    return found


def check(folder: Path, finished: list[str]) -> int:
    """Every answer has its line, no line is there twice, and the totals are the sum of the lines."""
    written = lines(folder)
    ids = [line["id"] for line in written]
    assert len(ids) == len(set(ids))
    assert set(finished) <= set(ids)
    good = [line for line in written if line["status"] == 200 and line.get("source") == "provider"]
    [total] = told(folder, "usage", "--by", "")
    assert total["requests"] == len(written)
    assert total["input_tokens"] == sum(line.get("input", 0) for line in written)
    assert total["output_tokens"] == sum(line.get("output", 0) for line in written)
    assert round(total["usd"] * 1e9) == sum(line.get("nusd") or 0 for line in written)
    assert len(good) * USD <= total["usd"] + 1e-9
    [key] = told(folder, "keys", "list")
    assert key["month"]["tokens"] == total["input_tokens"] + total["output_tokens"]
    assert round(key["month"]["usd"], 9) == round(total["usd"], 9)
    return len(written)
