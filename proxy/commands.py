"""What the commands have in common: the parser they are added to, and the configuration they go by."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.config import AdminConfig, Config, ConfigError
from proxy.console import Admin, connect
from proxy.routesfile import RoutesFile, Unreadable

Command = Callable[[argparse.Namespace], int]


class CommandError(Exception):
    """The command failed; the text is the one line that says why and what to do."""


# ---------------------------------------------------------------------- the configuration


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


def load(given: str | None) -> Config:
    """Read and check the configuration.

    :raises CommandError: it can't be read, or holds mistakes (all of them are in the text).
    """
    return load_file(RoutesFile(config_path(given)))


def load_file(file: RoutesFile) -> Config:
    """:raises CommandError: as :func:`load`."""
    try:
        return file.load()
    except (Unreadable, ConfigError) as error:
        raise CommandError(str(error)) from None


def load_if_needed(args: argparse.Namespace) -> Config | None:
    """The configuration for a command that asks a gateway. With ``--admin`` it can do without.

    :raises CommandError: it can't.
    """
    try:
        return load(args.config)
    except CommandError:
        if args.admin is None:
            raise
    return None


def admin_of(args: argparse.Namespace) -> Admin:
    """The admin API of the gateway that runs.

    :raises CommandError, ConsoleError: nothing says where it is.
    """
    config = load_if_needed(args)
    return connect(args.admin, AdminConfig() if config is None else config.admin, os.environ)


# ---------------------------------------------------------------------- the parser


class Commands:
    """Adds commands to a parser, each with an example in its help."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(self, name: str, run: Command, help: str, example: str) -> argparse.ArgumentParser:
        """A command; ``run`` returns its exit code."""
        command = _with_example(self._commands, name, help, help, f"tokenhub {example}")
        command.set_defaults(run=run, parser=command)
        _add_config(command, None)
        return command

    def add_admin(self, name: str, run: Command, help: str, example: str) -> argparse.ArgumentParser:
        """A command that asks the admin API of a running gateway."""
        command = self.add(name, run, help, example)
        _add_admin(command, None)
        return command


class Actions:
    """Adds to a command of :meth:`Commands.add_admin` what it can do. Which one was asked for is in
    ``args.action``."""

    def __init__(self, command: argparse.ArgumentParser) -> None:
        self._actions = command.add_subparsers(
            title="actions", metavar="ACTION", dest="action", required=True
        )
        self._prog = command.prog

    def add(self, name: str, help: str, description: str, example: str) -> argparse.ArgumentParser:
        """:param example: what follows the name."""
        action = _with_example(
            self._actions, name, help, description, f"{self._prog} {name} {example}".rstrip()
        )
        action.set_defaults(parser=action)
        # The command has them already: missing here, they don't undo what stands before the action.
        _add_config(action, argparse.SUPPRESS)
        _add_admin(action, argparse.SUPPRESS)
        return action


def _with_example(
    parsers: Any, name: str, help: str, description: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_config(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "default: ./routes.toml, then $TOKENHUB_CONFIG"
    parser.add_argument("--config", metavar="F", default=default, help=text)


def _add_admin(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "the admin API, such as http://127.0.0.1:8081; default: the file's"
    parser.add_argument("--admin", metavar="URL", default=default, help=text)
