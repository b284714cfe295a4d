"""``/v1/models`` as bytes: what a name is, for people and SDKs.

A list of 5,000 models takes 0.1 s to build. So a row is built once for each configuration, a list once for
each key's list of models, and both step by step: :meth:`ModelList.build` is a generator, and the caller
decides how long to go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from proxy.access.model_pages import ModelPages, Paging, anthropic_row
from proxy.config.settings import ENDPOINTS

if TYPE_CHECKING:
    from proxy.access.grants import Grant
    from proxy.deployments.deployment import Deployment
    from proxy.routing.catalog import Catalog

# What clients ask for beside endpoints; always told, so that false can be read as false.
_FEATURES = ("tools", "vision")
# Lists that are kept: at 5,000 models some twenty. The oldest goes first, and is built again when it is asked
# for.
MAX_KEPT_BYTES: Final = 48 << 20
_FIRST: Final = Paging()


class ListQuery(NamedTuple):
    """The parameters of a list: the names a key may use (None: all), whether with what can't be called, and
    whether in the shape of Anthropic's API."""

    names: tuple[str, ...] | None
    is_all: bool
    is_anthropic: bool = False


class _Row(NamedTuple):
    data: bytes
    is_available: bool

    def told(self) -> bytes:
        """With a word on whether it can be called."""
        return self.data[:-1] + (b',"available":true}' if self.is_available else b',"available":false}')


class ModelList:
    """The lists and rows of one catalog.

    Short names are not listed: each would repeat a model that is listed already, and a picker built from the
    list would show it twice. They can be retrieved one by one, since they can be sent.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # Of names as they are for keys that may use all of their models; in either shape.
        self._rows: tuple[dict[str, _Row], dict[str, _Row]] = {}, {}
        self._lists: dict[ListQuery, bytes | ModelPages] = {}
        self._kept_bytes = 0

    def get(self, wanted: ListQuery, paging: Paging = _FIRST) -> bytes | None:
        """A list; None: it has to be built.

        :param paging: which page, of a list in the shape of Anthropic's API.
        :raises BadRequest: there is no such page.
        """
        found = self._lists.get(wanted)
        return found.page(paging) if isinstance(found, ModelPages) else found

    def has(self, wanted: ListQuery) -> bool:
        """Return whether a list is built."""
        return wanted in self._lists

    def build(self, wanted: ListQuery, grant: Grant | None) -> Iterator[None]:
        """Build a list, a bit with each step. At the end :meth:`get` has it.

        :param grant: of the key whose names are wanted, made ready for the catalog; None: all are.
        """
        ids, rows = [], []
        for name in self._catalog.listed():
            row = self._row(name, grant, wanted.is_anthropic)
            if row is not None and (row.is_available or wanted.is_all):
                ids.append(name)
                rows.append(row.told() if wanted.is_all else row.data)
            yield
        if wanted.is_anthropic:
            self._keep(wanted, ModelPages(ids, rows))
        else:
            self._keep(wanted, b'{"object":"list","data":[%b]}' % b",".join(rows))

    def _keep(self, wanted: ListQuery, made: bytes | ModelPages) -> None:
        self._kept_bytes += _size(made) - _size(self._lists.pop(wanted, b""))
        self._lists[wanted] = made
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._lists) > 1:
            oldest = next(iter(self._lists))
            self._kept_bytes -= _size(self._lists.pop(oldest))

    def one(
        self, name: str, grant: Grant | None, *, is_all: bool, is_anthropic: bool = False
    ) -> bytes | None:
        """The row of one id, alias or short name; None: there is none, or the key may not use it.

        What can't be called says so, whether it was asked for or not.

        :param grant: of a key that may use some models only, made ready for the catalog; None: all may be
            used.
        """
        row = self._row(name, grant, is_anthropic)
        if row is None:
            return None
        return row.told() if is_all or not row.is_available else row.data

    def _row(self, name: str, grant: Grant | None, is_anthropic: bool) -> _Row | None:
        members = self._catalog.members(name)
        if grant is not None:
            allowed = grant.allowed(name, members)
            if len(allowed) < len(members):
                return self._make(name, allowed, is_anthropic) if allowed else None
        if not members:
            return None
        rows = self._rows[is_anthropic]
        row = rows.get(name)
        if row is None:
            row = rows[name] = self._make(name, members, is_anthropic)
        return row

    def _make(self, name: str, members: tuple[Deployment, ...], is_anthropic: bool) -> _Row:
        # Requests go to those that have a key; where none has one, it is told what there would be.
        usable = tuple(member for member in members if member.usable)
        told = usable or members
        created = self._catalog.created
        if self._catalog.means(name) == "pinned":
            row = model_row(told[0], created)
        else:
            row = group_row(name, told, created)
        return _Row(orjson.dumps(anthropic_row(row) if is_anthropic else row), bool(usable))


def _size(made: bytes | ModelPages) -> int:
    return made.size_bytes if isinstance(made, ModelPages) else len(made)


def all_rows(catalog: Catalog) -> list[dict[str, Any]]:
    """The row of every id and alias, whether it can be called or not."""
    found = []
    for name in catalog.listed():
        members = catalog.members(name)
        is_model = catalog.means(name) == "pinned"
        row = model_row(members[0], catalog.created) if is_model else None
        found.append(row or group_row(name, members, catalog.created))
    return found


def model_row(deployment: Deployment, created: int) -> dict[str, Any]:
    """One model at one provider.

    :param created: Unix seconds.
    """
    model = deployment.model
    prices = {"input": model.input_price_usd_per_mtok, "output": model.output_price_usd_per_mtok}
    return {
        "id": deployment.id,
        "object": "model",
        "created": created,
        "owned_by": deployment.provider.name,
        "context_window": deployment.model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": _capabilities((deployment,)),
        "pricing": None if prices["input"] is None and prices["output"] is None else prices,
    }


def group_row(name: str, members: tuple[Deployment, ...], created: int) -> dict[str, Any]:
    """A name for several: limits that hold for each of them; no price, which depends on the member."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tokenhub",
        "context_window": _least(member.model.context_window for member in members),
        "max_output_tokens": _least(member.model.max_output_tokens for member in members),
        "capabilities": _capabilities(members),
        "pricing": None,
    }


def _capabilities(members: Iterable[Deployment]) -> dict[str, bool]:
    """Endpoints and features that at least one member has: where one is needed, the others are skipped."""
    endpoints: set[str] = set()
    extras: set[str] = set()
    for member in members:
        endpoints.update(member.endpoints)
        extras.update(member.capabilities)
    extras.difference_update(ENDPOINTS)
    result = {endpoint: endpoint in endpoints for endpoint in ENDPOINTS}
    result.update((feature, feature in extras) for feature in sorted({*_FEATURES, *extras}))
    return result


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)
