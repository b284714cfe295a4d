"""The tables of the report: which columns, for which scenarios, and how to read them."""

from __future__ import annotations

from comparison.cells import (
    Cell,
    added_of,
    beside_of,
    chunks_per_read,
    cpu_of,
    first_chunk_of,
    human_of,
    info,
    kept_up,
    of,
    pair_of,
    plain_counterpart,
    plain_of,
    rate_of,
    ratio_of,
    single,
)

STREAMS = (
    "(e) 100 chunks without delay, 64 at once. (f) 50 chunks 20 ms apart, 500 at once: 25,000 chunks/s "
    "offered. (g) the same, 50 at once: 2,500 chunks/s offered. TTFB: request sent to first content "
    "chunk. Transit: chunk written by the upstream to chunk read by the client. Gap: how much longer "
    "the gap between two chunks was at the client than at the upstream."
)
RATE = (
    "1 KB requests fall due at a fixed rate on 128 connections, whether or not earlier ones were "
    "answered; latency counts from when a request was due. Added: less the direct line's figure of the "
    "same round. A target that answered less than 98 % of the rate in time is named with what it did."
)
MANY = (
    "25 chunks 200 ms apart, 2,000 streams at once: 10,000 chunks/s offered once all are open. The gateway "
    "was started anew before; times count from when all are open, chunks/s over everything. KiB per "
    "stream: resident memory with all open, less that after the start, over 2,000. After: when all were "
    "closed and the target idle."
)
TLS = (
    "1 KB requests, 64 connections, to an nginx on the load's CPU that ends TLS in front of the mock; "
    "its certificate is verified. The direct line is the load generator to that nginx. The last column "
    "is the same gateway's (a), without TLS, and the ratio to it."
)
BESIDE = (
    "CPU over that of the target named, each run divided by the run of the same round, the median of that."
)
NGINX = (
    "Figures without a unit are over nginx's: each run divided by nginx's run of the same round, the "
    "median of that. Added: the figure less that of the direct line, in (b) measured just before, else of "
    "the same round."
)


REQ, CHUNK = "cpu_us_per_req", "cpu_us_per_chunk"

