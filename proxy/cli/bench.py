"""``tokenhub bench``: its options, and the load they plan."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from proxy.cli.parser import STRATEGIES, CommandError, Commands, add_json, load, number, seconds, whole

if TYPE_CHECKING:
    from proxy.cli.bench_load import Plan
    from proxy.cli.data_client import Target

USUAL_REQUESTS = 100  # of a real provider's they cost cents
USUAL_CONCURRENCY = 10
USUAL_OPEN = 1000  # at a rate, where each should find a connection

_PATHS = {"chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}
_PROMPT = "Answer with the one word: yes. The rest is only there to be read. "
_ABOUT = """Providers charge for each request, unless the gateway simulates them. The client is
one process and takes about 0.1 ms of a core for each: it shows what a service
sees. For the most that a gateway can do, use benchmarks/ in the repository.
Exit codes: 1 if a request failed, 130 if it was ended early."""


# ---------------------------------------------------------------------- options


def add_bench(commands: Commands) -> None:
    """Add the command."""
    bench = commands.add(
        "bench",
        _bench,
        "Put load on a running gateway, and show how long it takes.",
        "bench balanced --requests 200 --concurrency 20 --stream",
        "bench openai/gpt-4o-mini --rate 50 --duration 30s --json",
        "bench text-embedding-3-small --endpoint embeddings",
    )
    bench.epilog = f"{bench.epilog}\n\n{_ABOUT}"
    bench.add_argument(
        "model", metavar="MODEL", nargs="?", help="as in chat; default: that of --body, else auto"
    )
    bench.add_argument(
        "--url", help="the gateway, such as http://127.0.0.1:8080; default: the file's first listener"
    )
    much = bench.add_mutually_exclusive_group()
    much.add_argument(
        "--requests",
        metavar="N",
        type=whole(1, 1_000_000_000),
        help=f"the number of requests; default: {USUAL_REQUESTS}",
    )
    much.add_argument("--duration", metavar="S", type=_positive_seconds, help="how long it runs: 30s, 2m")
    bench.add_argument(
        "--concurrency",
        metavar="N",
        type=whole(1, 10_000),
        help=f"requests at a time; default: {USUAL_CONCURRENCY}; with --rate at most, {USUAL_OPEN}",
    )
    bench.add_argument(
        "--rate",
        metavar="R",
        type=number(0.001, 1_000_000),
        help="requests a second, answered or not; latency counts from when each was due",
    )
    bench.add_argument(
        "--stream", action="store_true", help="ask for streams, and time their first text and gaps"
    )
    bench.add_argument("--endpoint", choices=list(_PATHS), default="chat", help="default: chat")
    body = bench.add_mutually_exclusive_group()
    body.add_argument(
        "--prompt-bytes",
        metavar="N",
        type=whole(1, 64 << 20),
        default=len(_PROMPT),
        help=f"length of the prompt; default: {len(_PROMPT)}",
    )
    body.add_argument("--body", metavar="F", help="the request's body, - for standard input")
    bench.add_argument("--strategy", metavar="S", help=STRATEGIES)
    bench.add_argument(
        "--timeout", metavar="S", type=_positive_seconds, default=120.0, help="for one request; default: 2m"
    )
    add_json(bench)


def _positive_seconds(text: str) -> float:
    if (span := seconds(text)) > 0:
        return span
    raise argparse.ArgumentTypeError("must be longer than nothing")


def _bench(args: argparse.Namespace) -> int:
    import uvloop

    from proxy.cli.bench_report import run
    from proxy.cli.data_client import target_of

    if args.stream and args.endpoint != "chat":
        args.parser.error(f"--stream: there are no streams of {args.endpoint}")
    config = load(args.config) if args.url is None else None
    return uvloop.run(run(_plan(args, target_of(args.url, config)), config, args.strategy, as_json=args.json))


def _plan(args: argparse.Namespace, target: Target) -> Plan:
    from proxy.cli.bench_load import Plan

    concurrency = args.concurrency
    if concurrency is None:
        concurrency = USUAL_CONCURRENCY if args.rate is None else USUAL_OPEN
    requests = args.requests
    if requests is None and args.duration is None:
        requests = USUAL_REQUESTS
    body = _body(args)
    return Plan(
        target=target,
        model=body["model"],
        path=_PATHS[args.endpoint],
        endpoint=args.endpoint,
        body=json.dumps(body).encode(),
        is_stream=args.stream,
        concurrency=concurrency,
        rate=args.rate,
        requests=requests,
        duration_s=args.duration,
        timeout_s=args.timeout,
    )


def _body(args: argparse.Namespace) -> dict[str, Any]:
    """Make the request's body. :raises CommandError: its file can't be read."""
    from proxy.cli.routes import read_body

    if args.body is not None:
        body = read_body(args.body)
    else:
        text = (_PROMPT * (args.prompt_bytes // len(_PROMPT) + 1))[: args.prompt_bytes]
        chat = {"messages": [{"role": "user", "content": text}]}
        body = chat if args.endpoint == "chat" else {"input": text}
    body["model"] = args.model or body.get("model") or "auto"
    if body["model"] == "auto" and args.endpoint != "chat":
        raise CommandError(f"{args.endpoint} need a model: name one, such as 'text-embedding-3-small'")
    if args.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body
