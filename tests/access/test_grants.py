"""Who is let in, and to which models."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from fnmatch import fnmatchcase
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.grants import Grant, KeyTable, others, secret_in
from proxy.access.group import Group
from proxy.access.key import digest_of
from proxy.config.parse import parse
from proxy.errors import GatewayError, NotAllowed, Unauthorized
from proxy.routing.catalog import Catalog
from proxy.routing.pool import Pool
from proxy.routing.strategy import choose
from proxy.storage.key_table import change_key
from tests.support import keys
from tests.support.deployments import facts
from tests.support.fakes import RawClient, answers
from tests.support.keys import BODY, SECRET, admin, ask, bearer, grant_of, key_of, make, opened, table_of

OTHER = b"th-" + b"o" * 43


# ---------------------------------------------------------------------- which header counts


@pytest.mark.parametrize("credentials", [
    [(b"authorization", b"Bearer " + SECRET)], [(b"authorization", b"bearer " + SECRET)],
    [(b"authorization", b"BEARER   " + SECRET + b" ")], [(b"x-api-key", SECRET)], [(b"api-key", SECRET)],
    [(b"x-tokenhub-key", SECRET)],
    # SDKs always send something there, and the provider's own key may stand beside ours.
    [(b"authorization", b"Bearer sk-own"), (b"x-tokenhub-key", SECRET)],
    [(b"authorization", b"Bearer sk-own"), (b"api-key", SECRET)],
    [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", SECRET)],
    [(b"x-api-key", b"sk-own"), (b"authorization", b"Bearer " + SECRET)],
    [(b"api-key", OTHER), (b"authorization", b"Bearer " + SECRET)],
    [(b"authorization", b"Bearer " + OTHER), (b"x-tokenhub-key", SECRET)],
    [(b"openai-organization", OTHER), (b"x-api-key", SECRET)],
])  # fmt: skip
def test_where_a_key_is_found(credentials):
    assert secret_in(credentials) == SECRET


@pytest.mark.parametrize(("credentials", "expected"), [
    ([], b""), ([(b"authorization", b"Basic " + SECRET)], b""), ([(b"authorization", SECRET)], b""),
    ([(b"authorization", b"")], b""), ([(b"x-goog-api-key", SECRET)], b""),
    ([(b"authorization", b"Bearer sk-own")], b"sk-own"),
    ([(b"x-api-key", b"one"), (b"authorization", b"Bearer two")], b"two"),
])  # fmt: skip
def test_where_there_is_none_of_ours(credentials, expected):
    assert secret_in(credentials) == expected


def granted(table: KeyTable, secret: bytes) -> Grant | None:
    return table.grant_of([(b"x-api-key", secret)])


def test_a_known_key_is_found_by_its_hash():
    table = table_of(key_of("key_1"), key_of("key_2", OTHER))
    assert len(table) == 2
    for secret, id in ((SECRET, "key_1"), (OTHER, "key_2")):
        grant = granted(table, secret)
        assert grant is not None and grant.id == id
        assert (repr(grant), grant.group) == (f"<Grant {id} {id}>", "")
    assert SECRET.decode() not in repr(vars(table))


NOT_OURS = (
    "This is not a key of this gateway: its keys start with th- and have 46 characters. "
    "Ask its operator for one; `tokenhub keys create` makes it."
)


@pytest.mark.parametrize(("value", "said"), [
    (None, "There is no API key in the request. Send one as Authorization: Bearer th-…."),
    (b"Bearer sk-own", NOT_OURS),
    (b"Bearer " + SECRET[:-1], NOT_OURS),
    (b"Bearer " + SECRET + b"x", NOT_OURS),
    (b"Bearer th-", NOT_OURS),
    (b"Bearer th-" + b"\xff" * 43, NOT_OURS),
    (b"Bearer " + SECRET.upper(), NOT_OURS),
    (b"Bearer " + OTHER, "This gateway does not know the API key."),
])  # fmt: skip
def test_a_key_that_is_none(value, said):
    given = [] if value is None else [(b"authorization", value)]
    with pytest.raises(Unauthorized) as caught:
        table_of(key_of()).grant_of(given)
    error = caught.value
    assert said in error.message
    assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")
    assert error.headers == b'WWW-Authenticate: Bearer realm="tokenhub"\r\n'
    assert not error.should_retry
    is_open = table_of(key_of(), is_open=True)
    if value is None or not value.startswith(b"Bearer th-"):
        assert is_open.grant_of(given) is None
        return
    # A client that sends such a key is not an anonymous one: it expects its limits and its list.
    with pytest.raises(Unauthorized) as caught:
        is_open.grant_of(given)
    assert said in caught.value.message
    assert caught.value.message.endswith(" Requests without a key are served too.")


def group_of(name: str = "g", **limits: int) -> Group:
    return Group(name=name, created=1, **limits)


@pytest.mark.parametrize(("own", "group", "has_limits", "reads_body", "max_tokens", "limits_money"), [
    ({}, {}, False, False, None, False), ({"rpm": 1}, {}, True, False, None, False),
    ({}, {"rpm": 1}, True, False, None, False), ({}, {"tpm": 1}, True, True, None, False),
    ({}, {"daily_nusd": 1}, True, True, None, True),
    ({"monthly_nusd": 1}, {"rpm": 1}, True, True, None, True),
    ({}, {"max_tokens": 5}, True, True, 5, False),
    ({"max_tokens": 9}, {"max_tokens": 5}, True, True, 5, False),
    ({"max_tokens": 5}, {"max_tokens": 9}, True, True, 5, False),
])  # fmt: skip
def test_a_grant_has_the_limits_of_key_and_group(
    own, group, has_limits, reads_body, max_tokens, limits_money
):
    table = table_of(key_of(group="g", **own), groups=[group_of(**group)])
    grant = granted(table, SECRET)
    assert grant is not None and grant.group == "g"
    assert (grant.has_limits, grant.reads_body, grant.max_tokens, grant.limits_money) == (
        has_limits, reads_body, max_tokens, limits_money,
    )  # fmt: skip


def test_what_changes_of_a_group_holds_for_its_keys_and_what_does_not_stays():
    keys = key_of("key_1", group="g"), key_of("key_2", OTHER, group="h"), key_of("key_3", b"th-3", group="g")
    table = table_of(*keys, groups=[group_of("g", rpm=2), group_of("h")])
    before = [granted(table, secret) for secret in (SECRET, OTHER)]
    before[0].account.admit(1.0, 1.0, 0, 0)
    later = table_of(*keys, groups=[group_of("g", rpm=1), group_of("h")], before=table)
    after = [granted(later, secret) for secret in (SECRET, OTHER)]
    assert after[0] is not before[0] and after[1] is before[1]
    with pytest.raises(GatewayError, match="limit of 1 requests a minute for group 'g'"):
        after[0].account.admit(1.0, 1.0, 0, 0)
    assert granted(later.again(), SECRET).account.group.holder.rpm == 1
    # A key that leaves a group is let in by its own limits alone; one whose group has no room, not at all.
    assert granted(table_of(key_of("key_1"), before=later), SECRET).account.group is None
    with pytest.raises(Unauthorized, match="does not know"):
        granted(table_of(key_of(group="g")), SECRET)
    assert granted(table_of(key_of(group="g", revoked=5)), SECRET).may_end


HEADERS = [b"x-tokenhub-key", b"x-api-key", b"api-key", b"authorization"]


@given(st.binary(max_size=50), st.sampled_from(HEADERS))
def test_what_begins_like_a_key_and_is_not_known_is_refused_everywhere(rest, name):
    secret = b"th-" + rest.strip(b" \t")
    value = b"Bearer " + secret if name == b"authorization" else secret
    for is_open in (True, False):
        for table in (table_of(key_of(), is_open=is_open), KeyTable((), None, is_open=is_open)):
            with pytest.raises(Unauthorized):
                table.grant_of([(name, value)])


def test_a_known_key_counts_before_another_gateways_in_authorization():
    """A provider that is such a gateway too, and gets the client's own credentials."""
    given = [(b"authorization", b"Bearer " + OTHER), (b"x-tokenhub-key", SECRET)]
    for credentials in (given, [(b"x-api-key", SECRET)]):  # the latter where none is needed
        grant = table_of(key_of(), is_open=True).grant_of(credentials)
        assert grant is not None and grant.id == "key_1"


