"""The counts of a process's requests, for metrics: totals and histograms, each by labels that the
configuration bounds. A status is the provider's to choose, so that only those of :data:`STATUSES` are counted
by their number.

Counted where a request's line is made (:mod:`proxy.relay.exchange.closing`), so that line and count can't
tell two stories. All numbers are integers: durations come in hundredths of a millisecond, as the lines have
them, or in microseconds. What is read out (:class:`Counted`) is plain, so that workers can send it, and can
be added up.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.usage.tokens import Usage

# The labels of one: its provider's name and its id.
Model = tuple[str, str]
NOBODY: Final[Model] = ("", "")
# Upper bounds of buckets, inclusive. Those of the OpenTelemetry conventions for generative AI (time to first
# token; token usage), with steps between theirs where hosted models answer: 0.1 to 10 s.
DURATION_S: Final = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
]  # fmt: skip
TOKENS: Final = [4**power for power in range(14)]
OVERHEAD_US: Final = [10, 20, 30, 40, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10000, 100000, 1000000]
LAG_US: Final = [100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 1000000]
_HUNDREDTHS_MS: Final = [round(bound * 1e5) for bound in DURATION_S]

# The statuses that are counted by their number: those of this gateway, and those that providers and what
# stands before them are known for (520 to 526: Cloudflare; 529: Anthropic). Others are counted by their
# hundred, or else as "other": 900 different ones would be as many series for each key and model.
_KNOWN: Final = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408,
    409, 410, 411, 413, 414, 415, 416, 417, 418, 421, 422, 424, 425, 426, 428, 429, 431, 451, 499, 500,
    501, 502, 503, 504, 505, 520, 521, 522, 523, 524, 525, 526, 529,
]  # fmt: skip
STATUSES: Final = frozenset(_KNOWN)
# Numbers that stand for all other statuses, with their labels: no known status, and errors where those are.
_OTHERS: Final = {299: "2xx", 399: "3xx", 498: "4xx", 599: "5xx", 999: "other"}
_STANDS_IN: Final = {2: 299, 3: 399, 4: 498, 5: 599}
_COUNTED_AS: Final = [
    status if status in STATUSES else _STANDS_IN.get(status // 100, 999) for status in range(1000)
]


def counted_as(status: int) -> int:
    """The status itself where it is counted by its number, else the number that stands for its kind."""
    return _COUNTED_AS[status] if 0 <= status < 1000 else 999


def label_of(status: int) -> str:
    """The label of a status: ``200``, ``4xx``, ``other``."""
    status = counted_as(status)
    return _OTHERS.get(status) or str(status)


def is_error(label: str) -> bool:
    """Return whether a label is one of statuses of 400 and more."""
    return label[0] in "456789o"


# Labels read in a step: 0.1 ms.
_AT_ONCE: Final = 100

# Labels after the kind of what is counted -> the numbers.
Sums = dict[tuple[str, ...], tuple[int, ...]]


class Counted(NamedTuple):
    """Counts up to now, and values of this moment.

    Of a worker that has ended the ``totals`` still count, and its ``levels`` no longer do.
    """

    totals: Sums
    levels: Sums


def add_up(into: Sums, more: Sums) -> None:
    """Add what another one counted, or has."""
    for labels, numbers in more.items():
        known = into.get(labels)
        into[labels] = numbers if known is None else tuple(a + b for a, b in zip(known, numbers, strict=True))


class Histogram:
    """Number of values in each bucket, and their sum.

    :param bounds: the highest value of each bucket, ascending; above the last is one more.
    """

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, bounds: list[int]) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._sum = 0

    def add(self, value: int) -> None:
        """Count a value."""
        bounds = self._bounds
        low, high = 0, len(bounds)
        while low < high:  # compiled, this takes half of what bisect_left() does
            middle = (low + high) >> 1
            if bounds[middle] < value:
                low = middle + 1
            else:
                high = middle
        self._buckets[low] += 1
        self._sum += value

    def merge(self, other: Histogram) -> None:
        """Add what another one, with the same bounds, has counted."""
        for index, count in enumerate(other._buckets):
            self._buckets[index] += count
        self._sum += other._sum

    def numbers(self) -> tuple[int, ...]:
        """The buckets, not yet added up, and the sum."""
        return (*self._buckets, self._sum)


class Used:
    """Requests that have all labels in common, and what they used. Money in nano-USD."""

    __slots__ = ("cached_tokens", "input_tokens", "nusd", "output_tokens", "reasoning_tokens", "requests")

    def __init__(self) -> None:
        self.requests = self.nusd = 0
        self.input_tokens = self.cached_tokens = self.output_tokens = self.reasoning_tokens = 0

    def add(self, usage: Usage, nusd: int) -> None:
        """Add the usage of one attempt."""
        self.input_tokens += usage.input_tokens
        self.cached_tokens += usage.cached_tokens
        self.output_tokens += usage.output_tokens
        self.reasoning_tokens += usage.reasoning_tokens
        self.nusd += nusd

    def numbers(self) -> tuple[int, ...]:
        """In the order of :data:`USED`."""
        return (
            self.requests, self.input_tokens, self.cached_tokens, self.output_tokens, self.reasoning_tokens,
            self.nusd,
        )  # fmt: skip


USED: Final = ("requests", "input", "cached", "output", "reasoning", "nusd")


class Times:
    """Answers of one model at one endpoint whose status is no error: how long they took, and their tokens."""

    __slots__ = ("first_byte", "input_tokens", "output_tokens", "whole")

    def __init__(self) -> None:
        self.first_byte = Histogram(_HUNDREDTHS_MS)
        self.whole = Histogram(_HUNDREDTHS_MS)
        self.input_tokens = Histogram(TOKENS)
        self.output_tokens = Histogram(TOKENS)

    def add(self, took: int, waited: int, usage: Usage | None) -> None:
        """Such a response.

        :param took: hundredths of a millisecond until its end; ``waited``: until its first byte.
        """
        self.first_byte.add(waited)
        self.whole.add(took)
        if usage is not None:
            self.input_tokens.add(usage.input_tokens)
            self.output_tokens.add(usage.output_tokens)


class CountedPrefix:
    """The ledger-line prefix and the counters shared by all requests of one pool at one deployment.

    :param members: of the line.
    """

    __slots__ = ("by_key", "members", "times")

    def __init__(self, members: bytes, times: Times) -> None:
        self.members = members
        self.times = times
        self.by_key: dict[tuple[bytes, int], Used] = {}  # by the key's id as JSON, and counted_as(status)


class Counters:
    """All counts of this process, by their labels."""

    __slots__ = (
        "_failures", "_tagged", "_times", "_used", "budget_refusals", "dropped_headers", "dropped_parameters",
        "fallbacks", "hedges", "lag", "overhead", "redials", "retries", "shed",
    )  # fmt: skip

    def __init__(self) -> None:
        self._used: dict[tuple[str, str, str, int], Used] = {}
        self._times: dict[tuple[str, str, str], Times] = {}
        self._tagged: dict[tuple[str, str], Used] = {}
        self._failures: dict[tuple[str, str, str], int] = {}
        self.overhead = Histogram(OVERHEAD_US)
        self.lag = Histogram(LAG_US)
        self.retries = self.fallbacks = self.hedges = 0
        self.budget_refusals = 0  # further attempts that the retry budget did not allow
        self.redials = 0  # of kept connections that closed as they were used again
        self.shed = 0  # turned away for an overload
        self.dropped_headers = self.dropped_parameters = 0  # of clients; they did not reach a provider

    def prefix(self, members: bytes, model: Model, endpoint: str) -> CountedPrefix:
        """Prepare for the requests of a pool that a deployment answers."""
        labels = *model, endpoint
        times = self._times.get(labels)
        if times is None:
            times = self._times[labels] = Times()
        return CountedPrefix(members, times)

    def used(self, model: Model, key: str, status: int) -> Used:
        """Return the counters of a model, a key and a status.

        :param model: the model that answered, or was asked last; ``NOBODY``: none was asked.
        :param key: its id, or "".
        """
        labels = *model, key, counted_as(status)
        used = self._used.get(labels)
        if used is None:
            used = self._used[labels] = Used()
        return used

    def tagged(self, name: str, value: str) -> Used:
        """Return the counters of requests with a tag. The caller bounds the values."""
        used = self._tagged.get((name, value))
        if used is None:
            used = self._tagged[name, value] = Used()
        return used

    def refused(self, status: int) -> None:
        """Count input that was refused before it was a request."""
        self.used(NOBODY, "", status).requests += 1

    def followed(self, in_pool: bool) -> None:
        """A further attempt follows one that failed: in the same pool, or in a fallback's."""
        if in_pool:
            self.retries += 1
        else:
            self.fallbacks += 1

    def failed(self, model: Model, outcome: str) -> None:
        """An attempt failed; ``outcome`` is a status, or one of a few words."""
        reason = label_of(int(outcome)) if outcome.isdigit() else outcome
        labels = *model, reason
        self._failures[labels] = self._failures.get(labels, 0) + 1

    def brief(self) -> Generator[None, None, Sums]:
        """Over all labels, in steps. It is asked for each second, and many keys make many labels."""
        requests = errors = given = output = nusd = 0
        for number, ((_, _, _, status), used) in enumerate(list(self._used.items())):
            requests += used.requests
            errors += used.requests if status >= 400 else 0
            given += used.input_tokens
            output += used.output_tokens
            nusd += used.nusd
            if not number % _AT_ONCE:
                yield
        first_byte = Histogram(_HUNDREDTHS_MS)
        for number, times in enumerate(list(self._times.values())):
            first_byte.merge(times.first_byte)
            if not number % _AT_ONCE:
                yield
        return {
            ("all",): (requests, errors, given, output, nusd),
            ("first_byte",): first_byte.numbers(),
            ("overhead",): self.overhead.numbers(),
            ("lag",): self.lag.numbers(),
        }

    def read(self) -> Generator[None, None, Sums]:
        """All of it, in steps."""
        sums: Sums = {}
        for number, ((provider, model, key, status), used) in enumerate(list(self._used.items())):
            sums["used", provider, model, key, label_of(status)] = used.numbers()
            if not number % _AT_ONCE:
                yield
        for number, ((provider, model, endpoint), times) in enumerate(list(self._times.items())):
            for kind, histogram in (
                ("first_byte", times.first_byte),
                ("whole", times.whole),
                ("input", times.input_tokens),
                ("output", times.output_tokens),
            ):
                sums[kind, provider, model, endpoint] = histogram.numbers()
            if not number % _AT_ONCE:
                yield
        for number, ((name, value), used) in enumerate(list(self._tagged.items())):
            sums["tagged", name, value] = used.numbers()
            if not number % _AT_ONCE:
                yield
        for (provider, model, reason), count in self._failures.items():
            sums["failures", provider, model, reason] = (count,)
        sums["overhead",] = self.overhead.numbers()
        sums["lag",] = self.lag.numbers()
        sums["further",] = (
            self.retries, self.fallbacks, self.hedges, self.redials, self.budget_refusals,
        )  # fmt: skip
        sums["shed",] = (self.shed,)
        sums["dropped",] = (self.dropped_headers, self.dropped_parameters)
        return sums
