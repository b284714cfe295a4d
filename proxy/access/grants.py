"""The keys as each worker holds them in memory, and what the key of a request grants.

A change makes a new table; the next request goes by it. Storage has no part in this: a key that is known
stays known whatever becomes of the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Final

import orjson

from proxy.access.accounts import Accounts
from proxy.access.group import Group
from proxy.access.key import FORM, PREFIX, Key, digest_of, is_glob
from proxy.access.limits import Account
from proxy.errors import NotAllowed, Unauthorized
from proxy.routing.catalog import Catalog, Members, Pools
from proxy.routing.pool import Pool

_PREFIX: Final = PREFIX.encode()
# Where SDKs put a key, in the order in which they count. The first is for requests whose Authorization is
# meant for the provider (auth = "passthrough"); the last is Azure's.
_HEADERS: Final = (b"x-tokenhub-key", b"authorization", b"x-api-key", b"api-key")
Credentials = Sequence[tuple[bytes, bytes]]
Matches = Callable[[str], object]  # an id
# Where a word of a header begins as our keys do; within one, other people's tokens have it by chance.
_OURS: Final = re.compile(rb"(?<![A-Za-z0-9_-])" + re.escape(_PREFIX))


class Grant:
    """The permissions and limits of a key and its group, ready for use by requests.

    ``group``: the name of the key's group; empty: it is in none. ``limits_money``: a limit is in dollars.

    :param until: Unix seconds at which a former secret of the key ends; None: this is the present one.
    """

    __slots__ = (
        "_allowed",
        "_catalog",
        "_found",
        "_ids",
        "_pools",
        "_until",
        "account",
        "group",
        "has_limits",
        "id",
        "id_json",
        "key",
        "limits_models",
        "limits_money",
        "max_tokens",
        "may_end",
        "name",
        "reads_body",
        "who",
    )

    def __init__(self, key: Key, account: Account, until: int | None = None) -> None:
        self.key = key
        self._until = until
        self.id = key.id
        self.id_json = b'"%b"' % key.id.encode()
        self.name = key.name
        self.group = key.group or ""
        # What a ledger line says of it: its id, and its group.
        self.who = self.id_json + (b',"group":' + orjson.dumps(self.group) if self.group else b"")
        self.account = account
        holders = (key, key if account.group is None else account.group.holder)
        self.max_tokens = min([each.max_tokens for each in holders if each.max_tokens], default=None)
        self.limits_money = key.limits_money() or holders[-1].limits_money()
        self.has_limits = account.is_limited or self.max_tokens is not None
        # Its limits go by what the body says.
        self.reads_body = account.reserves or self.max_tokens is not None
        self.may_end = key.revoked is not None or key.expires is not None or until is not None
        self.limits_models = key.models is not None
        # What was worked out with the latest catalog: the models that the list names, whatever a request asks
        # for; pools by what requests say, and as the catalog made them; the members of each name that may be
        # used.
        self._catalog: Catalog | None = None
        self._ids: frozenset[str] = frozenset()
        self._found: dict[tuple[str | None, str, str | None], Pool] = {}
        self._pools: Pools = {}
        self._allowed: dict[str, Members] = {}

    def check(self, unix_s: float) -> None:
        """:raises Unauthorized: the key is of no use any more."""
        key = self.key
        if key.revoked is not None:
            raise Unauthorized("This API key was revoked. Ask the operator of this gateway for another.")
        if key.expires is not None and unix_s >= key.expires:
            text = "This API key has expired. Ask the operator of this gateway for another."
            raise Unauthorized(text, "expired_api_key")
        if self._until is not None and unix_s >= self._until:
            text = "This API key was replaced. Ask the operator of this gateway for the new one."
            raise Unauthorized(text)

    def is_ready(self, catalog: Catalog) -> bool:
        """Return whether it is known what the key's list of models means in a catalog: see
        :meth:`make_ready`."""
        return catalog is self._catalog

    def make_ready(self, catalog: Catalog) -> Iterator[None]:
        """Hold the key's list against a catalog, a bit with each step: two hundred patterns and five thousand
        models take half a second.

        An entry that is an alias allows what the alias stands for, where the alias is asked for; one that is
        an id allows that; a short name, all models of that name; a pattern is held against ids.
        """
        ids: set[str] = set()
        patterns: list[Matches] = []
        for entry in self.key.models or ():
            if catalog.means(entry) in ("pinned", "short"):
                ids.update(member.id for member in catalog.members(entry))
            if is_glob(entry):
                patterns.append(re.compile(translate(entry)).match)
            yield
        if patterns:
            for id in catalog.deployments:
                if any(matches(id) for matches in patterns):
                    ids.add(id)
                yield
        self._ids = frozenset(ids)
        self._found, self._pools, self._allowed = {}, {}, {}
        self._catalog = catalog

    def allowed(self, name: str, members: Members) -> Members:
        """Those of the models behind ``name`` that the key may use for a request that asks for that name.

        The catalog they are of is one that it was made ready for.
        """
        models, ids = self.key.models, self._ids
        if models is None or name in models:
            return members
        return tuple(member for member in members if member.id in ids)

    def resolve(self, catalog: Catalog, name: str | None, endpoint: str, strategy: str | None) -> Pool:
        """Resolve a name as :meth:`proxy.routing.catalog.Catalog.resolve` does, with only the members that
        the key may use.

        :raises NotAllowed: it may use no member, whatever they could do.
        """
        if not self.limits_models:
            return catalog.resolve(name, endpoint, strategy)
        if catalog is not self._catalog:  # a caller that could wait has had it made ready
            for _ in self.make_ready(catalog):
                pass
        pool = self._found.get((name, endpoint, strategy))
        if pool is None:
            pool = catalog.resolve_among(name, endpoint, strategy, self._narrow, self._pools)
            self._found[name, endpoint, strategy] = pool
        return pool

    def _narrow(self, name: str, members: Members) -> Members:
        """Return the members of a name that the key may use. :raises NotAllowed: it may use none."""
        found = self._allowed.get(name)
        if found is None:
            found = self._allowed[name] = self.allowed(name, members)
        if not found:
            names = ", ".join(self.key.models or ())
            raise NotAllowed(f"This API key may not use '{name}'. It may use: {names}.")
        return found

    def __repr__(self) -> str:
        return f"<Grant {self.id} {self.name}>"


class KeyTable:
    """All keys.

    :param keys: each with the number of its account.
    :param groups: that keys are in, each with the number of its account.
    :param is_open: requests without a key are served too.
    :param before: what was in effect until now; what it has of keys that are the same is used again.
    """

    def __init__(
        self,
        keys: Iterable[tuple[Key, int]],
        accounts: Accounts | None,
        *,
        is_open: bool,
        groups: Iterable[tuple[Group, int]] = (),
        before: KeyTable | None = None,
    ) -> None:
        self.is_open = is_open
        self._keys = tuple(keys)
        self._groups = tuple(groups)
        self._accounts = accounts
        self._names = {key.id: key.name for key, _ in self._keys}
        self._grants: dict[bytes, Grant] = {}
        self._group_accounts: dict[str, Account] = {}
        if accounts is not None:
            known = {} if before is None else before._group_accounts
            for group, slot in self._groups:
                shared = known.get(group.name)
                if shared is None or shared.holder != group:
                    shared = Account(accounts, slot, group)
                self._group_accounts[group.name] = shared
            old = {} if before is None else before._grants
            for key, slot in self._keys:
                its_group = self._group_accounts.get(key.group or "")
                if its_group is None and key.group is not None and key.revoked is None:
                    continue  # there was no room for the group, and its limits must hold
                grant = old.get(key.digest)
                if grant is None or grant.key != key or grant.account.group is not its_group:
                    grant = Grant(key, Account(accounts, slot, key, its_group))
                self._grants[key.digest] = grant
                former = key.old_digest
                if former is not None:
                    passing = old.get(former)
                    if passing is None or passing.account is not grant.account:
                        passing = Grant(key, grant.account, key.old_until)
                    self._grants[former] = passing

    def __len__(self) -> int:
        return len(self._keys)

    def name_of(self, id: str) -> str | None:
        """The name of a key; None: there is no such key here."""
        return self._names.get(id)

    def again(self) -> KeyTable:
        """The same keys, with nothing worked out yet."""
        return KeyTable(self._keys, self._accounts, is_open=self.is_open, groups=self._groups)

    def grant_of(self, credentials: Credentials) -> Grant | None:
        """Return the grant of a request; None: it has no key of this gateway, and needs none.

        What begins like a key of ours and is not known is refused on an open gateway too: its limits and its
        list of models would not hold, unnoticed.

        :param credentials: its headers that may hold a key: name in lower case, value.
        :raises Unauthorized: it needs a key and brings none, or it brings one that is not known.
        """
        given = secret_in(credentials)
        if given.startswith(_PREFIX):
            grant = self._grants.get(digest_of(given))
            if grant is not None:
                return grant
        elif self.is_open:
            return None
        if not given:
            text = "There is no API key in the request. Send one as Authorization: Bearer th-…."
        elif not FORM.fullmatch(given.decode("latin-1")):
            text = (
                f"This is not a key of this gateway: its keys start with {PREFIX} and have 46 characters. "
                "Ask its operator for one; `tokenhub keys create` makes it."
            )
        else:
            text = "This gateway does not know the API key. Check it, or ask the operator for another."
        if self.is_open:
            text += " Requests without a key are served too."
        raise Unauthorized(text)


def secret_in(credentials: Credentials) -> bytes:
    """The key a request brings: ours where there is one among them, else the first; empty for none."""
    found = b""
    for wanted in _HEADERS:
        for name, value in credentials:
            if name != wanted:
                continue
            secret = value
            if name == b"authorization":
                scheme, _, secret = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    continue
                secret = secret.strip(b" \t")
            if secret.startswith(_PREFIX):
                return secret
            found = found or secret
    return found


def others(credentials: Credentials) -> list[tuple[bytes, bytes]]:
    """The credentials that may go to a provider which is to get the client's own: none of ours."""
    return [
        (name, value) for name, value in credentials if name != b"x-tokenhub-key" and not _OURS.search(value)
    ]


def would_go_along(credentials: Credentials) -> bool:
    """A client that follows a redirect to another host takes a key of these along: what HTTP libraries leave
    out there is Authorization alone (the Fetch standard's section 4.4; httpx and requests do the same)."""
    return any(name != b"authorization" for name, _ in credentials)
