"""The ``tokenhub`` command.

Exit codes: 0 done, 1 failed (the reason is one line on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from proxy import __version__
from proxy.commands import (
    Actions,
    Command,
    CommandError,
    Commands,
    admin_of,
    config_path,
    load,
    load_file,
)
from proxy.config import ConfigError, Listen, parse, without_effect
from proxy.console import (
    ConsoleError,
    list_aliases,
    remove_alias,
    set_alias,
    show_explanation,
    show_routes,
    table,
)
from proxy.keycommands import add_key_commands
from proxy.routesfile import RoutesFile, Unreadable
from proxy.values import listen as read_listen

MAX_WORKERS = 1024  # as in the file


def _serve(args: argparse.Namespace) -> int:
    from proxy.listeners import StartError
    from proxy.logs import set_up_logging
    from proxy.run import serve

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
    path = config_path(args.file or args.config)
    try:
        text = RoutesFile(path).read().text
    except Unreadable as error:
        raise CommandError(str(error)) from None
    try:
        config = parse(text, str(path))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for note in without_effect(text, str(path)):
        print(f"{path}:{note.line}:{note.column}: note: {note.message}")
    print(
        f"{path}: ok ({len(config.providers)} providers, {len(config.models)} models, "
        f"{len(config.aliases)} aliases)"
    )
    return 0


def _models(args: argparse.Namespace) -> int:
    config = load(args.config)
    rows = [("MODEL", "CONTEXT", "INPUT $/M", "OUTPUT $/M", "CAPABILITIES", "ALIASES")]
    for model in config.models.values():
        short = model.id.removeprefix(model.provider + "/")
        aliases = [name for name, alias in config.aliases.items() if {model.id, short} & {*alias.models}]
        rows.append(
            (
                model.id,
                f"{model.context_window:,}" if model.context_window else "-",
                _price(model.input_price_usd_per_mtok),
                _price(model.output_price_usd_per_mtok),
                ",".join(sorted(model.capabilities)),
                ",".join(aliases),
            )
        )
    print(table(rows, right=(1, 2, 3)))
    return 0


def _price(usd: float | None) -> str:
    return "-" if usd is None else f"{usd:.2f}" if round(usd, 2) == usd else f"{usd:g}"


def _chat(args: argparse.Namespace) -> int:
    import asyncio

    from proxy.chat import ChatError, chat

    listen = load(args.config).server.listen[0] if args.url is None else None
    key = os.environ.get("TOKENHUB_API_KEY", "")
    try:
        return asyncio.run(
            chat(
                args.model,
                args.prompt,
                url=args.url,
                listen=listen,
                key=key,
                strategy=args.strategy,
                wait_s=args.wait,
            )
        )
    except ChatError as error:
        raise CommandError(str(error)) from None
    except KeyboardInterrupt:
        return 130


def _routes(args: argparse.Namespace) -> int:
    return show_routes(admin_of(args), watch=args.watch)


def _explain(args: argparse.Namespace) -> int:
    return show_explanation(
        admin_of(args),
        args.model,
        body=args.body,
        strategy=args.strategy,
        endpoint=args.endpoint,
        stream=args.stream,
    )


def _aliases(args: argparse.Namespace) -> int:
    admin = admin_of(args)
    if args.action == "list":
        return list_aliases(admin)
    if args.action == "remove":
        return remove_alias(admin, args.name)
    return set_alias(admin, args.name, args.models, strategy=args.strategy, split=args.split)


def _simulate(args: argparse.Namespace) -> int:
    from proxy.simulator import main_simulate

    return main_simulate(args.host, args.port, args.seed, args.speed)


def _workers(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_WORKERS}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tokenhub",
        description="A self-hosted gateway for LLM APIs that streams bodies straight through.",
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
        "--workers", metavar="N", type=_workers, help="processes that serve; 0: one per core that may be used"
    )
    check = commands.add(
        "check", _check, "Check a configuration file and name every mistake.", "check routes.toml"
    )
    check.add_argument("file", metavar="FILE", nargs="?", help="default: as --config")
    commands.add("models", _models, "List the configured models.", "models")
    simulate = commands.add(
        "simulate", _simulate, "Run the provider simulator alone.", "simulate --port 9000 --speed 0"
    )
    simulate.add_argument("--host", default="127.0.0.1")
    simulate.add_argument("--port", type=int, default=9000)
    simulate.add_argument("--seed", type=int, default=0, help="same seed, same answers")
    simulate.add_argument("--speed", type=float, default=1.0, help="factor on all times; 0: no delays at all")


def _add_asking(commands: Commands) -> None:
    """The commands that ask a running gateway."""
    strategies = "cost, latency, availability or round-robin"
    talk = commands.add(
        "chat",
        _chat,
        "Stream one answer through a running gateway.",
        'chat balanced "Why is the sky blue?"',
    )
    talk.add_argument("model", metavar="MODEL", help="an id (openai/gpt-4o), a short name, an alias, or auto")
    talk.add_argument("prompt", metavar="PROMPT")
    talk.add_argument(
        "--url", help="the gateway, such as http://127.0.0.1:8080; default: the file's first listener"
    )
    talk.add_argument("--strategy", metavar="S", help=strategies)
    talk.add_argument(
        "--wait", metavar="S", type=float, default=0.0, help="seconds to wait for a gateway that starts"
    )
    routes = commands.add_admin(
        "routes", _routes, "Show what a running gateway knows of each model.", "routes --watch"
    )
    routes.add_argument("--watch", action="store_true", help="again every two seconds, until Ctrl-C")
    explain = commands.add_admin(
        "explain",
        _explain,
        "Show where a request would go, and why. Sends nothing.",
        "explain balanced --strategy cost --body request.json",
    )
    explain.add_argument("model", metavar="MODEL", help="an id, a short name, an alias, or auto")
    explain.add_argument("--body", metavar="F", help="the request's body, - for standard input")
    explain.add_argument("--strategy", metavar="S", help=strategies)
    explain.add_argument("--endpoint", metavar="E", help="chat (the default), completions, embeddings, …")
    explain.add_argument("--stream", action="store_true", help="as if the request asked for a stream")
    _add_aliases(commands, strategies)
    add_key_commands(commands)


def _add_aliases(commands: Commands, strategies: str) -> None:
    aliases = commands.add_admin(
        "aliases",
        _aliases,
        "List, set or remove the aliases of a running gateway, and of its file.",
        "aliases set premium openai/gpt-4o anthropic/claude-3-5-sonnet --strategy latency",
    )
    actions = Actions(aliases)
    actions.add("list", "list them", "List the aliases.", "")
    change = actions.add(
        "set",
        "make one, or change what is given of one",
        "Make an alias, or change what is given of one that exists.",
        "premium openai/gpt-4o anthropic/claude-3-5-sonnet --strategy latency",
    )
    change.add_argument("name", metavar="NAME")
    change.add_argument("models", metavar="MODEL", nargs="*", help="ids, short names or other aliases")
    change.add_argument("--strategy", metavar="S", help=f'{strategies}; "" for the configured default')
    change.add_argument(
        "--split",
        metavar="MODEL=N",
        nargs="+",
        default=[],
        help="an A/B test by shares: a/x=90 b/y=10",
    )
    remove = actions.add("remove", "remove one", "Remove an alias.", "premium")
    remove.add_argument("name", metavar="NAME")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    command: Command = args.run
    try:
        code = command(args)
        sys.stdout.flush()
    except (CommandError, ConsoleError) as error:
        print(f"tokenhub: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # "models | head": what is left is for nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
