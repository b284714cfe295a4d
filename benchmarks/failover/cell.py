"""All rows against one gateway, and whether each response and each line of its ledger is as wanted."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import orjson
from soak.books import Books
from soak.gateway import GatewayProcess, free_ports
from soak.run import compare

from failover.client import Seen, ask, ask_by_sdk, body_of, has_sdks
from failover.kinds import FAULTS, PRICES, Row, always, rows
from failover.provider import BROKEN_AT, PROMPT_TOKENS, TOKENS, Plan, Provider

# Rows begin over this time, so that they do not all want the retry budget at once.
SPREAD_S = 40.0
# Between a row's requests: workers tell each other what they learned within 20 ms.
PAUSE_S = 0.1
INGEST_S = 20.0
SERVER = """
server.listen = ["127.0.0.1:{}"]
server.workers = {}
admin.listen = "127.0.0.1:{}"
auth.required = false
log.format = "json"
state.path = "{}"
"""
# What an operator sets who cares for failing over; each alias has LIMITS beside it.
TUNED = """
timeouts = { connect = "2s", first_byte = "30s", idle = "30s", total = "30s" }
routing.keepalive = "15s"
"""
LIMITS = ', hedge = "3s", first_byte = "8s", first_token = "8s"'


class Gateway(GatewayProcess):
    """The installed program. :param text: of its file, behind what is common."""

    def __init__(self, folder: Path, text: str, workers: int) -> None:
        folder.mkdir(parents=True)
        self.state, self.ledger = folder / "state.db", folder / "state.db-ledger"
        self.log, self.file, self.tls = folder / "gateway.log", folder / "routes.toml", None
        self._workers, self._text = workers, text

    async def start(self) -> None:
        self.port, self.admin_port = free_ports(2)  # not before, or another may get the same
        head = SERVER.format(self.port, self._workers, self.admin_port, self.state)
        self.file.write_text(head + self._text)
        await super().start()


def member(provider: Provider, name: str) -> str:
    """The lines of a file for a provider and its one model."""
    inputs, outputs = PRICES[name[-1]]
    return (
        f'[providers.{name}]\nbase_url = "{provider.url(name)}"\nauth = "none"\n'
        f'endpoints = ["chat", "responses", "messages"]\n'
        f'[models."{name}/m"]\ninput_price = {inputs}\noutput_price = {outputs}\n'
    )


@dataclass(slots=True)
class Result:
    """A row as it was played, and what is wrong with it. ``asked``: the bad and the good member."""

    row: Row
    seen: list[Seen] = field(default_factory=list)
    asked: tuple[int, int] = (0, 0)
    pause_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a field of the table."""
        words = Counter(seen.word for seen in self.seen)
        told = ", ".join(word if count == 1 else f"{count}x {word}" for word, count in words.items())
        slowest_s = max((seen.first_s for seen in self.seen), default=0.0)
        return f"{told}; {self.asked[0]}+{self.asked[1]}; {slowest_s:.1f} s {'WRONG' if self.wrong else 'ok'}"


def check(result: Result) -> list[str]:
    """What is not as the row wants it."""
    row, wrong = result.row, []
    wanted = row.word.replace("told", "raised") if row.how == "sdk" else row.word
    for seen in result.seen:
        if not seen.word.startswith(tuple(wanted.split("|"))):
            wrong.append(f"{seen.word!r} instead of {wanted!r} ({seen.story})")
        if seen.took_s > row.within_s:
            wrong.append(f"took {seen.took_s:.1f} s ({seen.story})")
        if seen.status == 429 and row.how != "sdk" and not seen.retry_after:
            wrong.append("a 429 without Retry-After")
    bounds = [part.split("-") for part in row.asked.split("+")]
    if any(not int(of[0]) <= count <= int(of[-1]) for count, of in zip(result.asked, bounds, strict=True)):
        wrong.append("asked {}+{} times instead of {}".format(*result.asked, row.asked))
    if result.pause_s < row.pause_s and result.asked[0] > 1:
        wrong.append(f"asked again after {result.pause_s:.2f} s")
    return wrong


def check_line(row: Row, seen: Seen, line: dict[str, Any]) -> str:
    """What is wrong with the ledger's line of a response; empty: nothing."""
    parts = [part.split(":")[:2] for part in seen.story.split(", ")]
    parts = [(name[-1], outcome) for name, outcome in parts if outcome not in ("redial", "budget")]
    beside = [str(one["provider"])[-1] for one in line.get("hedged", ())]
    # An attempt that was generating when it was left is charged beside the response's: one that lost a
    # hedge, and one whose client gave it no more time.
    left = ("hedged", "timeout") if row.headers else ("hedged",)
    end, by = (*seen.word.split(" "), "", "")[:2]
    charged = (str(line["provider"])[-1], *map(line.get, ("input", "output", "nusd", "source")))
    is_right = charged[1] is None or bool(row.headers)  # an error is charged nothing
    if end == "whole":
        nusd = 1000 * (PROMPT_TOKENS * PRICES[by][0] + TOKENS * PRICES[by][1])
        is_right = charged == (by, PROMPT_TOKENS, TOKENS, nusd, "provider")
    elif end in ("told", "cut"):
        is_right = by in (charged[0], "") and charged[2] is not None and charged[2] >= BROKEN_AT
    if line["attempts"] != len(parts) or line["status"] != seen.status:
        return f"{line['attempts']} attempts and {line['status']} for {seen.story}, {seen.status}"
    if beside != [name for name, outcome in parts if outcome in left] and end != "error":
        return f"charged beside: {beside} for {seen.story}"
    return "" if is_right else f"charged {charged} for {seen.word}"


