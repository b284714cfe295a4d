"""The parser that commands are added to, and the configuration that they use.

Modules that take time to load are imported when a command needs them, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from proxy.config.settings import Config, Listen
    from proxy.control.routes_file import RoutesFile

Command = Callable[[argparse.Namespace], int]

# As in settings, which --help does not load.
STRATEGIES = "cost, latency, throughput, availability, round-robin or order"
_NO_FILE_NEEDED = "this command needs no file if --admin names the admin API of a running gateway"
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CHOICE = re.compile(r"(.*invalid choice: '(.*)') \(choose from (.*)\)", re.DOTALL)


class CommandError(Exception):
    """The command failed; the text is the one line that says why and what to do."""


# ---------------------------------------------------------------------- the configuration


def config_path(given: str | None) -> Path:
    """The configuration file: ``--config``, else ./routes.toml, else $TOKENHUB_CONFIG.

    :raises CommandError: there is no file.
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
        "there is no routes.toml here: name a file with --config F or $TOKENHUB_CONFIG, "
        "or start from the one in TokenHub's repository"
    )


def load(given: str | None) -> Config:
    """Read and check the configuration.

    :raises CommandError: it can't be read, or holds mistakes (all of them are in the text).
    """
    from proxy.control.routes_file import RoutesFile

    return load_file(RoutesFile(config_path(given)))


def load_file(file: RoutesFile) -> Config:
    """:raises CommandError: as :func:`load`."""
    from proxy.config.tables import ConfigError
    from proxy.control.routes_file import Unreadable

    try:
        return file.load()
    except (Unreadable, ConfigError) as error:
        raise CommandError(str(error)) from None


def load_if_needed(args: argparse.Namespace) -> Config | None:
    """The configuration for a command that calls a gateway; None: ``--admin`` is enough.

    :raises CommandError: it is needed, and can't be used.
    """
    try:
        return load(args.config)
    except CommandError as error:
        if args.admin is None:
            text = str(error)
            between = "\n" if "\n" in text else "; "  # several mistakes are a line each
            raise CommandError(f"{text}{between}{_NO_FILE_NEEDED}") from None
    return None


# ---------------------------------------------------------------------- a gateway's address, and its errors


def url_of(listen: Listen, scheme: str = "http") -> str:
    """The URL of a listener of this machine; loopback for one that listens on all addresses."""
    if listen.path:
        return f"unix:{listen.path}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return f"{scheme}://[{host}]:{listen.port}" if ":" in host else f"{scheme}://{host}:{listen.port}"


def error_message(answer: bytes) -> str | None:
    """The message of an error response; None: it is not an error response of an API."""
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def message_of(answer: bytes) -> str:
    """The message of an error response, else the beginning of the response."""
    found = error_message(answer)
    return answer[:200].decode(errors="replace") or "an empty answer" if found is None else found


# ---------------------------------------------------------------------- the parser


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the name that was probably meant and where to read on."""

    def error(self, message: str) -> NoReturn:
        if found := _CHOICE.fullmatch(message):
            from proxy.config.values import nearest

            names = [name.strip(" '") for name in found[3].split(",")]
            close = nearest(found[2], names)
            hint = f"did you mean '{close}'? " if close else ""
            message = f"{found[1]}; {hint}Valid: {', '.join(names)}"
        self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")


class Commands:
    """Adds commands to a parser, each with examples in its help."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(self, name: str, run: Command, help: str, *examples: str) -> argparse.ArgumentParser:
        """Add a command; ``run`` returns its exit code.

        :param examples: each without ``tokenhub`` in front.
        """
        command = _with_examples(self._commands, name, help, help, [f"tokenhub {text}" for text in examples])
        command.set_defaults(run=run, parser=command)
        _add_config(command, None)
        return command

    def add_admin(self, name: str, run: Command, help: str, *examples: str) -> argparse.ArgumentParser:
        """Add a command that calls the admin API of a running gateway."""
        command = self.add(name, run, help, *examples)
        _add_admin(command, None)
        return command


class Actions:
    """Adds actions to a command of :meth:`Commands.add_admin`. The chosen one is in ``args.action``."""

    def __init__(self, command: argparse.ArgumentParser) -> None:
        self._actions = command.add_subparsers(
            title="actions", metavar="ACTION", dest="action", required=True
        )
        self._prog = command.prog

    def add(self, name: str, help: str, description: str, *examples: str) -> argparse.ArgumentParser:
        """:param examples: what follows the name."""
        texts = [f"{self._prog} {name} {text}".rstrip() for text in examples]
        action = _with_examples(self._actions, name, help, description, texts)
        action.set_defaults(parser=action)
        # The command has them already: their defaults here must not undo options before the action.
        _add_config(action, argparse.SUPPRESS)
        _add_admin(action, argparse.SUPPRESS)
        return action


def _with_examples(
    parsers: Any, name: str, help: str, description: str, examples: list[str]
) -> argparse.ArgumentParser:
    lines = "\n  ".join(examples)
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example{'s' if len(examples) > 1 else ''}:\n  {lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_config(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "default: ./routes.toml, then $TOKENHUB_CONFIG"
    parser.add_argument("--config", metavar="F", default=default, help=text)


def _add_admin(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "the admin API, such as http://127.0.0.1:8081; default: the file's"
    parser.add_argument("--admin", metavar="URL", default=default, help=text)


def add_json(parser: Any) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")


# ---------------------------------------------------------------------- values of options


def whole(least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not '{text}'")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Reads a number."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not '{text}'")
        return found

    return read


def seconds(text: str) -> float:
    """Reads a span of time: ``30s``, ``500ms``, ``2m``, or seconds without a unit; a day at most."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)", text, re.ASCII)
    span = float(found[1]) * _UNITS[found[2]] if found else math.inf
    if span > 86_400:
        raise argparse.ArgumentTypeError(f"must be a span of time such as 30s, 500ms or 2m, not '{text}'")
    return span
