"""The commands that need a configuration file and no gateway: check and models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from proxy.cli.parser import CommandError, load_file
from proxy.cli.tables import NOTHING, Column, TextTable, clean
from proxy.cli.terminal import print_json, show
from proxy.config.parse import parse, without_effect
from proxy.config.settings import Config
from proxy.config.tables import ConfigError, Mistake
from proxy.config.toml_positions import Positions
from proxy.control.routes_file import RoutesFile, Unreadable, stamp_of
from proxy.endpoints import WRITING
from proxy.storage.database import IN_MEMORY, check_ledger, check_place, explain
from proxy.storage.schema_version import VERSION, StateError, check_file

_TOKENS = {"input_price": "input tokens", "output_price": "output tokens"}

# ---------------------------------------------------------------------- check


def check(path: Path, *, as_json: bool = False) -> int:
    """Print every mistake of a file, or that it is good; returns the exit code.

    :raises CommandError: it can't be read.
    """
    try:
        text = RoutesFile(path).read().text
    except Unreadable as error:
        raise CommandError(str(error)) from None
    mistakes: tuple[Mistake, ...] = ()
    notes: tuple[Mistake, ...] = ()
    try:
        config = parse(text, str(path))
        notes = (*without_effect(text, str(path)), *_price_notes(config, text), *_place_notes(config, text))
    except ConfigError as error:
        mistakes = error.mistakes
    if as_json:
        found = {"mistakes": list(map(_mistake, mistakes)), "notes": list(map(_mistake, notes))}
        print_json({"file": str(path), "ok": not mistakes, **found})
        return 1 if mistakes else 0
    for mistake in mistakes:
        print(f"{path}:{mistake.line}:{mistake.column}: {clean(mistake.message)}", file=sys.stderr)
    if mistakes:
        return 1
    for note in notes:
        print(f"{path}:{note.line}:{note.column}: note: {clean(note.message)}")
    counts = (
        ("provider", "providers", config.providers),
        ("model", "models", config.models),
        ("alias", "aliases", config.aliases),
    )
    told = ", ".join(f"{len(held)} {one if len(held) == 1 else many}" for one, many, held in counts)
    print(f"{path}: ok ({told})")
    return 0


def _price_notes(config: Config, text: str) -> list[Mistake]:
    """Notes on models that write and have a price for one direction only: the other counts as free."""
    positions = Positions(text.removeprefix("\ufeff"))
    found = []
    for model in config.models.values():
        prices = {
            "input_price": model.input_price_usd_per_mtok,
            "output_price": model.output_price_usd_per_mtok,
        }
        given = [name for name, price in prices.items() if price is not None]
        if len(given) == 1 and not WRITING.isdisjoint(model.capabilities):
            [missing] = prices.keys() - set(given)
            place = positions.key(("models", model.id, given[0]))
            told = f"'{model.id}' has an {given[0]} and no {missing}: its {_TOKENS[missing]} count as free"
            found.append(Mistake(place.line, place.column, told))
    return found


def _place_notes(config: Config, text: str) -> tuple[Mistake, ...]:
    """Notes that a start on this machine, by this user, would fail because of the state, or move its file.

    These are notes and no mistakes: the configuration may be meant for another machine. Nothing is changed.
    """
    path = config.state.path
    if path == IN_MEMORY:
        return ()
    place = Positions(text.removeprefix("\ufeff")).key(("state", "path"))
    try:
        check_place(path)
        check_ledger(path)
        version = check_file(path)
    except (StateError, OSError) as error:
        return (Mistake(place.line, place.column, explain(path, error)),)
    if not 0 < version < VERSION:
        return ()
    note = (
        f"[state] path {path} has version {version}: 'tokenhub serve', and commands that write, move it to "
        f"version {VERSION} and keep a copy of it as it was beside it."
    )
    return (Mistake(place.line, place.column, note),)


def _mistake(mistake: Mistake) -> dict[str, Any]:
    return {"line": mistake.line, "column": mistake.column, "message": mistake.message}


# ---------------------------------------------------------------------- models

_MODELS = (
    Column("MODEL"),
    Column("CONTEXT", is_number=True, rank=2),
    Column("INPUT $/M", is_number=True, rank=1),
    Column("OUTPUT $/M", is_number=True, rank=1),
    Column("CAPABILITIES", rank=4, least=16, is_cut=True),
    Column("ALIASES", rank=3, least=14),
)


def show_models(path: Path, *, as_json: bool = False) -> int:
    """Print the models of a file.

    :param as_json: in the form of ``/v1/models``; ``created`` is the file's time.
    :raises CommandError: it can't be read, or holds mistakes.
    """
    file = RoutesFile(path)
    config = load_file(file)
    if as_json:
        from proxy.access.model_list import all_rows
        from proxy.routing.catalog import Catalog

        stamp = stamp_of(path)
        created = stamp[0] // 1_000_000_000 if stamp is not None else 0
        print_json({"object": "list", "data": all_rows(Catalog(config, {}, created))})
        return 0
    rows = []
    for model in config.models.values():
        short = model.id.removeprefix(model.provider + "/")
        aliases = [name for name, alias in config.aliases.items() if {model.id, short} & {*alias.models}]
        rows.append(
            (
                model.id,
                f"{model.context_window:,}" if model.context_window else NOTHING,
                _price(model.input_price_usd_per_mtok),
                _price(model.output_price_usd_per_mtok),
                ",".join(sorted(model.capabilities)),
                ",".join(aliases),
            )
        )
    show(TextTable(_MODELS, rows))
    return 0


def _price(usd: float | None) -> str:
    return NOTHING if usd is None else f"{usd:.2f}" if round(usd, 2) == usd else f"{usd:g}"
