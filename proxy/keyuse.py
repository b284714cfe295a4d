"""How ``keys`` and ``usage`` get at keys and totals: by :mod:`proxy.keysource`, loaded when it is needed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from proxy.commands import load_if_needed
from proxy.terminal import say

if TYPE_CHECKING:
    from proxy.keysource import Source

_T = TypeVar("_T")


def use(args: argparse.Namespace, work: Callable[[Source], _T], **how: bool) -> _T:
    """Do ``work`` with keys and totals, of a gateway or of its database: :func:`proxy.keysource.use`."""
    from proxy import keysource

    return keysource.use(work, say, url=args.admin, config=load_if_needed(args), environ=os.environ, **how)