def test_revoked_and_expired():
    revoked = grant_of(revoked=5)
    with pytest.raises(Unauthorized, match="was revoked") as caught:
        revoked.check(keys.UNIX_S)
    assert caught.value.code == "invalid_api_key"
    expires = grant_of(expires=100)
    expires.check(99.999)
    for at in (100.0, 1e9):
        with pytest.raises(Unauthorized, match="has expired") as caught:
            expires.check(at)
        assert caught.value.code == "expired_api_key"
    assert revoked.may_end and expires.may_end
    grant_of().check(1e12)
    assert not grant_of().may_end


def test_the_secret_before_a_rotation_works_for_its_time():
    key = key_of(digest=digest_of(OTHER), rpm=5, rotated=10, old_digest=digest_of(SECRET), old_until=100)
    table = table_of(key)
    assert len(table) == 1
    present, former = (granted(table, secret) for secret in (OTHER, SECRET))
    assert present is not None and former is not None
    assert present.id == former.id and present.account is former.account  # and so are the limits
    assert not present.may_end
    present.check(1e12)
    assert former.may_end
    former.check(99.999)
    for at in (100.0, 1e9):
        with pytest.raises(Unauthorized, match="was replaced") as caught:
            former.check(at)
        assert caught.value.code == "invalid_api_key"
    for ended, said in (({"expires": 50}, "has expired"), ({"revoked": 50}, "was revoked")):
        with pytest.raises(Unauthorized, match=said):
            Grant(key_of(**ended), keys.account_of(), 100).check(60)


