"""Access of ``keys`` and ``usage`` to keys and totals, by :mod:`proxy.cli.key_source`, which is loaded
when it is needed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from proxy.cli.parser import load_if_needed
from proxy.cli.terminal import say

if TYPE_CHECKING:
    from proxy.cli.key_source import Source

_T = TypeVar("_T")


def use(args: argparse.Namespace, work: Callable[[Source], _T], **how: bool) -> _T:
    """Do ``work`` with keys and totals, of a gateway or of its database: :func:`proxy.cli.key_source.use`."""
    from proxy.cli import key_source

    return key_source.use(work, say, url=args.admin, config=load_if_needed(args), environ=os.environ, **how)