# title, text, scenarios of which a row needs one, columns
TABLES: list[tuple[str, str, tuple[str, ...], list[tuple[str, Cell]]]] = [
    ("Requests without streaming", "", ("a", "b", "c", "d"), [
        ("(a) 1 KB ×64: req/s", rate_of("a", "rps")),
        ("(a) p50 / p99", pair_of("a")),
        ("(a) CPU µs/req", cpu_of("a", REQ)),
        ("(b) ×1: added p50 / p99", single),
        ("(c) 100 KB ×32: req/s", rate_of("c", "rps")),
        ("(c) CPU µs/req", cpu_of("c", REQ)),
        ("(d) 2 MB ×8: req/s", rate_of("d", "rps")),
        ("(d) CPU µs/req", cpu_of("d", REQ)),
        ("(d) peak RSS MB", plain_of("d", "rss_peak_mb")),
    ]),
    ("Requests at a fixed rate", RATE, ("r500", "r2000"), [
        (f"({s}) {head}", cell)
        for s, title in (("r500", "500/s"), ("r2000", "2,000/s"))
        for head, cell in (
            (f"{title}: p50 / p99", pair_of(s)),
            ("added p50 / p99", added_of(s, "p50_us", "p99_us")),
            ("CPU µs/req", cpu_of(s, REQ)),
            ("kept up", kept_up(s)),
        )
    ]),
    ("Streams", STREAMS, ("e", "f", "g"), [
        ("(e) chunks/s", rate_of("e", "chunks_per_s")),
        ("(e) streams/s", of("e", lambda run: f"{run['streams_per_s']:,.0f}")),
        ("(e) CPU µs/chunk", cpu_of("e", CHUNK)),
        ("(e) chunks per read", chunks_per_read),
        ("(f) chunks/s", rate_of("f", "chunks_per_s")),
        ("(f) CPU µs/chunk", cpu_of("f", CHUNK)),
        ("(f) TTFB p50 / p99", first_chunk_of("f")),
        ("(f) transit p50 / p99", pair_of("f", "transit_")),
        ("(f) gap p99", human_of("f", "gap_excess_p99_us")),
        ("(f) CPU", plain_of("f", "proxy_cpu_pct", "{:.0f}%")),
        ("(f) peak RSS MB", plain_of("f", "rss_peak_mb")),
        ("(g) TTFB p50 / p99", first_chunk_of("g")),
        ("(g) gap p99", human_of("g", "gap_excess_p99_us")),
        ("(g) CPU", plain_of("g", "proxy_cpu_pct", "{:.0f}%")),
    ]),
    ("2,000 open streams", MANY, ("s2000",), [
        ("chunks/s", rate_of("s2000", "chunks_per_s")),
        ("TTFB p50 / p99", first_chunk_of("s2000")),
        ("added TTFB p50 / p99", added_of("s2000", "ttfb_p50_us", "ttfb_p99_us")),
        ("gap p99", human_of("s2000", "gap_excess_p99_us")),
        ("CPU µs/chunk", cpu_of("s2000", CHUNK)),
        ("RSS MB after start", plain_of("s2000", "rss_start_mb")),
        ("RSS MB, all open", plain_of("s2000", "rss_open_mb")),
        ("KiB per stream", plain_of("s2000", "kib_per_stream", "{:.1f}")),
        ("RSS MB after", plain_of("s2000", "rss_mb")),
    ]),
    ("TLS to the upstream", TLS, ("tls",), [
        ("req/s", rate_of("tls", "rps")),
        ("p50 / p99", pair_of("tls")),
        ("CPU µs/req", cpu_of("tls", REQ)),
        ("over nginx-tls", ratio_of("tls", REQ, "nginx-tls")),
        ("CPU µs/req without TLS", plain_counterpart),
    ]),
]  # fmt: skip
BESIDE_NGINX: list[tuple[str, Cell]] = [
    ("(a) 1 KB: CPU/req", ratio_of("a", REQ)),
    ("(c) 100 KB: CPU/req", ratio_of("c", REQ)),
    ("(d) 2 MB: CPU/req", ratio_of("d", REQ)),
    ("(e) CPU/chunk", ratio_of("e", CHUNK)),
    ("(f) CPU/chunk", ratio_of("f", CHUNK)),
    ("(s2000) CPU/chunk", ratio_of("s2000", CHUNK)),
    ("(b) added p50 / p99", single),
    ("(g) added TTFB p50", added_of("g", "ttfb_p50_us")),
    ("(f) added TTFB p99", added_of("f", "ttfb_p99_us")),
    ("(f) TTFB p99 over nginx", ratio_of("f", "ttfb_p99_us")),
    ("(f) added gap p99", added_of("f", "gap_excess_p99_us")),
    ("(f) gap p99 over nginx", ratio_of("f", "gap_excess_p99_us")),
]
BESIDE_ANOTHER: list[tuple[str, Cell]] = [
    ("beside", info("beside")),
    ("(a) CPU/req", beside_of("a", REQ)),
    ("(c) CPU/req", beside_of("c", REQ)),
    ("(e) CPU/chunk", beside_of("e", CHUNK)),
    ("(f) CPU/chunk", beside_of("f", CHUNK)),
    ("(a) CPU µs/req", cpu_of("a", REQ)),
    ("RSS idle MB", info("rss_idle_mb")),
]
START: list[tuple[str, Cell]] = [
    ("version", info("version")),
    ("start to first 200, s", info("startup_s", "{:.2f}")),
    ("CPU for it, s", info("startup_cpu_s", "{:.2f}")),
    ("processes", info("processes")),
    ("threads", info("threads")),
    ("RSS idle MB", info("rss_idle_mb")),
    ("RSS at end MB", info("rss_end_mb")),
    ("new upstream connections in (a)", info("upstream_conns")),
    ("set up", info("note")),
]