class Cell:
    """One gateway, with the defaults or the tuned file, and all rows, or those whose names hold a word."""

    def __init__(
        self, provider: Provider, folder: Path, workers: int, words: list[str], *, tuned: bool
    ) -> None:
        self.title = f"{'tuned' if tuned else 'defaults'}, {workers} worker{'s' if workers > 1 else ''}"
        self.provider, self._prefix = provider, f"{'t' if tuned else 'd'}{workers}r"
        chosen = [row for row in rows(tuned=tuned) if row.how != "sdk" or has_sdks()]
        chosen = [row for row in chosen if not words or any(word in row.name for word in words)]
        self.results = [Result(row) for row in chosen]
        self.wrong: list[str] = []
        aliases, members = "", ""
        for number, row in enumerate(chosen):
            name = f"{self._prefix}{number}"
            provider.plans[name + "b"], provider.plans[name + "g"] = FAULTS[row.fault], always(Plan())
            members += member(provider, name + "b") + member(provider, name + "g")
            more = {"two": f', "{name}g/m"], ', "fallback": f'], fallback = ["{name}g/m"], '}.get(
                row.way, "], "
            )
            aliases += (
                f'{name} = {{ models = ["{name}b/m"{more}strategy = "order"{LIMITS if tuned else ""} }}\n'
            )
        self.gateway = Gateway(folder, f"{TUNED if tuned else ''}{members}[aliases]\n{aliases}", workers)

    async def play(self) -> None:
        """All rows; the gateway has been started, and has ended after this."""
        order = list(enumerate(self.results))
        Random(self.title).shuffle(order)
        pause_s = SPREAD_S / max(len(order), 40)
        plays = [self._play(number, result, at * pause_s) for at, (number, result) in enumerate(order)]
        await asyncio.gather(*plays)
        await self._reckon()
        status = await self.gateway.stop()
        self.wrong += [f"the gateway exits with {status}"] if status else []
        self.wrong += self.gateway.log_faults()

    async def _play(self, number: int, result: Result, after_s: float) -> None:
        await asyncio.sleep(after_s)
        row, name, port, bodies = result.row, f"{self._prefix}{number}", self.gateway.port, []
        model = f"{name}b/m" if row.way == "alone" else name
        for time in range(row.times):
            body = body_of(model, row.endpoint, time, streamed=row.how != "plain", prefilled=row.is_prefilled)
            bodies.append(body | {"model": "m"})
            if row.how == "sdk":
                result.seen.append(await asyncio.to_thread(ask_by_sdk, port, row.endpoint, body))
            else:
                result.seen.append(await ask(port, row.endpoint, body, row.headers))
            await asyncio.sleep(PAUSE_S)
        bad, good = (self.provider.calls[name + letter] for letter in "bg")
        result.asked = len(bad), len(good)
        result.pause_s = bad[1][0] - bad[0][0] if len(bad) > 1 else 0.0
        result.wrong += check(result)
        if any(body not in bodies for _, body in (*bad, *good)):
            result.wrong.append("a body came changed")

    async def _reckon(self) -> None:
        """Hold the ledger to what clients saw, and the totals to the ledger."""
        of_row: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for file in self.gateway.ledger.glob("*.jsonl"):
            for line in map(orjson.loads, file.read_bytes().splitlines()):
                of_row[re.sub("b/m$", "", line["asked"])].append(line)
        for number, result in enumerate(self.results):
            lines, row = of_row[f"{self._prefix}{number}"], result.row
            by_id = {line["id"]: line for line in lines}
            # An SDK doesn't show whose line is whose. What was sent to no provider has none.
            sent = [seen for seen in result.seen if seen.story]
            if not len(lines) == len(by_id) == (row.times if row.how == "sdk" else len(sent)):
                result.wrong.append(f"{len(lines)} lines in the ledger for {row.times} requests")
            else:
                faults = [check_line(row, seen, by_id[seen.id]) for seen in sent]
                result.wrong += [f"ledger: {fault}" for fault in faults if fault]
        books, differing, until = Books(self.gateway.ledger), ["nothing"], monotonic() + INGEST_S
        books.read()
        while differing and monotonic() < until:
            await asyncio.sleep(0.5)
            differing = compare(await self.gateway.usage(), books)
        self.wrong += [f"totals: {what}" for what in differing]
