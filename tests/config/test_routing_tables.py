"""Mistakes in providers, models and aliases, each at its exact place."""

from __future__ import annotations

import pytest

from tests.support.config import M, P, check_mistake

# One « a mistake; the message of the (only) mistake contains the second part.
MISTAKES = [
    # names
    ("[[«provider]]", "unknown setting 'provider'; did you mean 'providers'?"),
    (P + "«api_key = 'x'", "unknown setting 'api_key'; did you mean 'api_key_env'?"),
    (M + "«prize = 1", "unknown setting 'prize'; known here"),
    (M + "«context_windw = 1", "did you mean 'context_window'?"),
    ("[aliases.a]\nmodels = ['gpt-4o']\n«strateg = 'cost'", "did you mean 'strategy'?"),
    # tables that are none
    ("providers.y = «'x'", "'y' must be a table [providers.y], not text"),
    ("models.'y/z' = «[1]", "'y/z' must be a table [models.\"y/z\"], not a list"),
    ("aliases = «1", "'aliases' must be a table, not a number"),
    (P + "headers = «'x'", "'headers' must be a table, not text"),
    # types
    (M + "input_price = «'2.50'", "'input_price' must be a number, not text"),
    (M + "input_price = «false", "'input_price' must be a number, not true or false"),
    # ranges
    (M + "weight = «0", "'weight' must be from 1 to 1000, not 0"),
    (M + "weight = «1001", "'weight' must be from 1 to 1000, not 1001"),
    (M + "context_window = «0", "'context_window' must be from 1"),
    (M + "max_output_tokens = «-5", "'max_output_tokens' must be from 1"),
    (M + "dimensions = «0", "'dimensions' must be from 1"),
    (M + "input_price = «-0.5", "'input_price' must not be negative"),
    (M + "cached_input_price = «-1", "'cached_input_price' must not be negative"),
    (M + "output_price = «inf", "'output_price' must be from 0 to 100000, not inf"),
    (M + "cache_write_price = «-1", "'cache_write_price' must not be negative"),
    (M + "reasoning_price = «'1'", "'reasoning_price' must be a number, not text"),
    (M + "audio_input_price = «inf", "'audio_input_price' must be from 0 to 100000, not inf"),
    (M + "audio_output_price = «true", "'audio_output_price' must be a number, not true or false"),
    # choices
    (P + "auth = «'basic'", "unknown auth 'basic'; Valid: bearer, x-api-key, api-key, none, passthrough"),
    (P + "compression = «'gzip'", "'compression' has an unknown mode 'gzip'; Valid: identity, pass"),
    (P + "endpoints = ['chat', «'embedding']", "unknown endpoint 'embedding'; did you mean 'embeddings'?"),
    (P + "endpoints = «[]", "'endpoints' must not be an empty list"),
    (M + "capabilities = [ # c\n 'chat',\n «'visions' ]", "capability 'visions'; did you mean 'vision'?"),
    ("[aliases]\na = { models = ['gpt-4o'], strategy = «'fast' }", "unknown strategy 'fast'"),
    ("[aliases]\na = { models = ['gpt-4o'], on_disconnect = «'stop' }", "Valid: cancel, drain"),
    # providers
    ("[providers.«x]\nauth = 'none'", "provider 'x' needs a base_url"),
    ("[providers.x]\nbase_url = «''", "'base_url' must not be empty"),
    ("[providers.x]\nbase_url = «'api.x.com/v1'", "starting with http:// or https://"),
    ("[providers.x]\nbase_url = «'ftp://x'", "starting with http:// or https://"),
    ("[providers.x]\nbase_url = «'https://'", "starting with http:// or https://"),
    ("[providers.x]\nbase_url = «'https://:443/v1'", "must be an address such as"),
    ("[providers.x]\nbase_url = «'https://x:99999'", "must be an address such as"),
    ("[providers.x]\nbase_url = «'https://x:0'", "must be an address such as"),
    ("[providers.x]\nbase_url = «'https://x:'", "must be an address such as"),
    ("[providers.x]\nbase_url = «'https://[::1'", "must be an address such as"),
    ("[providers.x]\nbase_url = «'https://1.2.3'", "has a wrong IPv4 address"),
    ("[providers.x]\nbase_url = «'https://x/v1?a=b'", "parameters belong into query"),
    ("[providers.x]\nbase_url = «'https://x/v1#'", 'must not contain "?" or "#"'),
    ("[providers.x]\nbase_url = «'https://u:geheim@x/v1'", "must not contain credentials"),
    ("[providers.x]\nbase_url = «'https://x /v1'", "must not contain white space"),
    ("[providers.x]\nbase_url = «'https://ü/v1'", "non-ASCII"),
    ('[providers.x]\nbase_url = «"https://x/\\r\\nHost: y"', "must not contain white space, control"),
    ("[providers.«'a/b']\nbase_url = 'http://x'", "provider 'a/b' must have a name of letters"),
    (P + "api_key_env = «'sk-geheim'", "'api_key_env' must name an environment variable"),
    (P + "api_key_env = 'A'\n«api_key_file = 'b'", "'api_key_file' and 'api_key_env' can't both be set"),
    (P + "«api_key_env = 'A'\nauth = 'none'", "'api_key_env' has no use with auth = \"none\""),
    (P + "«api_key_file = 'A'\nauth = 'passthrough'", 'has no use with auth = "passthrough"'),
    (P + "headers = { a = 'x', «\"b c\" = 'x' }", "must not set the header 'b c': that is not a header name"),
    (P + "headers = { «'' = 'x' }", "that is not a header name"),
    (P + "headers = { «Host = 'x' }", "must not set the header 'Host'"),
    (P + "headers = { a = «1 }", "'a' must be text in quotes, not a number"),
    (P + 'headers = { a = «"geheim\\nx" }', "'a' must not contain line breaks"),
    (P + 'headers = { a = «"geheim\\u0000x" }', "'a' must not contain a NUL character"),
    (P + 'headers = { a = «"geheim\\u0001" }', "'a' must not contain control characters"),
    (P + "headers = { a = «'geheim€' }", "beyond Latin-1"),
    (P + "headers = { x-a = '1', «X-A = '2' }", "the header 'X-A' is set twice"),
    (P + "[providers.x.headers]\na = 'x'\n«TE = 'x'", "must not set the header 'TE'"),
    (P + "query = { api-version = «1 }", "'api-version' must be text in quotes"),
    (P + "query = { «'' = 'x' }", "'query' must not be empty"),
    # models
    ("[models.«'gpt-4o']", "model 'gpt-4o' must be written as \"provider/name\""),
    ("[models.«'openai/']", 'must be written as "provider/name"'),
    ("[models.«'/x']", 'must be written as "provider/name"'),
    ("[models.«'opnai/x']", "unknown provider 'opnai'; did you mean 'openai'?"),
    ("[models.«'zzz/x']", "unknown provider 'zzz'; add [providers.zzz]"),
    ("[models]\n«'openai/a b' = {}", "model 'openai/a b' must have a name of 1 to 200 printable"),
    ("[models]\n«'openai/a,b' = {}", "without spaces and commas"),
    (M + "upstream = «''", "'upstream' must not be empty"),
    # aliases
    ("[aliases]\na = ['gpt-4o', «'gpt-4']", "unknown model 'gpt-4'; did you mean 'gpt-4o'?"),
    ("[aliases]\na = [«'openai/gpt4o']", "did you mean 'openai/gpt-4o'?"),
    ("[aliases]\nfast = ['gpt-4o']\nb = [«'fats']", "unknown model 'fats'; did you mean 'fast'?"),
    (
        "[aliases]\na = [«'zzzzzz']",
        "unknown model 'zzzzzz'; no model, alias or short name has this name",
    ),
    ("[aliases]\na = «'zzzzzz'", "unknown model 'zzzzzz'"),
    ("[aliases.a]\nmodels = [\n  'gpt-4o', # one\n  «'gpt-5o',\n]", "unknown model 'gpt-5o'"),
    ("[aliases]\na = «[]", "'a' must not be an empty list"),
    ("[aliases]\na = «3", "'a' must be a list, not a number"),
    ("[aliases]\na = ['gpt-4o', «3]", "'a' must be text in quotes, not a number"),
    (P + "pass_headers = «true", 'a list, not true or false; such as pass_headers = ["x-team", "x-app-*"]'),
    (P + "pass_headers = [«'x team']", 'the end; such as pass_headers = ["x-team", "x-app-*"]'),
    (P + "drop_headers = [«'x: a']", 'the end; such as drop_headers = ["user-agent"'),
    (P + "pass_query = [«'user=1']", 'and no "*"; such as pass_query = ["user", "filter[name]"]'),
    (P + "pass_query = [«1]", "must be text in quotes, not a number; such as pass_query = "),
    ("[aliases]\n«a = {}", "alias 'a' needs 'models' or 'split'"),
    ("[aliases]\na = { models = «[] }", "'models' must not be an empty list"),
    ("[aliases]\n«auto = ['gpt-4o']", "alias 'auto' can't be called so"),
    ("[aliases]\n«'openai/gpt-4o' = ['gpt-4o-mini']", "has the id of a model"),
    ("[aliases]\n«'a b' = ['gpt-4o']", "alias 'a b' must have a name"),
    ("[aliases]\na = [«'a']", "alias cycle: a → a"),
    ("[aliases]\na = ['gpt-4o', «'b']\nb = ['c']\nc = ['gpt-4o', 'a']", "alias cycle: a → b → c → a"),
    ("[aliases]\nx = ['b']\nb = [«'c']\nc = ['b']", "alias cycle: b → c → b"),
    ("[aliases]\ngpt-4o = [«'gpt-4o']", "alias cycle: gpt-4o → gpt-4o"),
    (
        "[aliases]\na = { models = ['gpt-4o'], fallback = ['auto', «'gpt-5'] }",
        "'fallback' names an unknown model",
    ),
    ("[aliases]\na = { models = ['gpt-4o'], fallback = [«'a'] }", "fallback cycle: a → a; take one"),
    (
        "[aliases]\na = { models = ['gpt-4o'], fallback = ['embed', «'b'] }\n"
        "b = { models = ['gpt-4o'], fallback = ['c'] }\nc = { models = ['gpt-4o'], fallback = ['a'] }",
        "fallback cycle: a → b → c → a",
    ),
    (
        "[aliases]\nb = { models = ['gpt-4o'], fallback = ['1','2','3','4','5'] }\n"
        + "".join(f"{n} = ['gpt-4o']\n" for n in range(1, 9))
        + "a = { models = ['gpt-4o'], «fallback = ['b','6','7','8'] }",
        "'fallback' leads to 9 names",
    ),
    ("[aliases]\na = ['gpt-4o', «'embed']", "embedding and chat models ('gpt-4o' and 'embed')"),
    ("[aliases]\ne = ['embed']\na = ['gpt-4o', «'e']", "alias 'a' mixes embedding and chat models"),
    ("[aliases]\na = ['embed', «'gpt-4o']\nb = ['a', 'gpt-4o']", "alias 'a' mixes"),  # told once
    ("[aliases.a.split]\n'openai/gpt-4o' = 1\n'openai/embed' = «1", "alias 'a' mixes"),
    ("[aliases.a.split]\n'openai/gpt-4o' = «0", "'openai/gpt-4o' must be from 1 to 1000000, not 0"),
    ("[aliases.a.split]\n'openai/gpt-4o' = «0.5", "must be a whole number, not 0.5"),
    ("[aliases.a.split]\ngpt-4o = 1\n«'openai/gpt-5o' = 1", "unknown model 'openai/gpt-5o'"),
    ("[aliases]\nb = ['gpt-4o']\n[aliases.a.split]\ngpt-4o = 1\n«b = 1", "'b' is an alias; a split"),
    ("[aliases]\na = { split = { gpt-4o = 1 }, sticky = «'header:Cookie' }", "can't go by 'Cookie'"),
    ("[aliases]\na = { split = { gpt-4o = 1 }, sticky = «'header:x-forwarded-for' }", "can't go by"),
    ("[aliases]\na = { models = ['gpt-4o'], sticky = «'key' }", "'sticky' keeps callers on one side of a"),
    ("[aliases]\na = { models = ['gpt-4o'], sticky = «'user' }", 'must be "key" or "header:NAME"'),
    ("[aliases]\na = { models = ['gpt-4o'], sticky = «'header:a b' }", 'must be "key" or "header:NAME"'),
    ("[aliases]\na = { models = ['gpt-4o'], sticky = «'x-user' }", 'must be "key" or "header:NAME"'),
    ("[aliases]\na = { models = ['gpt-4o'], hedge = «'p99' }", "'hedge' must be a duration"),
    ("[aliases]\na = { models = ['gpt-4o'], hedge = «'0s' }", "'hedge' must be longer than zero"),
    ("[aliases]\na = { models = ['gpt-4o'], keepalive = «15 }", 'needs a unit and quotes: "15s"'),
    ("[aliases]\na = { models = ['gpt-4o'], peek = «'yes' }", "'peek' must be true or false"),
]


@pytest.mark.parametrize(("case", "message"), MISTAKES, ids=[case[-40:] for case, _ in MISTAKES])
def test_mistake_and_its_place(case: str, message: str) -> None:
    check_mistake(case, message)
