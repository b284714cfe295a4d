"""A row as plain values: for a worker that starts later, and for the next start.

Not kept is what runs (it ends with its process), and what the configuration says.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from proxy.deployments.row import Row

# Points in time, which change with the clock they are told by; and settings, which are not learned.
_TIMES = frozenset(("stamp_s", "_stamp_s", "changed_s", "heard_s", "used_s", "good_begun_s"))
_SETTINGS = frozenset(("tau_s", "_half_life_s", "drift"))
_PARTS = ("speed", "charges", "success", "output_s_per_token")
_LATER = ("size", "pace_estimate", "reliability")  # parts that states of earlier versions lack
_VOTES = ("pace", "per_byte")  # states of earlier versions lack them
_OWN = ("used_s", "heard_s", "unanswered_s")


def dump(row: Row, shift_s: float = 0.0) -> dict[str, Any]:
    """The row's learned state.

    :param shift_s: added to points in time: Unix seconds less monotonic ones, for what outlives the clock.
    """
    state: dict[str, Any] = {name: _dump(getattr(row, name), shift_s) for name in (*_PARTS, *_LATER)}
    state |= {name: getattr(row, name).dump() for name in _VOTES}
    own = {name: getattr(row, name) + (shift_s if name in _TIMES else 0.0) for name in _OWN}
    state["own"] = {name: value for name, value in own.items() if isfinite(value)}
    state["finished"] = row.finished_count + row.finished_elsewhere
    state["latest_s"] = list(row.latest_s)
    return state


def restore(row: Row, state: dict[str, Any], shift_s: float = 0.0) -> None:
    """Put a state of :func:`dump` into a row that has learned nothing.

    :raises AttributeError, KeyError, TypeError, ValueError: it is not of this version. The row is as it
        was.
    """
    there = (*_PARTS, *(name for name in _LATER if name in state))
    parts = {name: _checked(getattr(row, name), state[name], shift_s) for name in there}
    votes = {name: getattr(row, name).read(state[name]) for name in _VOTES if name in state}
    own = {
        name: float(value) + (shift_s if name in _TIMES else 0.0)
        for name, value in state["own"].items()
        if name in _OWN
    }
    latest = [float(seconds) for seconds in state["latest_s"]]
    finished = int(state["finished"])
    for name, values in parts.items():
        for slot, value in values.items():
            setattr(getattr(row, name), slot, value)
    for name, found in votes.items():
        getattr(row, name).restore(found)
    for name, value in own.items():
        setattr(row, name, value)
    row.latest_s.extend(latest)
    for seconds in latest:
        row.answered.add(seconds)
    row.finished_elsewhere = finished


def _learned(part: object) -> list[str]:
    """Return the names of its fields: its slots, or what a compiled class has in their place."""
    kind: Any = type(part)
    slots = getattr(kind, "__mypyc_attrs__", None) or kind.__slots__
    return [slot for slot in slots if slot not in _SETTINGS]


def _dump(part: object, shift_s: float) -> dict[str, Any]:
    values = {slot: getattr(part, slot) for slot in _learned(part)}
    return {slot: value + shift_s if slot in _TIMES else value for slot, value in values.items()}


def _checked(part: object, values: dict[str, Any], shift_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for slot in _learned(part):
        value = values[slot]
        if slot == "ratios":
            found[slot] = None if value is None else tuple(map(float, value))
        elif not isfinite(value):
            raise ValueError(f"{slot} is no number")
        else:
            found[slot] = float(value) + (shift_s if slot in _TIMES else 0.0)
    return found