def test_a_rotation_leaves_the_second_last_secret_out():
    third = b"th-" + b"3" * 43
    key = key_of(rotated=10, old_digest=digest_of(OTHER), old_until=100)
    accounts = keys.accounts_of()
    before = KeyTable([(key, 0)], accounts, is_open=False)
    again = dataclasses.replace(
        key, digest=digest_of(third), old_digest=key.digest, rotated=20, old_until=200
    )
    after = KeyTable([(again, 0)], accounts, is_open=False, before=before)
    for secret in (third, SECRET):
        grant = granted(after, secret)
        assert grant is not None and grant.key is again
    with pytest.raises(Unauthorized, match="does not know"):
        granted(after, OTHER)
    same = KeyTable([(again, 0)], accounts, is_open=False, before=after)
    for secret in (third, SECRET):
        assert granted(same, secret) is granted(after, secret)


# ---------------------------------------------------------------------- what goes on to a provider


def test_none_of_our_keys_goes_on():
    jwt = b"Bearer eyJhbGciOiJSUzI1NiJ9.eyJhdth-IjoiYSJ9.c2lnbmF0dXJl"  # has th- in it, as one in 250 do
    given = [
        (b"authorization", b"Bearer sk-own"), (b"authorization", jwt),
        (b"authorization", b"Bearer sk-with-dashes"), (b"x-api-key", b"own-smith-key"),
        (b"openai-organization", b"org"),
    ]  # fmt: skip
    ours = [
        (b"x-tokenhub-key", SECRET), (b"x-tokenhub-key", b"anything"),
        (b"authorization", b"Bearer " + SECRET),
        (b"authorization", b"Bearer " + SECRET[:20]),  # what is left of one is a secret too
        (b"authorization", SECRET), (b"x-api-key", SECRET), (b"api-key", b"key=" + SECRET),
        (b"x-goog-api-key", b'"' + SECRET + b'"'),
    ]  # fmt: skip
    assert others([*ours, *given, *ours]) == given


@given(st.lists(
    st.tuples(
        st.sampled_from([b"authorization", b"x-api-key", b"api-key", b"x-tokenhub-key", b"openai-project"]),
        st.binary(max_size=8).map(lambda begin: begin + b" " + SECRET) | st.just(SECRET) | st.binary(),
    ),
    max_size=5,
))  # fmt: skip
def test_never_one_of_our_keys(credentials):
    assert not any(SECRET in value for _, value in others(credentials))


# ---------------------------------------------------------------------- models

