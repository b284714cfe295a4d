"""The defaults are those of the contract, section 8."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.config.parse import parse, without_effect

# Every default written out.
DEFAULTS = """
[server]
listen = ["127.0.0.1:8080"]
socket_mode = "0660"
workers = 1
max_body = "64MiB"
max_connections = 10_000
lame_duck = "0s"
drain_timeout = "30s"
cors_origins = []
tls_cert = ""
tls_key = ""
server_timing = false
[admin]
listen = "127.0.0.1:8081"
token_env = ""
[state]
path = "tokenhub.db"
redis_url = ""
[routing]
strategy = "latency"
failover = true
max_attempts = 3
replay_limit = "16MiB"
half_life = "30s"
retry_budget = 0.2
keepalive = "0s"
deadline = "0s"
peek = true
hedge = "auto"
fail_on = [
  "5xx", "3xx", 401, 402, 403, 404, 405, 408, 410, 429, "context_length_exceeded", "model_not_found",
  "api_key_invalid",
]
[routing.eject]
consecutive_failures = 5
error_rate = 0.5
base = "10s"
max = "300s"
[timeouts]
connect = "5s"
first_byte = "60s"
first_token = "0s"
idle = "120s"
total = "600s"
client_head = "10s"
client_body = "30s"
client_write = "120s"
keep_alive = "75s"
[alerts]
webhook_url = ""
[traces]
enabled = false
endpoint = ""
[simulator]
mode = "never"
seed = 0
[providers.openai]
base_url = "https://api.openai.com/v1"
api_key_env = ""
api_key_file = ""
auth = "bearer"
headers = {}
query = {}
ca_file = ""
case_insensitive_keys = false
endpoints = ["chat", "completions", "embeddings"]
request_stream_usage = false
compression = "identity"
stream_end = "strict"
[models."openai/gpt-4o"]
upstream = "gpt-4o"
capabilities = ["chat"]
weight = 1
[aliases]
a = { models = ["gpt-4o"], on_disconnect = "cancel" }
"""
SHORT = """
[providers.openai]
base_url = "https://api.openai.com/v1"
[models."openai/gpt-4o"]
[aliases]
a = ["gpt-4o"]
"""


def test_defaults_are_the_contracts() -> None:
    long, short = parse(DEFAULTS), parse(SHORT)
    assert short.aliases["a"].on_disconnect is None
    assert short.auth.required is None
    alias = dataclasses.replace(long.aliases["a"], on_disconnect=None)
    assert dataclasses.replace(long, aliases={"a": alias}) == short
    assert without_effect(DEFAULTS) == ()


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(SHORT).server.workers = 3  # type: ignore[misc]
