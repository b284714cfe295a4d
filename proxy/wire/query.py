"""Parameters of a request's query: which of them pass to a provider, and those that the gateway reads.

Servers make arguments of parameters, and some let those count for more than the body: ``?model=dear`` gets
round the list of models that a key may use. So none pass but a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.errors import BadRequest

# The code of the error of a query that can't be followed.
INVALID: Final = "invalid_query"
PASSING_PARAMETERS: Final = ("beta", "api-version", "after", "limit", "order", "include[]")
# What names a model or holds a secret; with "-" and "." read as "_", as some servers do.
_NEVER: Final = frozenset(
    ("model", "models", "key", "api_key", "apikey", "access_token", "subscription_key", "authorization")
)

# What people write for yes and no; a name alone is a yes, and an empty value says nothing, as everywhere.
_FLAGS: Final = {
    **dict.fromkeys((b"1", b"true", b"yes", b"on"), True),
    **dict.fromkeys((b"0", b"false", b"no", b"off", b""), False),
}


class QueryError(ValueError):
    """A parameter has a value that it can't have; the text says which it can. ``param``: its name."""

    def __init__(self, param: str, text: str) -> None:
        super().__init__(text)
        self.param = param


def is_never_passed(name: str) -> bool:
    """Return whether a parameter of this name never passes, whatever a provider's settings say."""
    return name.lower().replace("-", "_").replace(".", "_") in _NEVER


def passing_names(more: tuple[str, ...], own: tuple[str, ...]) -> frozenset[bytes]:
    """The names that pass.

    :param more: beside those that pass everywhere.
    :param own: of the parameters that the provider's ``query`` sets.
    """
    taken = {name.lower() for name in own}
    names = (*PASSING_PARAMETERS, *more)
    return frozenset(
        name.encode() for name in names if name.lower() not in taken and not is_never_passed(name)
    )


def passing(query: bytes, names: frozenset[bytes]) -> tuple[bytes, list[bytes]]:
    """The parameters of a query that pass, with their bytes as they are; and the names of the others.

    :param names: see :func:`passing_names`.
    """
    kept: list[bytes] = []
    dropped: list[bytes] = []
    for name, part in parameters(query):
        if name in names:
            kept.append(part)
        else:
            dropped.append(name)
    return b"&".join(kept), dropped


def parameters(query: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each parameter of a query, with its name in plain.

    Some servers separate at ``;`` too: what holds one could be two parameters, and has a name that none has.
    """
    for part in query.split(b"&"):
        if not part:
            continue
        name = part.partition(b"=")[0]
        if part.find(b";") >= 0:
            name = part.partition(b";")[0] + b";"
        elif name.find(b"%") >= 0 or name.find(b"+") >= 0:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        yield name, part


def flag(query: bytes, name: bytes) -> bool:
    """Return whether a query says yes to a parameter of the gateway's own; without it, no.

    :raises BadRequest: it says neither, or says it twice.
    """
    found: bool | None = None
    for key, part in parameters(query):
        if key != name:
            continue
        text, _, value = part.partition(b"=")
        value = unquote_to_bytes(value).lower() if len(text) < len(part) else b"1"
        shown = name.decode()
        if found is not None:
            raise BadRequest(f"'{shown}' is given more than once: give it once.", code=INVALID, param=shown)
        found = _FLAGS.get(value)
        if found is None:
            told = f"'{shown}' must be true or false (or 1 and 0, yes and no)."
            raise BadRequest(told, code=INVALID, param=shown)
    return found is True