MODELS = (
    keys.CONFIG.format(url="http://127.0.0.1:1/v1", more="")
    + """
[providers.b]
base_url = "http://127.0.0.1:2/v1"
auth = "none"
[models."b/m"]
[models."b/large-1"]
[models."b/large-2"]
[aliases]
premium = ["mock/m", "b/large-1"]
all = ["mock/m", "mock/n", "b/m", "b/large-1", "b/large-2"]
spread = { models = ["mock/m", "mock/n", "b/m", "b/large-1"], strategy = "round-robin" }
test = { split = { "mock/m" = 70, "b/large-1" = 20, "b/large-2" = 10 } }
"""
)
CATALOG = Catalog(parse(MODELS), {"mock": True, "b": True}, 0)


def allowed(models: list[str], name: str | None, strategy: str | None = None, catalog=CATALOG) -> list[str]:
    grant = grant_of(models=tuple(models))
    try:
        return [member.id for member in grant.resolve(catalog, name, "chat", strategy).members]
    except NotAllowed:
        return []


@pytest.mark.parametrize(("models", "name", "expected"), [
    (["mock/m"], "mock/m", ["mock/m"]), (["mock/m"], "mock/n", []), (["mock/*"], "mock/n", ["mock/n"]),
    (["mock/*"], "b/m", []),
    (["m*"], "b/m", []),  # globs are held against whole ids
    (["*/m"], "b/m", ["b/m"]), (["b/large-?"], "b/large-2", ["b/large-2"]),
    (["b/large-[2-9]"], "b/large-1", []),
    (["MOCK/*", "Mock/m"], "mock/m", []),  # names are case-sensitive
    # A short name stands for that model wherever it is.
    (["m"], "mock/m", ["mock/m"]), (["m"], "m", ["mock/m", "b/m"]), (["m"], "mock/n", []),
    (["mock/m"], "m", ["mock/m"]), (["n"], "m", []),
    # An alias allows what it stands for, where it is asked for.
    (["premium"], "premium", ["mock/m", "b/large-1"]), (["premium"], "b/large-1", []),
    (["premium"], "all", []), (["b/*"], "premium", ["b/large-1"]), (["mock/n"], "premium", []),
    (["b/large-1", "mock/m"], "premium", ["mock/m", "b/large-1"]), (["mock/*"], "auto", ["mock/m", "mock/n"]),
    (["auto"], "auto", ["mock/m", "mock/n", "b/m", "b/large-1", "b/large-2"]), (["auto"], "mock/m", []),
])  # fmt: skip
def test_which_models_a_key_may_use(models, name, expected):
    assert allowed(models, name) == expected
    if name == "auto":
        assert allowed(models, None, "cost") == expected


def test_who_may_use_none_is_told_what_it_may():
    grant = grant_of(models=("b/*", "premium"))
    for _ in range(2):  # it is worked out once
        with pytest.raises(NotAllowed) as caught:
            grant.resolve(CATALOG, "mock/m", "chat", None)
    error = caught.value
    assert error.message == "This API key may not use 'mock/m'. It may use: b/*, premium."
    assert keys.kind_of(error) == (403, "permission_error", "model_not_allowed", "model")


def test_pools_are_narrowed_once_and_only_where_need_be():
    def resolved(grant: Grant, strategy: str | None = None) -> Pool:
        return grant.resolve(CATALOG, "all", "chat", strategy)

    pool = CATALOG.resolve("all", "chat", None)
    assert resolved(grant_of()) is pool
    for models in (("*",), ("all",)):
        assert resolved(grant_of(models=models)).members == pool.members
    grant = grant_of(models=("b/*",))
    narrowed = resolved(grant)
    assert resolved(grant) is narrowed is not pool
    assert resolved(grant, "latency") is narrowed  # the default spelled out shares the turns
    assert (narrowed.name, narrowed.kind, narrowed.alias) == (pool.name, pool.kind, pool.alias)
    assert narrowed.plain_rows == pool.plain_rows[2:]  # the same rows: what is learned is learned once
    assert narrowed.can_fail_over
    assert not resolved(grant_of(models=("b/m",))).can_fail_over  # there is nobody else


def test_a_narrowed_round_robin_takes_even_turns():
    pool = grant_of(models=("mock/*", "b/m")).resolve(CATALOG, "spread", "chat", None)
    rng, request = Random(1), facts()
    found = [choose(pool, request, rng) for _ in range(30)]
    assert Counter(member.id for member in found) == {"mock/m": 10, "mock/n": 10, "b/m": 10}
    assert len({member.id for member in found[:3]}) == 3


