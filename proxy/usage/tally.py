"""Sums over lines of the ledger. Lines that were torn, or are not the gateway's, are counted as such.

A process that is killed, or a full disk, can leave half a line. It must cost itself only: neither the line
beside it nor the numbers of others may change for it, so a line is added whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.usage.calendar import DAY_S
from proxy.usage.pricing import Prices, price_nusd, saved_nusd
from proxy.usage.tokens import Usage

# Of tokens, and of nano-dollars, in one line: a million dollars. Larger numbers are garbage, and a few
# thousand of them would be more than SQLite's integers hold. A power of two.
LIMIT = 2**50
_YEAR_9999_S = 253402300800.0  # the last that a date can be

# Names and values, in order: of the key or listed; and what only the client says.
Tags = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]
NO_TAGS: Tags = ((), ())
# Day, key, its group, model, provider, alias, endpoint, tags.
_Name = str | None
Group = tuple[float, _Name, _Name, _Name, _Name, _Name, _Name, Tags]
# Requests, errors, five kinds of tokens, nusd, estimated, last_at, saved_nusd; and what was charged, which
# nusd is where no other prices are given.
Totals = dict[Group, list[Any]]


def cut(data: bytes, is_full: bool, is_end: bool) -> tuple[list[bytes], int, int]:
    """Whole lines of a slice of a file, how many of its bytes that takes, and how many lines were torn.

    :param is_full: the slice is as long as they get: without the end of a line in it, it is no line of ours.
    :param is_end: of a file that is complete: a line without an end is torn. Elsewhere it waits.
    """
    end = data.rfind(b"\n") + 1
    lines = data[: end - 1].split(b"\n") if end else []
    if is_end or (is_full and not end):
        return lines, len(data), int(end < len(data))
    return lines, end, 0


def add(lines: list[bytes], totals: Totals, prices: Mapping[str, Prices] | None = None) -> int:
    """Add what the lines say; how many of them could not be understood.

    :param prices: by the model's id, to count money by instead of what was charged; None: what was charged
        counts, as it does for models without a price here.

    This is most of what the ledger costs: 2 µs a line, half of it for the JSON.
    """
    torn = 0
    for record in _parsed(lines):
        try:
            get = record.get
            at = record["t"]
            inputs, outputs, reasoning = get("input", 0), get("output", 0), get("reasoning", 0)
            cached, written, status = get("cached", 0), get("cache_write", 0), get("status", 0)
            nusd, saved = get("nusd"), get("saved", 0)
            if nusd is None:
                nusd = 0
            # All checks in one: of integers, this is negative if one of them is, and below a power of two if
            # all of them are. Of anything else it fails.
            if not 0 <= (inputs | outputs | reasoning | cached | written | status | nusd | saved) < LIMIT:
                raise ValueError
            if not 0.0 <= at < _YEAR_9999_S:
                raise ValueError
            is_estimated = get("source") == "estimated"
            has_tags = "tags" in record or "client_tags" in record
            group = (
                at // DAY_S, get("key"), get("group"), get("model"), get("provider"), get("alias"),
                get("endpoint"),
                (_pairs(get("tags")), _pairs(get("client_tags"))) if has_tags else NO_TAGS,
            )  # fmt: skip
            charged = nusd
            if prices is not None and group[3] in prices:
                nusd, saved = _repriced(record, prices[group[3]])
            hedged = _hedged(record, group, prices) if "hedged" in record else ()
            total = totals.get(group) or _begun(group, totals)
        except (AttributeError, KeyError, TypeError, ValueError):
            torn += 1
            continue
        total[0] += 1
        total[2] += inputs
        total[5] += outputs
        total[7] += nusd
        if status >= 400:
            total[1] += 1
        if cached or written or reasoning:
            total[3] += cached
            total[4] += written
            total[6] += reasoning
            total[10] += saved
        if is_estimated:
            total[8] += 1
        if at > total[9]:  # noqa: PLR1730 - as a call it would be a twentieth of the whole
            total[9] = at
        total[11] += charged
        for other, inputs, outputs, nusd, charged in hedged:
            total = totals.get(other) or _begun(other, totals)
            total[2] += inputs
            total[5] += outputs
            total[7] += nusd
            total[8] += 1
            total[9] = max(total[9], at)
            total[11] += charged
    return torn


def _parsed(lines: list[bytes]) -> list[Any]:
    """Parse each line as JSON; None where it is not.

    All in one go is a fifth faster than one by one. Two torn lines that are only together an array's members
    would be one fewer, and then each is looked at alone.
    """
    try:
        records: list[Any] = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines):
            return records
    except orjson.JSONDecodeError:
        pass
    records = []
    for line in lines:
        try:
            records.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            records.append(None)
    return records


def _begun(group: Group, totals: Totals) -> list[Any]:
    _check(group)
    total = totals[group] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0]
    return total


def _check(group: Group) -> None:
    if not all(name is None or isinstance(name, str) for name in group[1:7]):
        raise TypeError


def _pairs(tags: dict[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Names and values, in order."""
    if not tags:
        return ()
    for value in tags.values():
        if type(value) is not str:
            raise TypeError
    return tuple(tags.items()) if len(tags) == 1 else tuple(sorted(tags.items()))


def _repriced(record: dict[str, Any], prices: Prices) -> tuple[int, int]:
    """What a line would be charged, and what its cached tokens save. Lines have the parts of their tokens."""
    parts = ("input", "cached", "cache_write", "output", "reasoning", "audio_input", "audio_output")
    given, cached, written, output, reasoning, heard, spoken = [record.get(name, 0) for name in parts]
    usage = Usage(given, cached, written, output, reasoning, False, heard, spoken)
    nusd = price_nusd(usage, prices)
    if nusd is None:
        return record.get("nusd") or 0, record.get("saved", 0)
    if not 0 <= nusd < LIMIT:
        raise ValueError
    return nusd, saved_nusd(usage, prices)


def _hedged(
    record: dict[str, Any], group: Group, prices: Mapping[str, Prices] | None
) -> list[tuple[Group, int, int, int, int]]:
    """Add the costs of attempts that lost a hedge, each at its own model and provider. All are estimates."""
    found = []
    for lost in record["hedged"] or ():
        inputs, outputs, nusd = lost.get("input", 0), lost.get("output", 0), lost.get("nusd")
        nusd = 0 if nusd is None else nusd
        other: Group = (*group[:3], lost.get("model"), lost.get("provider"), *group[5:])
        _check(other)
        charged = nusd
        own = None if prices is None else prices.get(other[3] or "")
        if own is not None:
            nusd, _ = _repriced(lost, own)
        if not 0 <= (inputs | outputs | nusd) < LIMIT:
            raise ValueError
        found.append((other, inputs, outputs, nusd, charged))
    return found
