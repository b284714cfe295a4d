"""Whole configuration files: all mistakes at once, defaults as the contract has them, the shipped file."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.parse import parse, without_effect
from proxy.config.settings import AdminConfig, Config, Listen
from proxy.config.tables import ConfigError
from tests.support.config import BASE, P, marked, mistakes_of

SHIPPED = Path(__file__).parents[2] / "routes.toml"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("a = 1\nb = «x", "this is not a TOML value (text needs quotes)"),
        ("a «1", "a setting needs the form name = value"),
        ("a = [1,\n2«", "a list is not closed with ]"),
        ("a = { b = 1«", "a table is not closed with }"),
        ('a = "x«\nb = 1', "a text is not closed on its line"),
        ("[a]\n[a«]", "this table is already defined above"),
        ("a = 1\na = 2«", "this name is already set above"),
        ("a = 1 «2", "there is more on the line after the value"),
        ("a = 1\r\nb = «x", "not a TOML value"),
        ("a = 1\n«\x00", "not valid TOML: "),
        ("\ufeffa = «x", "not a TOML value"),
    ],
)
def test_syntax_mistake_comes_alone(case: str, message: str) -> None:
    text, [(line, column)] = marked(case)
    column -= text.startswith("\ufeff")  # which editors don't count as a column
    [found] = mistakes_of(text)
    assert (found.line, found.column) == (line, column), found
    assert found.message.startswith("not valid TOML: ")
    assert message in found.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "a number is too long"),
        ("", "no model is configured: add a provider and a model, for example [providers.openai]"),
        ("[models]", "no model is configured"),
        ("[providers.x]\nbase_url = 'http://x'", "no model is configured"),
    ],
)
def test_mistake_of_the_whole_file(text: str, message: str) -> None:
    [found] = mistakes_of(text)
    assert (found.line, found.column) == (1, 1)
    assert message in found.message


def test_all_mistakes_at_once_in_order() -> None:
    text, places = marked(
        """
[aliases]
a = [«"gpt-4", "gpt-4o", «"gpt-3"]
[server]
listen = [«"x", "127.0.0.1:8080", «"127.0.0.1:8080"]
workers = «true
[providers.«x]
headers = { «host = "1", b = «2 }
[models."openai/x"]
weight = «0
output_price = «-1
"""
    )
    with pytest.raises(ConfigError) as caught:
        parse(text + BASE, "some/file.toml")
    assert [(m.line, m.column) for m in caught.value.mistakes] == sorted(places)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(places)
    assert lines[0] == "some/file.toml:3:6: unknown model 'gpt-4'; did you mean 'gpt-4o'?"


def test_two_cycles_are_two_mistakes() -> None:
    found = mistakes_of('[aliases]\na = ["b"]\nb = ["a"]\nc = ["c"]\nd = ["a", "gpt-4o"]\n' + BASE)
    assert [m.message for m in found] == ["alias cycle: a → b → a", "alias cycle: c → c"]


def test_every_setting_arrives() -> None:
    parsed = parse(
        """