@pytest.mark.parametrize(("models", "expected"), [
    (("mock/m", "b/large-1"), {"mock/m": 70 / 90, "b/large-1": 20 / 90}),
    (("b/*",), {"b/large-1": 2 / 3, "b/large-2": 1 / 3}),
    (("b/large-2",), {"b/large-2": 1.0}),
])  # fmt: skip
def test_a_narrowed_split_keeps_its_shares(models, expected):
    pool = grant_of(models=models).resolve(CATALOG, "test", "chat", None)
    rng, request = Random(1), facts()
    found = Counter(choose(pool, request, rng).id for _ in range(3000))
    assert found.keys() == expected.keys()
    for id, share in expected.items():
        assert found[id] / 3000 == pytest.approx(share, abs=0.04)
    # Whoever is kept on one side stays there.
    sticky = facts(caller=b"somebody")
    assert len({choose(pool, sticky, rng).id for _ in range(50)}) == 1


def test_narrowed_pools_keep_what_their_alias_says():
    alias = 'calm = { models = ["mock/m", "b/m", "mock/n"], strategy = "cost", keepalive = "3s" }\n'
    text = MODELS.replace("[aliases]", "[routing]\nfailover = false\n[aliases]\n" + alias)
    catalog = Catalog(parse(text), {"mock": True, "b": True}, 0)
    narrowed = grant_of(models=("mock/*",)).resolve(catalog, "calm", "chat", None)
    assert (narrowed.strategy, narrowed.keepalive_s, narrowed.inner) == ("cost", 3.0, "cost")
    assert [member.id for member in narrowed.members] == ["mock/m", "mock/n"]
    assert not narrowed.can_fail_over


CAPABILITIES = Catalog(parse("""
[providers.a]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[providers.keyless]
base_url = "http://127.0.0.1:1/v1"
[models."a/chat"]
[models."a/embed"]
capabilities = ["embeddings"]
[models."a/embed-2"]
capabilities = ["embeddings"]
[models."a/complete"]
capabilities = ["completions"]
[models."keyless/chat"]
[aliases]
mixed = ["a/embed", "a/embed-2"]
all = ["a/chat", "a/complete"]
"""), {"a": True}, 0)  # fmt: skip


