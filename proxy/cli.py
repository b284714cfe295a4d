"""The ``tokenhub`` command.

Exit codes: 0 done, 1 failed (the reason is one line on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from proxy import __version__
from proxy.config import Config, ConfigError, Listen, parse, without_effect
from proxy.values import listen as read_listen

MAX_WORKERS = 1024  # as in the file
Command = Callable[[argparse.Namespace], int]


class CommandError(Exception):
    """The command failed; the text is the one line that says why and what to do."""


def config_path(given: str | None) -> Path:
    """The configuration file: ``--config``, else ./routes.toml, else $TOKENHUB_CONFIG.

    :raises CommandError: there is none.
    """
    if given:
        return Path(given)
    here = Path("routes.toml")
    if here.exists():
        return here
    from_environment = os.environ.get("TOKENHUB_CONFIG")
    if from_environment:
        return Path(from_environment)
    raise CommandError(
        "there is no routes.toml here: name one with --config F or $TOKENHUB_CONFIG, "
        "or start from the one in TokenHub's repository"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandError(f"can't read {path}: {reason}") from None


def load(given: str | None) -> Config:
    """Read and check the configuration.

    :raises CommandError: it can't be read, or holds mistakes (all of them are in the text).
    """
    path = config_path(given)
    try:
        return parse(_read(path), str(path))
    except ConfigError as error:
        raise CommandError(str(error)) from None


def _serve(args: argparse.Namespace) -> int:
    from proxy.server import StartError, serve

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    config = load(args.config)
    changes: dict[str, object] = {}
    if args.listen:
        try:
            changes["listen"] = tuple(Listen(*read_listen(address)) for address in args.listen)
        except ValueError as error:
            args.parser.error(f"--listen: {error}")
    if args.workers is not None:
        changes["workers"] = args.workers
    config = replace(config, server=replace(config.server, **changes))  # type: ignore[arg-type]
    if config.server.workers != 1:
        logging.getLogger("tokenhub").warning("this version runs one worker; workers has no effect yet")
    try:
        return serve(config)
    except StartError as error:
        raise CommandError(str(error)) from None


def _check(args: argparse.Namespace) -> int:
    path = config_path(args.file or args.config)
    text = _read(path)
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
    _print_table(rows, right=(1, 2, 3))
    return 0


def _price(usd: float | None) -> str:
    return "-" if usd is None else f"{usd:.2f}" if round(usd, 2) == usd else f"{usd:g}"


def _print_table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, help: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run, parser=command)
        command.add_argument("--config", metavar="F", help="default: ./routes.toml, then $TOKENHUB_CONFIG")
        return command

    serve = add(
        "serve", _serve, "Run the gateway.", "tokenhub serve --config routes.toml --listen 127.0.0.1:8080"
    )
    serve.add_argument(
        "--listen",
        metavar="A",
        action="append",
        help="host:port or unix:/path, in place of the file's; repeatable",
    )
    serve.add_argument(
        "--workers", metavar="N", type=_workers, help="this version runs one; others are only warned about"
    )

    check = add(
        "check", _check, "Check a configuration file and name every mistake.", "tokenhub check routes.toml"
    )
    check.add_argument("file", metavar="FILE", nargs="?", help="default: as --config")

    add("models", _models, "List the configured models.", "tokenhub models")

    talk = add(
        "chat",
        _chat,
        "Stream one answer through a running gateway.",
        'tokenhub chat balanced "Why is the sky blue?"',
    )
    talk.add_argument("model", metavar="MODEL", help="an id (openai/gpt-4o), a short name, an alias, or auto")
    talk.add_argument("prompt", metavar="PROMPT")
    talk.add_argument(
        "--url", help="the gateway, such as http://127.0.0.1:8080; default: the file's first listener"
    )
    talk.add_argument("--strategy", metavar="S", help="cost, latency, availability or round-robin")
    talk.add_argument(
        "--wait", metavar="S", type=float, default=0.0, help="seconds to wait for a gateway that starts"
    )

    simulate = add(
        "simulate", _simulate, "Run the provider simulator alone.", "tokenhub simulate --port 9000 --speed 0"
    )
    simulate.add_argument("--host", default="127.0.0.1")
    simulate.add_argument("--port", type=int, default=9000)
    simulate.add_argument("--seed", type=int, default=0, help="same seed, same answers")
    simulate.add_argument("--speed", type=float, default=1.0, help="factor on all times; 0: no delays at all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    command: Command = args.run
    try:
        code = command(args)
        sys.stdout.flush()
    except CommandError as error:
        print(f"tokenhub: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # "tokenhub models | head": what is left is for nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
