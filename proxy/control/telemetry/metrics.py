"""The text of ``/metrics`` in Prometheus' format (version 0.0.4): one exposition for all workers.

Names and labels follow the OpenTelemetry conventions for generative AI where one fits. Labels come from the
configuration alone (providers, models, keys, endpoints) and from a bounded list of statuses; what clients and
providers write is not used, but for the values of tags that ``metric_tags`` lists, which are bounded, too
(:class:`proxy.usage.tags.SeenValues`). A key has two: its name for people, and its id, since keys from before
names had to be unique may share one, and what different keys used or may use is no sum that means anything.

The format is written here, and not by Prometheus' own library, so that it comes in pieces of some hundred
lines (:func:`exposition`): with one worker no stream goes on while a piece is made, and the sender lets
the event loop go on in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, Final, NamedTuple

from proxy.endpoints import OPERATIONS
from proxy.routing.catalog import Catalog
from proxy.usage.counters import (
    DURATION_S,
    LAG_US,
    OVERHEAD_US,
    TOKENS,
    USED,
    Counted,
    Sums,
    add_up,
    is_error,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_DURATION_LE: Final = [f"{bound:g}" for bound in DURATION_S]
_OVERHEAD_LE: Final = [f"{bound / 1e6:g}" for bound in OVERHEAD_US]
_LAG_LE: Final = [f"{bound / 1e6:g}" for bound in LAG_US]
_TOKENS_LE: Final = [str(bound) for bound in TOKENS]
_TOKEN_TYPES: Final = [(kind, USED.index(kind)) for kind in ("input", "cached", "output", "reasoning")]
_NUSD: Final = USED.index("nusd")
# Labels.
_WHO: Final = ("provider", "model")
_KEY: Final = ("key", "key_id")
_BY_KEY: Final = (*_WHO, *_KEY)
_TAG: Final = ("tag", "value")
_GEN_AI: Final = ("gen_ai_provider_name", "gen_ai_request_model", "gen_ai_operation_name")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_LINES_AT_ONCE: Final = 300
_ROWS_AT_ONCE: Final = 100  # which an empty piece stands for

Rows = Iterable[tuple[Sequence[str], float]]  # values of the labels, and the number


class MetricInputs(NamedTuple):
    """All that the exposition is made of.

    :param counted: of all workers, those that have ended included.
    :param keys: rows of ``/admin/v1/keys``.
    :param workers: processes that serve. :param ready: as /readyz.
    :param build: labels of the build. :param started_s: Unix seconds. :param now: monotonic seconds.
    """

    counted: Counted
    catalog: Catalog
    keys: Sequence[Mapping[str, Any]]
    workers: int
    ready: bool
    build: Mapping[str, str]
    started_s: float
    now: float


def exposition(facts: MetricInputs) -> Iterator[str]:
    """The text, in pieces."""
    yield from _usage(facts)
    yield from _tags(facts.counted.totals)
    yield from _histograms(facts.counted.totals)
    yield from _deployments(facts.catalog, facts.now)
    yield from _attempts(facts.counted.totals)
    yield from _keys(facts.keys)
    yield from _process(facts)


# ---------------------------------------------------------------------- the format


def _family(name: str, kind: str, text: str, names: Sequence[str], rows: Rows) -> Iterator[str]:
    """A family of counters or gauges; ``names``: of its labels."""
    line = f"{name}{_braces(names)} %s\n"
    return _pieces(name, kind, text, (line % (*map(_escaped, labels), number) for labels, number in rows))


def _histogram(
    name: str, text: str, names: Sequence[str], bounds: Sequence[str], unit: float,
    rows: Iterable[tuple[Sequence[str], Sequence[int]]],
) -> Iterator[str]:  # fmt: skip
    """A family of histograms.

    :param bounds: as text. :param unit: what a sum is counted in.
    :param rows: numbers are as :meth:`proxy.usage.counters.Histogram.numbers` has them.
    """

    def lines() -> Iterator[str]:
        for labels, numbers in rows:
            around = _braces(names) % tuple(map(_escaped, labels))
            begin = f'{name}_bucket{{{around[1:-1]}{"," if around else ""}le="'
            counts = list(accumulate(numbers[:-1]))
            for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
                yield f'{begin}{bound}"}} {count}\n'
            yield f"{name}_sum{around} {round(numbers[-1] * unit, 9)}\n"
            yield f"{name}_count{around} {counts[-1]}\n"

    return _pieces(name, "histogram", text, lines())


def _pieces(name: str, kind: str, text: str, lines: Iterator[str]) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    while piece := "".join(islice(lines, _LINES_AT_ONCE)):
        yield piece


def _braces(names: Sequence[str]) -> str:
    """``{a="%s",b="%s"}``, or nothing."""
    pairs = [f'{name}="%s"' for name in names]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES) if "\\" in value or '"' in value or "\n" in value else value


# ---------------------------------------------------------------------- the families


def _usage(facts: MetricInputs) -> Iterator[str]:
    names = {row["id"]: row["name"] for row in facts.keys}
    by_status: Sums = {}
    by_key: Sums = {}
    for at, (told, numbers) in enumerate(facts.counted.totals.items()):
        if not at % _ROWS_AT_ONCE:
            yield ""
        if told[0] == "used":
            provider, model, id, status = told[1:]
            key = names.get(id, id)
            by_status[provider, model, key, id, status] = numbers
            if provider:  # else nobody was asked
                _add(by_key, (provider, model, key, id), numbers)
    used = by_key.items()
    names_of = (*_BY_KEY, "status")
    requests = ((labels, numbers[0]) for labels, numbers in by_status.items())
    yield from _family("tokenhub_requests_total", "counter", "Finished requests.", names_of, requests)
    text = "Of them, those with a status of 400 or more; 499: the client left before an answer."
    errors = ((labels, numbers[0]) for labels, numbers in by_status.items() if is_error(labels[4]))
    yield from _family("tokenhub_errors_total", "counter", text, names_of, errors)
    text = "Tokens used. Cached ones are part of the input, reasoning of the output."
    tokens = (((*labels, kind), numbers[at]) for labels, numbers in used for kind, at in _TOKEN_TYPES)
    yield from _family("tokenhub_tokens_total", "counter", text, (*_BY_KEY, "type"), tokens)
    text = "USD that requests cost."
    usd = ((labels, numbers[_NUSD] / 1e9) for labels, numbers in used)
    yield from _family("tokenhub_cost_usd_total", "counter", text, _BY_KEY, usd)


def _tags(totals: Sums) -> Iterator[str]:
    found: Sums = {}
    for at, (told, numbers) in enumerate(totals.items()):
        if not at % _ROWS_AT_ONCE:
            yield ""
        if told[0] == "tagged":
            found[told[1:]] = numbers
    rows = found.items()
    requests = ((labels, numbers[0]) for labels, numbers in rows)
    yield from _family("tokenhub_tag_requests_total", "counter", "Finished requests by tag.", _TAG, requests)
    tokens = (((*labels, kind), numbers[at]) for labels, numbers in rows for kind, at in _TOKEN_TYPES)
    yield from _family("tokenhub_tag_tokens_total", "counter", "Tokens by tag.", (*_TAG, "type"), tokens)
    usd = ((labels, numbers[_NUSD] / 1e9) for labels, numbers in rows)
    yield from _family("tokenhub_tag_cost_usd_total", "counter", "USD by tag.", _TAG, usd)


def _add(into: Sums, labels: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    if labels in into:  # several statuses of a key, two endpoints of one operation
        add_up(into, {labels: numbers})
    else:
        into[labels] = numbers


def _histograms(totals: Sums) -> Iterator[str]:
    found: dict[str, Sums] = {}
    for at, (told, numbers) in enumerate(totals.items()):
        if not at % _ROWS_AT_ONCE:
            yield ""
        if told[0] in ("first_byte", "whole", "input", "output"):
            kind, provider, model, endpoint = told
            labels = provider, model, OPERATIONS[endpoint]
            _add(found.setdefault(kind, {}), labels, numbers)
    tokens = (
        ((*labels, kind), numbers)
        for kind in ("input", "output")
        for labels, numbers in found.get(kind, {}).items()
    )
    names = (*_GEN_AI, "gen_ai_token_type")
    yield from _histogram("gen_ai_client_token_usage", "Tokens of a request.", names, _TOKENS_LE, 1, tokens)
    for kind, name, text in (
        (
            "first_byte",
            "time_to_first_token",
            "Seconds to the first output of a response that is not an error, with failed attempts before.",
        ),
        (
            "whole",
            "request_duration",
            "Seconds to the end of an answer that is not an error, cut ones included.",
        ),
    ):
        rows = found.get(kind, {}).items()
        yield from _histogram(f"gen_ai_server_{name}", text, _GEN_AI, _DURATION_LE, 1e-5, rows)
    for kind, bounds, name, text in (
        (
            "overhead",
            _OVERHEAD_LE,
            "overhead",
            "Seconds that the gateway itself added before sending a request.",
        ),
        ("lag", _LAG_LE, "event_loop_lag", "Seconds by which an event loop came late to its tick of 100 ms."),
    ):
        alone = [((), totals[kind,])] if (kind,) in totals else []
        yield from _histogram(f"tokenhub_{name}_seconds", text, (), bounds, 1e-6, alone)


_ROW: Final = (
    ("ttft_seconds", "first_byte_s", "Usual seconds to the first output, as seen lately."),
    (
        "seconds_per_output_token",
        "output_s_per_token",
        "Seconds per output token of streams, as seen lately.",
    ),
    ("success_ratio", "success", "The share of requests that succeeded lately."),
    ("cost_usd", "usd_per_request", "USD per request, as charged lately."),
)


def _deployments(catalog: Catalog, now: float) -> Iterator[str]:
    gauges: dict[str, list[tuple[Sequence[str], float]]] = {name: [] for name in _DEPLOYMENT}
    live: list[tuple[Sequence[str], dict[str, Any]]] = []
    refused: dict[str, bool] = {}
    for at, deployment in enumerate(catalog.deployments.values()):
        if not at % _ROWS_AT_ONCE:
            yield ""
        provider = deployment.provider.name
        who = provider, deployment.id
        in_flight = awaiting = 0
        for (endpoint, streamed), row in sorted(deployment.rows().items()):
            told = row.snapshot(now)
            in_flight, awaiting = in_flight + told["in_flight"], awaiting + told["awaiting"]
            if told["age_s"] is not None:
                pace = told["output_tokens_per_s"]
                told["output_s_per_token"] = 1.0 / pace if pace else None
                live.append(((*who, endpoint, str(streamed).lower()), told))
        gauges["requests_in_flight"].append((who, in_flight))
        gauges["requests_awaiting"].append((who, awaiting))
        gauges["ejections_total"].append((who, deployment.breaker.ejected_count))
        gauges["ejected"].append((who, int(deployment.breaker.ejections > 0)))
        gauges["deployment_usable"].append((who, int(deployment.is_free(now))))
        refused[provider] = deployment.key.failures > 0 or deployment.key.ejections > 0
    for name, (kind, text) in _DEPLOYMENT.items():
        yield from _family(f"tokenhub_{name}", kind, text, _WHO, gauges[name])
    for name, field, text in _ROW:
        rows = [(labels, told[field]) for labels, told in live if told[field] is not None]
        yield from _family(f"tokenhub_route_{name}", "gauge", text, (*_WHO, "endpoint", "stream"), rows)
    text = "1 while a provider refuses the gateway's key."
    keys = [((provider,), int(is_so)) for provider, is_so in refused.items()]
    yield from _family("tokenhub_provider_key_refused", "gauge", text, ("provider",), keys)


_DEPLOYMENT: Final = {
    "requests_in_flight": ("gauge", "Requests sent and not finished."),
    "requests_awaiting": ("gauge", "Of them, those that have shown no output yet."),
    "ejections_total": ("counter", "Times that a deployment was ejected."),
    "ejected": ("gauge", "1 while a deployment is ejected."),
    "deployment_usable": ("gauge", "0 while a deployment is ejected, cooling down, or has no key."),
}


def _attempts(totals: Sums) -> Iterator[str]:
    failures = sorted((labels[1:], n[0]) for labels, n in totals.items() if labels[0] == "failures")
    text = "Failed attempts; the reason is connect, timeout, reset, error or a status."
    yield from _family("tokenhub_attempt_failures_total", "counter", text, (*_WHO, "reason"), failures)
    for (name, text), count in zip(
        (
            ("retries", "Further attempts at another member of the same pool."),
            ("fallbacks", "Further attempts along X-Inferoute-Fallback, or fallback of an alias."),
            ("hedges", "Second members asked while the first was silent."),
            ("redials", "Kept connections that closed as they were used again, and were dialled anew."),
            ("retry_budget_refusals", "Further attempts that the retry budget did not allow."),
        ),
        totals.get(("further",), (0, 0, 0, 0, 0)),
        strict=True,
    ):
        yield from _family(f"tokenhub_{name}_total", "counter", text, (), [((), count)])
    text = "Requests answered 503 at once, as more came than could be served."
    yield from _family("tokenhub_shed_total", "counter", text, (), [((), totals.get(("shed",), (0,))[0])])
    text = "Headers and query parameters of clients that were not sent on to a provider."
    numbers = totals.get(("dropped",), (0, 0))
    rows = [((kind,), number) for kind, number in zip(("header", "parameter"), numbers, strict=True)]
    yield from _family("tokenhub_dropped_fields_total", "counter", text, ("kind",), rows)


def _keys(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    samples: dict[str, list[tuple[Sequence[str], float]]] = {what: [] for what in _MONTH}
    for row in rows:
        if row["revoked"] is not None:
            continue
        month, limits, who = row["month"], row["limits"], (row["name"], row["id"])
        told = month["usd"], month["tokens"], limits["monthly_usd"], limits["monthly_tokens"]
        for what, value in zip(_MONTH, told, strict=True):
            if value is not None:
                samples[what].append((who, value))
    for what, text in _MONTH.items():
        yield from _family(f"tokenhub_key_month_{what}", "gauge", text, _KEY, samples[what])


_MONTH: Final = {
    "usd": "USD a key has used in this month, UTC.",
    "tokens": "Tokens a key has used in this month, UTC.",
    "usd_limit": "USD a key may use in a month.",
    "tokens_limit": "Tokens a key may use in a month.",
}


def _process(facts: MetricInputs) -> Iterator[str]:
    levels = facts.counted.levels
    connections = [
        ((labels[1], state), count)
        for labels, numbers in sorted(levels.items())
        if labels[0] == "connections"
        for state, count in zip(("open", "idle"), numbers, strict=True)
    ]
    text = "Connections to a provider: all that are open, and those of them that are idle."
    names = ("provider", "state")
    yield from _family("tokenhub_provider_connections", "gauge", text, names, connections)
    for name, text, value in (
        ("client_connections", "Open connections of clients.", levels.get(("clients",), (0,))[0]),
        (
            "ledger_unwritten_lines",
            "Ledger lines that wait for the disk.",
            levels.get(("unwritten",), (0,))[0],
        ),
        ("workers", "Processes that serve.", facts.workers),
        ("ready", "1 while requests can be served.", int(facts.ready)),
        ("start_time_seconds", "When the gateway was started, in Unix seconds.", facts.started_s),
    ):
        yield from _family(f"tokenhub_{name}", "gauge", text, (), [((), value)])
    build = [(tuple(facts.build.values()), 1)]
    yield from _family("tokenhub_build_info", "gauge", "The version that runs.", tuple(facts.build), build)
