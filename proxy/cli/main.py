"""The ``tokenhub`` command.

Exit codes: 0 done, 1 failed (the reason is one line on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from proxy import __version__
from proxy.cli.bench import add_bench
from proxy.cli.groups import add_group_commands
from proxy.cli.keys import add_key_commands
from proxy.cli.parser import (
    STRATEGIES,
    Actions,
    Command,
    CommandError,
    Commands,
    Parser,
    add_json,
    config_path,
    load,
    load_file,
    number,
    seconds,
    whole,
)
from proxy.cli.tables import clean
from proxy.cli.usage import add_usage_command

MAX_WORKERS = 1024  # as in the file
INTERRUPTED = 130  # as shells report a process that SIGINT ended


def _serve(args: argparse.Namespace) -> int:
    from proxy.config.settings import Listen
    from proxy.config.values import listen as read_listen
    from proxy.control.routes_file import RoutesFile
    from proxy.control.telemetry.logs import set_up_logging
    from proxy.errors import StartError
    from proxy.server.run import serve

    set_up_logging()
    given: dict[str, object] = {}
    if args.listen:
        try:
            given["listen"] = tuple(Listen(*read_listen(address)) for address in args.listen)
        except ValueError as error:
            args.parser.error(f"--listen: {error}")
    if args.workers is not None:
        given["workers"] = args.workers
    file = RoutesFile(config_path(args.config), given)
    config = load_file(file)
    try:
        return serve(config, file)
    except StartError as error:
        raise CommandError(str(error)) from None


def _check(args: argparse.Namespace) -> int:
    from proxy.cli.local import check

    return check(config_path(args.file or args.config), as_json=args.json)


def _models(args: argparse.Namespace) -> int:
    from proxy.cli.local import show_models

    return show_models(config_path(args.config), as_json=args.json)


def _chat(args: argparse.Namespace) -> int:
    import asyncio

    from proxy.cli.chat import chat
    from proxy.cli.data_client import target_of

    config = load(args.config) if args.url is None else None
    target = target_of(args.url, config)
    prompt = args.prompt
    if prompt == "-":
        try:
            prompt = sys.stdin.read()
        except UnicodeDecodeError:
            raise CommandError("the prompt on standard input is not UTF-8") from None
    return asyncio.run(
        chat(
            args.model,
            prompt,
            target=target,
            config=config,
            key=os.environ.get("TOKENHUB_API_KEY", ""),
            strategy=args.strategy,
            system=args.system,
            wait_s=args.wait,
            as_json=args.json,
        )
    )


def _routes(args: argparse.Namespace) -> int:
    from proxy.cli import routes
    from proxy.cli.admin_client import admin_of

    return routes.show_routes(admin_of(args), is_watched=args.watch, as_json=args.json)


def _explain(args: argparse.Namespace) -> int:
    from proxy.cli import routes
    from proxy.cli.admin_client import admin_of

    return routes.show_explanation(
        admin_of(args),
        args.model,
        body=args.body,
        strategy=args.strategy,
        endpoint=args.endpoint,
        stream=args.stream,
        headers=args.header if args.header or args.headers else None,
        query=args.query,
        as_json=args.json,
    )


def _aliases(args: argparse.Namespace) -> int:
    from proxy.cli import routes
    from proxy.cli.admin_client import admin_of

    admin = admin_of(args)
    if args.action == "list":
        return routes.list_aliases(admin, as_json=args.json)
    if args.action == "remove":
        return routes.remove_alias(admin, args.name, as_json=args.json)
    return routes.set_alias(
        admin, args.name, args.models, strategy=args.strategy, split=args.split, as_json=args.json
    )


def _simulate(args: argparse.Namespace) -> int:
    from proxy.simulator.server import main_simulate

    return main_simulate(args.host, args.port, args.seed, args.speed)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tokenhub",
        description="A self-hosted gateway for LLM APIs that streams bodies straight through.",
        epilog="'tokenhub COMMAND --help' has examples of each.",
    )
    parser.add_argument("--version", action="version", version=f"tokenhub {__version__}")
    commands = Commands(parser)
    _add_local(commands)
    _add_asking(commands)
    return parser


def _add_local(commands: Commands) -> None:
    serve = commands.add(
        "serve", _serve, "Run the gateway.", "serve --config routes.toml --listen 127.0.0.1:8080"
    )
    serve.add_argument(
        "--listen",
        metavar="A",
        action="append",
        help="host:port or unix:/path, in place of the file's; repeatable",
    )
    serve.add_argument(
        "--workers",
        metavar="N",
        type=whole(0, MAX_WORKERS),
        help="processes that serve; 0: one per core that may be used",
    )
    check = commands.add(
        "check",
        _check,
        "Check a configuration file and name every mistake.",
        "check routes.toml",
        "check --json",
    )
    check.add_argument("file", metavar="FILE", nargs="?", help="default: as --config")
    add_json(check)
    models = commands.add("models", _models, "List the configured models.", "models", "models --json")
    add_json(models)
    simulate = commands.add(
        "simulate", _simulate, "Run the provider simulator alone.", "simulate --port 9000 --speed 0"
    )
    simulate.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    simulate.add_argument("--port", type=whole(0, 65535), default=9000, help="default: 9000; 0: any free one")
    simulate.add_argument("--seed", type=int, default=0, help="same seed, same answers")
    simulate.add_argument(
        "--speed", type=number(0, 1e6), default=1.0, help="factor on all times; 0: no delays at all"
    )


def _add_asking(commands: Commands) -> None:
    """Add the commands that call a running gateway."""
    talk = commands.add(
        "chat",
        _chat,
        "Stream one answer through a running gateway.",
        'chat balanced "Why is the sky blue?"',
        "chat gpt-4o-mini - --system 'Summarize this.' --strategy cost <README.md",
    )
    talk.add_argument("model", metavar="MODEL", help="an id (openai/gpt-4o), a short name, an alias, or auto")
    talk.add_argument("prompt", metavar="PROMPT", help="- for standard input")
    talk.add_argument(
        "--url", help="the gateway, such as http://127.0.0.1:8080; default: the file's first listener"
    )
    talk.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    talk.add_argument("--strategy", metavar="S", help=STRATEGIES)
    talk.add_argument(
        "--wait", metavar="S", type=seconds, default=0.0, help="how long to wait for a starting gateway: 20s"
    )
    add_json(talk)
    add_bench(commands)
    routes = commands.add_admin(
        "routes",
        _routes,
        "Show the live state of each model.",
        "routes --watch",
        "routes --json",
    )
    routes.add_argument("--watch", action="store_true", help="refresh every two seconds, until Ctrl-C")
    add_json(routes)
    explain = commands.add_admin(
        "explain",
        _explain,
        "Show where a request would go, and why. Sends nothing.",
        "explain balanced",
        "explain auto --strategy cost --body request.json",
        "explain balanced --headers",
        "explain balanced -H 'X-Team: search' -H @headers.txt --query beta=true",
    )
    explain.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="an id, a short name, an alias, or auto; default: the body's model",
    )
    explain.add_argument("--body", metavar="F", help="the request's body, - for standard input")
    explain.add_argument("--strategy", metavar="S", help=STRATEGIES)
    explain.add_argument("--endpoint", metavar="E", help="chat (the default), completions, embeddings, …")
    explain.add_argument("--stream", action="store_true", help="as if the request asked for a stream")
    explain.add_argument(
        "--headers", action="store_true", help="which headers reach the providers, and why others don't"
    )
    explain.add_argument(
        "-H",
        "--header",
        metavar="LINE",
        action="append",
        default=[],
        help="the same for these headers: 'Name: value', or @F for a file of them; repeatable",
    )
    explain.add_argument("--query", metavar="Q", help="the same for this query: 'beta=true&user=1'")
    add_json(explain)
    _add_aliases(commands)
    add_key_commands(commands)
    add_group_commands(commands)
    add_usage_command(commands)


def _add_aliases(commands: Commands) -> None:
    aliases = commands.add_admin(
        "aliases",
        _aliases,
        "List, set or remove the aliases of a running gateway, and of its file.",
        "aliases set fast gpt-4o-mini gemini-flash --strategy latency",
    )
    actions = Actions(aliases)
    found = actions.add("list", "list them", "List the aliases.", "")
    change = actions.add(
        "set",
        "make or change one",
        "Make an alias, or change the given settings of an existing one.",
        "fast gpt-4o-mini gemini-flash --strategy latency",
        "test --split openai/gpt-4o=90 anthropic/claude-3-5-sonnet=10",
    )
    change.add_argument("name", metavar="NAME")
    change.add_argument("models", metavar="MODEL", nargs="*", help="ids, short names or other aliases")
    change.add_argument("--strategy", metavar="S", help=f'{STRATEGIES}; "" for the configured default')
    change.add_argument(
        "--split",
        metavar="MODEL=N",
        nargs="+",
        default=[],
        help="an A/B test by shares: a/x=90 b/y=10",
    )
    remove = actions.add("remove", "remove one", "Remove an alias.", "fast")
    remove.add_argument("name", metavar="NAME")
    for action in (found, change, remove):
        add_json(action)


def _fill_standard_streams() -> None:
    """Open closed standard streams (``2>&-``) on /dev/null. Else the next file or socket would get one of
    their numbers, and output and log lines would be written into it."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _fill_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without arrows gets a question mark
    parser = _parser()
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(given)
    command: Command = args.run
    try:
        code = command(args)
        sys.stdout.flush()
    except CommandError as error:
        text = "\n".join(map(clean, str(error).split("\n")))  # mistakes of a file are a line each
        print(f"tokenhub: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # "models | head": the rest has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