def fault(models: tuple[str, ...] | None, name: str | None, endpoint: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        grant_of(models=models).resolve(CAPABILITIES, name, endpoint, None if name else "cost")
    return caught.value


@pytest.mark.parametrize("endpoint", ["chat", "embeddings", "rerank", "speech", "count_tokens"])
@pytest.mark.parametrize("name", ["a/embed", "embed", "mixed", "keyless/chat"])
def test_what_a_key_may_not_use_is_refused_whatever_it_can_do(name, endpoint):
    error = fault(("a/chat",), name, endpoint)
    assert (error.status, error.code) == (403, "model_not_allowed")
    told = error.message.removeprefix(f"This API key may not use '{name}'.")
    assert told == " It may use: a/chat."
    # To who may use it, it is told what it can't do.
    assert fault((name,), name, "rerank").code == "unsupported_endpoint"


def test_nothing_is_said_of_models_that_a_key_may_not_use():
    error = fault(("a/complete",), "all", "chat")  # one member may be used, and the other could do it
    assert (error.status, error.code) == (400, "unsupported_endpoint")
    assert error.message.endswith("it serves: completions.")
    error = fault(("a/embed",), "mixed", "embeddings")
    assert (error.status, error.code) == (400, "mixed_models")  # as for everybody: a list may grow
    assert "embed-2" not in error.message and error.message.endswith("Name one model: embed.")
    assert "embed-2" in fault(None, "mixed", "embeddings").message
    assert fault(("a/chat",), "auto", "embeddings").code == "unsupported_endpoint"
    error = fault(("a/chat",), None, "embeddings")  # nothing stands for no model there
    assert error.code == "model_required" and "embed-" not in error.message
    assert fault(("b/*",), None, "chat").code == "model_not_allowed"


def test_an_unknown_name_is_unknown_to_every_key():
    for models in (None, ("a/chat",)):
        error = fault(models, "a/chatt", "speech")
        assert (error.status, error.code) == (404, "model_not_found")
        assert "Did you mean" not in error.message  # a hint takes time, and is not the key's to give


def test_a_member_without_credentials_does_not_stand_in_for_one_that_may_not_be_used():
    pool = grant_of(models=("keyless/chat",)).resolve(CAPABILITIES, "chat", "chat", None)
    assert [member.id for member in pool.members] == ["keyless/chat"]  # told as such when it is asked


NESTED = Catalog(
    parse(
        MODELS.replace(
            "[aliases]", '[models."router/b/m"]\n[models."router/b/x"]\n[aliases]\nn = ["b/large-1"]',
        ) + '[providers.router]\nbase_url = "http://127.0.0.1:3/v1"\nauth = "none"\n'
    ),
    dict.fromkeys(("mock", "b", "router"), True), 0,
)  # fmt: skip


@pytest.mark.parametrize(("models", "name", "expected"), [
    # A router's models have others' ids as their short names. An entry that is an id is that one.
    (["b/m"], "b/m", ["b/m"]), (["b/m"], "router/b/m", []), (["b/m"], "auto", ["b/m"]),
    (["b/x"], "router/b/x", ["router/b/x"]), (["b/x"], "b/x", ["router/b/x"]),
    # One that is an alias is that, also where a model has the same short name.
    (["n"], "n", ["b/large-1"]), (["n"], "mock/n", []), (["n"], "b/large-1", []), (["n"], "auto", []),
])  # fmt: skip
def test_names_that_are_others_short_names(models, name, expected):
    assert allowed(models, name, catalog=NESTED) == expected


pieces = st.sampled_from([*"mock/*?[]!-", "mock/", "all", "b/", "large", "1"])


@given(st.text() | st.lists(pieces, max_size=6).map("".join))
def test_any_entry_is_held_against_the_models(entry):
    members = tuple(CATALOG.deployments.values())
    by_hand = tuple(
        member for member in members
        if (entry in (member.id, member.short) or fnmatchcase(member.id, entry))
        and CATALOG.means(entry) not in ("alias", "auto")
    )  # fmt: skip
    assert keys.ready_grant(CATALOG, models=(entry,)).allowed("a/name", members) == by_hand


def test_a_table_made_anew_has_forgotten_its_pools():
    table = table_of(key_of(models=("mock/*",)))
    credentials = [(b"x-api-key", SECRET)]
    before, after = table.grant_of(credentials), table.again().grant_of(credentials)
    assert before is not None and after is not None and before is not after
    assert before.resolve(CATALOG, "all", "chat", None) is not after.resolve(CATALOG, "all", "chat", None)
    assert len(table.again()) == 1
    nobody = KeyTable((), None, is_open=True)
    assert nobody.again().is_open and nobody.grant_of([(b"x-api-key", b"sk-own")]) is None


def test_a_grant_goes_by_the_catalog_it_is_asked_with():
    grant = grant_of(models=("b/*",))
    first = grant.resolve(CATALOG, "all", "chat", None)
    other = Catalog(parse(MODELS.replace('"b/large-1", "b/large-2"]', '"b/large-1"]')), {}, 0)
    found = grant.resolve(other, "all", "chat", None)
    assert [member.id for member in found.members] == ["b/m", "b/large-1"]
    assert found.members[0] is other.deployments["b/m"]
    assert grant.resolve(CATALOG, "all", "chat", None).members == first.members


def test_what_a_change_of_one_key_leaves_of_the_others():
    one, two = key_of(), key_of("key_2", OTHER)
    accounts = keys.accounts_of()
    before = KeyTable([(one, 0), (two, 1)], accounts, is_open=False)
    changed = key_of("key_2", OTHER, rpm=5)
    after = KeyTable([(one, 0), (changed, 1)], accounts, is_open=False, before=before)
    assert granted(after, SECRET) is granted(before, SECRET)
    grant = granted(after, OTHER)
    assert grant is not None and grant.key is changed
    gone = KeyTable([(changed, 1)], accounts, is_open=False, before=after)
    with pytest.raises(Unauthorized):
        granted(gone, SECRET)


# ---------------------------------------------------------------------- through sockets


def text(provider, more: str = "") -> str:
    return keys.CONFIG.format(url=provider.url, more=more)


def check_unauthorized(answer: tuple[int, dict[bytes, bytes], bytes], code: str = "invalid_api_key") -> str:
    return keys.check_error(answer, 401, "authentication_error", code)


async def get(server, path: bytes, extra: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    client = await RawClient.connect(server)
    await client.send(b"GET %b HTTP/1.1\r\nHost: g\r\n%b\r\n" % (path, extra))
    return await client.response()


async def test_no_key_is_needed_until_there_is_one(provider, start):
    server, client = await opened(start, provider)
    assert (await ask(client))[0] == 200
    assert (await ask(client, b"sk-anything"))[0] == 200
    id, secret = await make(server)
    # At once, on a connection that is open, with a head it has seen.
    check_unauthorized(await ask(client))
    assert (await ask(client, secret))[0] == 200
    check_unauthorized(await ask(client, b"sk-anything"))
    # A key that was revoked is a key that was made: nobody is let in by revoking the last.
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    for one in (b"", secret):
        check_unauthorized(await ask(client, one))


@pytest.mark.parametrize("more", ['[server]\nlisten = ["0.0.0.0:0"]', "[auth]\nrequired = true"])
async def test_needed_from_the_start_on_a_public_listener(provider, start, more):
    server = await start(text(provider).replace("[providers.mock]", f"{more}\n[providers.mock]"))
    client = await RawClient.connect(server)
    check_unauthorized(await ask(client))
    _, secret = await make(server)
    assert (await ask(client, secret))[0] == 200


async def test_not_required(provider, start):
    server, client = await opened(start, provider, "[auth]\nrequired = false")
    _, secret = await make(server, models="mock/m", rpm=1)
    for _ in range(3):
        assert (await ask(client))[0] == 200
    assert (await ask(client, b"sk-anything"))[0] == 200
    for unknown in (OTHER, OTHER[:-1], b"th-"):
        check_unauthorized(await ask(client, unknown))
    assert (await ask(client, secret))[0] == 200  # but one that is known counts, with its limits
    assert (await ask(client, secret))[0] == 429
    _, other = await make(server, models="mock/m", name="other")
    assert (await ask(client, other, b'{"model":"mock/n"}'))[0] == 403


async def test_probes_need_no_key_and_models_do(provider, start):
    server = await start(text(provider))
    _, secret = await make(server)
    for path in (b"/healthz", b"/readyz"):
        assert (await get(server, path))[0] == 200
        assert (await get(server, path, bearer(OTHER)))[0] == 200
    for path in (b"/v1/models", b"/models", b"/v1/models/mock/m", b"/v1/models/none"):
        check_unauthorized(await get(server, path))
    assert (await get(server, b"/v1/models", bearer(secret)))[0] == 200
    assert (await get(server, b"/v1/models", b"x-api-key: %b\r\n" % secret))[0] == 200


TWO = '[aliases]\nboth = ["mock/m", "mock/n"]\nonly-n = ["mock/n"]'


async def test_models_are_those_of_the_key(provider, start):
    server = await start(text(provider, TWO))

    async def listed(**settings: object) -> list[str]:
        _, secret = await make(server, name=str(settings), **settings)
        status, _, body = await get(server, b"/v1/models", bearer(secret))
        assert status == 200
        return [row["id"] for row in json.loads(body)["data"]]

    assert await listed() == ["mock/m", "mock/n", "both", "only-n"]
    assert await listed(models=["mock/m"]) == ["mock/m", "both"]
    assert await listed(models=["only-n"]) == ["only-n"]
    assert await listed(models=["nothing/*"]) == []
    _, secret = await make(server, models=["mock/m"])
    assert (await get(server, b"/v1/models/mock/m", bearer(secret)))[0] == 200
    answer = await get(server, b"/v1/models/mock/n", bearer(secret))
    keys.check_error(answer, 404, "not_found_error", "model_not_found", "model")


async def test_the_list_binds_every_way_to_a_model(provider, start):
    server, client = await opened(start, provider, TWO)
    _, secret = await make(server, models=["mock/m"])
    for body in (b'{"model":"mock/n"}', b'{"model":"n"}', b'{"model":"only-n"}'):
        answer = await ask(client, secret, body)
        message = keys.check_error(answer, 403, "permission_error", "model_not_allowed", "model")
        assert message.endswith("It may use: mock/m.")
    for body in (b'{"model":"both"}', b'{"model":"auto"}', b'{"model":"m"}', BODY):
        for _ in range(4):
            status, fields, _ = await ask(client, secret, body)
            assert (status, fields[b"x-inferoute-model"]) == (200, b"mock/m")
    answer = await ask(client, secret, extra=b"X-Inferoute-Fallback: mock/n\r\n")
    keys.check_error(answer, 403, "permission_error", "model_not_allowed", "X-Inferoute-Fallback")
    status, fields, _ = await ask(client, secret, b"{}", b"X-Inferoute-Strategy: cost\r\n")
    assert (status, fields[b"x-inferoute-model"]) == (200, b"mock/m")
    answer = await ask(client, secret, b'{"model":"none"}')
    keys.check_error(answer, 404, "not_found_error", "model_not_found", "model")


async def test_a_change_holds_for_the_next_request(provider, start):
    server, client = await opened(start, provider)
    id, secret = await make(server, models=["mock/m"])
    assert (await ask(client, secret))[0] == 200
    assert (await admin(server, "PATCH", f"/keys/{id}", {"models": ["mock/n"]}))[0] == 200
    assert (await ask(client, secret))[0] == 403
    assert (await admin(server, "PATCH", f"/keys/{id}", {"models": None}))[0] == 200
    await server._control.keys._store(change_key, id, {"expires": 5}, 0.0)  # its time has come
    check_unauthorized(await ask(client, secret), "expired_api_key")
    check_unauthorized(await get(server, b"/v1/models", bearer(secret)), "expired_api_key")
    assert (await admin(server, "PATCH", f"/keys/{id}", {"expires": "1h"}))[0] == 200
    assert (await ask(client, secret))[0] == 200
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    check_unauthorized(await ask(client, secret))


async def test_passthrough_with_a_key(provider, start):
    provider.script = answers(b'{"error":"theirs"}', b"401 No")
    server = await start(text(provider).replace('auth = "none"', 'auth = "passthrough"'))
    _, secret = await make(server)
    client = await RawClient.connect(server)
    own = b"Authorization: Bearer sk-of-the-client\r\n"
    check_unauthorized(await ask(client, extra=own))
    assert provider.seen == []
    for ours in (b"X-TokenHub-Key: %b\r\n", b"api-key: %b\r\n", b"x-tokenhub-key: %b\r\napi-key: %b\r\n"):
        answer = await ask(client, extra=own + ours.replace(b"%b", secret))
        assert (answer[0], answer[2]) == (401, b'{"error":"theirs"}')  # it is the client's own key
        head = provider.seen[-1][0]
        assert b"authorization: Bearer sk-of-the-client\r\n" in head
        assert secret not in head and b"tokenhub" not in head.lower()
    await ask(client, secret)  # a key of ours where the client's own should be: it goes nowhere
    assert secret not in provider.seen[-1][0] and b"authorization" not in provider.seen[-1][0].lower()


async def test_a_rotation_holds_for_the_next_request_and_keeps_what_was_used(provider, start):
    server, client = await opened(start, provider)
    id, first = await make(server, rpm=5)
    for _ in range(2):  # the second time its head is recalled
        assert (await ask(client, first))[0] == 200

    async def rotate(**given: object) -> bytes:
        status, row = await admin(server, "POST", f"/keys/{id}/rotate", given)
        assert (status, row["id"], row["limits"]["rpm"]) == (200, id, 5)
        return row["key"].encode()

    second = await rotate()
    assert (await ask(client, first))[0] == 200
    _, fields, _ = await ask(client, second)
    assert fields[b"x-ratelimit-remaining-requests"] == b"1"
    third = await rotate(overlap="1h")
    check_unauthorized(await ask(client, first))
    assert (await ask(client, second))[0] == 200
    assert (await ask(client, third))[0] == 429  # one account, whichever secret
    fourth = await rotate(overlap=0)
    for path in (b"/v1/models", b"/v1/chat/completions"):
        for secret, said in ((second, "does not know"), (third, "was replaced")):
            asked = get(server, path, bearer(secret)) if path == b"/v1/models" else ask(client, secret)
            answer = await asked
            assert said in check_unauthorized(answer)
    assert (await get(server, b"/v1/models", bearer(fourth)))[0] == 429  # it is known, and as used up
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    for secret in (third, fourth):
        check_unauthorized(await ask(client, secret))
