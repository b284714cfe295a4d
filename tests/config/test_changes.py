"""What a new configuration changes, in words."""

from __future__ import annotations

import pytest

from proxy.config.changes import Changes, changed, effective, needs_restart
from proxy.config.parse import parse

TEXT = """
[server]
listen = ["127.0.0.1:1"]
[routing]
strategy = "latency"
[providers.a]
base_url = "http://a/v1"
[models."a/m"]
[models."a/n"]
[aliases]
x = ["a/m"]
"""
BEFORE = parse(TEXT)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "", []),
        ("\n", "\n# a comment\n", []),
        ('x = ["a/m"]', 'x = ["a/n"]', ["alias x changed"]),
        ('x = ["a/m"]', 'y = ["a/m"]', ["alias y added", "alias x removed"]),
        ('[models."a/n"]', '[models."a/o"]', ["model a/o added", "model a/n removed"]),
        ('[models."a/n"]', '[models."a/n"]\nweight = 2', ["model a/n changed"]),
        ("http://a/v1", "http://b/v1", ["provider a changed"]),
        ("latency", "cost", ["routing.strategy changed"]),
        ("[routing]", '[routing]\nhalf_life = "1s"', ["routing.half_life changed"]),
        ("[routing]", '[routing.eject]\nbase = "1s"\n[routing]', ["routing.eject.base changed"]),
        ("[server]", '[server]\nmax_body = "1MiB"', ["server.max_body changed"]),
        ("[server]", '[timeouts]\nidle = "1s"\n[server]', ["timeouts.idle changed"]),
        ("[server]", '[log]\nlevels = {"tokenhub.keys" = "debug"}\n[server]', ["log.levels changed"]),
        ("[server]", '[alerts]\nwebhook_url = "https://h/SECRET"\n[server]', ["alerts.webhook_url changed"]),
    ],
)
def test_what_is_in_effect_at_once(old, new, words):
    after = parse(TEXT.replace(old, new, 1))
    assert changed(BEFORE, effective(after, BEFORE)) == words
    assert needs_restart(after, BEFORE) == []


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("127.0.0.1:1", "127.0.0.1:2", "server.listen"),
        ("[server]", '[server]\nsocket_mode = "0600"', "server.socket_mode"),
        ("[server]", "[server]\nworkers = 4", "server.workers"),
        ("[server]", '[admin]\nlisten = ""\n[server]', "admin.listen"),
        ("[server]", '[admin]\ntoken_env = "T"\n[server]', "admin.token_env"),
        ("[server]", '[state]\npath = "x"\n[server]', "state.path"),
        ("[server]", "[traces]\nenabled = true\n[server]", "traces.enabled"),
        ("[server]", '[traces]\nendpoint = "http://c"\n[server]', "traces.endpoint"),
        ("[server]", "[traces]\nsample = 0.1\n[server]", "traces.sample"),
        ("[server]", "[simulator]\nseed = 2\n[server]", "simulator.seed"),
    ],
)
def test_what_waits_for_a_restart(old, new, name):
    after = parse(TEXT.replace(old, new, 1))
    assert needs_restart(after, BEFORE) == [name]
    assert changed(BEFORE, effective(after, BEFORE)) == []


def test_tls_waits_for_a_restart_and_other_files_for_it_do_not():
    plain = parse(TEXT)
    named = (TEXT.replace("[server]", f'[server]\ntls_cert = "{name}"\ntls_key = "k"') for name in "ab")
    one, other = map(parse, named)
    for before, after in ((plain, one), (one, plain)):
        assert needs_restart(after, before) == ["server.tls_cert", "server.tls_key"]
        assert changed(before, effective(after, before)) == []
    assert needs_restart(other, one) == []
    assert changed(one, effective(other, one)) == ["server.tls_cert changed"]


def test_nothing_is_nothing():
    assert not Changes([], [])
    assert Changes(["x"], [])
    assert Changes([], ["x"])