[server]
listen = ["[0::1]:0", "unix:/run/t.sock", "LocalHost:80"]
socket_mode = "600"
max_body = "1.5KiB"
lame_duck = "250ms"
drain_timeout = "2m"
[admin]
listen = "0.0.0.0:9000"
token_env = "T"
[state]
redis_url = "rediss://u:p@h:6379/0"
[routing]
strategy = "cost"
replay_limit = "0KiB"
half_life = "1h"
[providers.azure]
base_url = "HTTPS://Name.Example:8443/openai/v1/"
api_key_env = "AZURE_KEY"
auth = "api-key"
headers = { x-team = " search ", Authorization = "x" }
query = { api-version = "preview" }
endpoints = ["chat"]
[providers.local]
base_url = "http://[::1]"
[models."azure/meta/llama"]
upstream = "deployment-1"
context_window = 128_000
max_output_tokens = 16_384
input_price = 2.50
cached_input_price = 0
cache_write_price = 3.125
output_price = 10
reasoning_price = 12
audio_input_price = 40
audio_output_price = 80
capabilities = ["chat", "tools"]
weight = 3
[models."local/e"]
capabilities = ["embeddings"]
dimensions = 8
[aliases]
llama = "meta/llama"
b = { models = ["llama", "azure/meta/llama"], strategy = "cost", keepalive = "15s", hedge = "p95" }
c = { split = { "meta/llama" = 90, "azure/meta/llama" = 10 }, sticky = "header:x-user", hedge = "1s" }
"""
    )
    listeners = (Listen("::1", 0), Listen("", 0, "/run/t.sock"), Listen("localhost", 80))
    assert (parsed.server.listen, parsed.server.socket_mode) == (listeners, 0o600)
    assert parsed.server.max_body_bytes == 1536
    assert (parsed.server.lame_duck_s, parsed.server.drain_timeout_s) == (0.25, 120.0)
    assert parsed.admin == AdminConfig(Listen("0.0.0.0", 9000), "T")
    assert parsed.state.redis_url == "rediss://u:p@h:6379/0"
    assert (parsed.routing.replay_limit_bytes, parsed.routing.half_life_s) == (0, 3600.0)
    azure, local = parsed.providers["azure"], parsed.providers["local"]
    assert (azure.scheme, azure.host, azure.port) == ("https", "name.example", 8443)
    assert azure.base_path == "/openai/v1"
    assert azure.base_url == "HTTPS://Name.Example:8443/openai/v1"
    assert azure.headers == (("x-team", "search"), ("Authorization", "x"))
    assert (azure.query, azure.endpoints) == ((("api-version", "preview"),), {"chat"})
    assert (local.host, local.port, local.base_path) == ("::1", 80, "")
    model = parsed.models["azure/meta/llama"]
    assert (model.provider, model.upstream, model.weight) == ("azure", "deployment-1", 3)
    assert model.cached_input_price_usd_per_mtok == 0.0
    assert model.output_price_usd_per_mtok == 10.0
    assert (model.cache_write_price_usd_per_mtok, model.reasoning_price_usd_per_mtok) == (3.125, 12.0)
    assert (model.audio_input_price_usd_per_mtok, model.audio_output_price_usd_per_mtok) == (40.0, 80.0)
    assert parsed.models["local/e"].cache_write_price_usd_per_mtok is None
    assert parsed.models["local/e"].dimensions == 8
    assert parsed.models["local/e"].upstream == "e"
    assert parsed.aliases["llama"].models == ("meta/llama",)
    assert (parsed.aliases["b"].keepalive_s, parsed.aliases["b"].hedge) == (15.0, "p95")
    assert parsed.aliases["c"].models == ("meta/llama", "azure/meta/llama")  # from the split
    assert parsed.aliases["c"].split == (("meta/llama", 90), ("azure/meta/llama", 10))
    assert parsed.aliases["c"].hedge == 1.0


def test_aliases_may_name_aliases_and_hide_short_names() -> None:
    text = '[aliases]\na = ["b"]\nb = ["gpt-4o"]\ngpt-4o = ["openai/gpt-4o-mini"]\n"x/y" = ["a"]\n'
    parsed = parse(text + BASE)
    assert list(parsed.aliases) == ["a", "b", "gpt-4o", "x/y"]


def test_the_admin_listener_can_be_switched_off() -> None:
    text = '[server]\nlisten = ["127.0.0.1:0", "127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\n' + BASE
    assert len(parse(text).server.listen) == 2  # any free port may stand there again
    assert parse('[admin]\nlisten = ""\n' + BASE).admin.listen is None
    # Then its usual address is free for others.
    off = '[server]\nlisten = ["127.0.0.1:8081"]\n[admin]\nlisten = ""\n' + BASE
    assert parse(off).server.listen == (Listen("127.0.0.1", 8081),)


WITHOUT_EFFECT = [
    ("[state]\n«redis_url = 'redis://h'", "state.redis_url"),
    # these have effect
    ("[alerts]\nwebhook_url = 'https://x/y'", ""),
    ("[log]\nformat = 'json'\nlevel = 'debug'\nlevels = { 'tokenhub.keys' = 'error', aiohttp = 'info' }", ""),
    ("[server]\ntls_cert = 'a'\ntls_key = 'b'", ""),
    (P + "request_stream_usage = true", ""),
    (P + 'stream_end = "framing"', ""),
    ("[aliases.'a.b']\nmodels = ['gpt-4o']\non_disconnect = 'drain'", ""),
    ("[server]\nworkers = 0\n[state]\npath = ':memory:'", ""),
    ("[admin]\nlisten = '127.0.0.1:9'\ntoken_env = 'X'", ""),
    ("[server]\nlisten = 'a:1'\nsocket_mode = '0600'\nlame_duck = '1s'\ndrain_timeout = '1s'", ""),
    ("[routing]\nstrategy = 'cost'\nreplay_limit = '1KiB'\nhalf_life = '1s'\nkeepalive = '1s'", ""),
    ("[routing]\nfailover = false\nmax_attempts = 2\nretry_budget = 0\neject = { base = '1s' }", ""),
    ("[auth]\nrequired = false\n[simulator]\nmode = 'always'\nseed = 3\n[timeouts]\nconnect = '1s'", ""),
    ("[aliases.a]\nmodels = ['gpt-4o']\nstrategy = 'cost'\nkeepalive = '1s'", ""),
    ("[aliases.a]\nsplit = { gpt-4o = 1 }\nsticky = 'key'\npeek = true\nhedge = 'p95'", ""),
    # these are the defaults
    ("[server]\nworkers = 1\ncors_origins = []\n[routing.eject]\nbase = '10000ms'", ""),
]


@pytest.mark.parametrize(("case", "settings"), WITHOUT_EFFECT)
def test_settings_without_effect_are_named(case: str, settings: str) -> None:
    text, places = marked(case)
    found = without_effect(text + "\n" + BASE)
    assert [(m.line, m.column) for m in found] == places
    parse(text + "\n" + BASE)
    for note, setting in zip(found, settings.split(), strict=True):
        assert note.message.startswith(f"'{setting}")
        assert note.message.endswith("' has no effect yet")


def test_without_effect_reads_only_toml() -> None:
    with pytest.raises(ConfigError):
        without_effect("a = ")
    assert without_effect("[state]\nredis_url = 'redis://h'\nnonsense = 1") != ()


def test_shipped_file() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    parsed: Config = parse(text)
    assert without_effect(text) == ()
    assert parsed.simulator.mode == "auto"
    assert list(parsed.providers) == ["openai", "anthropic", "google", "mistral", "meta"]
    tiers = {name: set(alias.models) for name, alias in parsed.aliases.items()}
    assert tiers == {
        "premium": {"openai/gpt-4o", "anthropic/claude-3-5-sonnet"},
        "balanced": {"openai/gpt-4o-mini", "anthropic/claude-3-haiku"},
        "economy": {"openai/gpt-4o-mini", "anthropic/claude-3-haiku", "google/gemini-flash"},
        "long-context": {"anthropic/claude-3-5-sonnet", "google/gemini-1.5-pro"},
    }
    assert parsed.aliases["economy"].strategy == "cost"
    contexts = {
        128_000: ("openai/gpt-4o", "openai/gpt-4o-mini"),
        200_000: ("anthropic/claude-3-5-sonnet", "anthropic/claude-3-haiku"),
        1_048_576: ("google/gemini-flash", "google/gemini-1.5-pro"),
        8191: ("openai/text-embedding-3-small", "openai/text-embedding-3-large"),
    }
    for context, names in contexts.items():
        assert {parsed.models[name].context_window for name in names} == {context}
    assert parsed.models["openai/text-embedding-3-small"].dimensions == 1536
    assert parsed.models["openai/text-embedding-3-large"].dimensions == 3072
    assert {model.provider for model in parsed.models.values()} == set(parsed.providers)
    for model in parsed.models.values():
        assert model.input_price_usd_per_mtok is not None
        assert model.capabilities & (parsed.providers[model.provider].endpoints)


def test_shipped_defaults_in_comments_are_the_defaults() -> None:
    """Every "# name = value" before the providers, taken out of its comment, changes nothing."""
    text = SHIPPED.read_text(encoding="utf-8")
    head, rule, rest = text.partition("# --- providers")
    opened = "\n".join(
        line[2:] if line.startswith(("# [", "# ")) and (" = " in line or line.startswith("# [")) else line
        for line in head.splitlines()
        if '"# name = value"' not in line
    )
    assert "max_body" in opened
    assert parse(opened + "\n" + rule + rest) == parse(text)
