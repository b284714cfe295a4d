"""The tables about the service itself: mistakes, each at its exact place, and former names of loggers."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.config.settings import FORMER_LOGGERS, LOGGERS
from tests.support.config import BASE, check_mistake

# One « a mistake; the message of the (only) mistake contains the second part.
MISTAKES = [
    # names
    ("[server]\n«max_bodyy = 1", "unknown setting 'max_bodyy'; did you mean 'max_body'?"),
    ("[server]\n«Workers = 1", "did you mean 'workers'?"),
    ("[server]\n«zzz = 1", "unknown setting 'zzz'; known here: cors_origins, drain_timeout"),
    ("[«sever]\nworkers = 1", "unknown table 'sever'; did you mean 'server'?"),
    ("«x = 1", "unknown setting 'x'; known here: admin, alerts"),
    ("[server.«tls]\ncert = 'x'", "unknown table 'tls'; did you mean 'tls_key'?"),
    ("server = { workers = 1, «lame_duk = '1s' }", "unknown setting 'lame_duk'; did you mean 'lame_duck'?"),
    ("server.«worker = 1", "unknown setting 'worker'; did you mean 'workers'?"),
    ("[admin]\n«token = 'x'", "did you mean 'token_env'?"),
    ("[auth]\n«require = true", "did you mean 'required'?"),
    ("[state]\n«redis = ''", "did you mean 'redis_url'?"),
    ("[routing]\n«startegy = 'cost'", "did you mean 'strategy'?"),
    ("[routing.eject]\n«basis = '1s'", "did you mean 'base'?"),
    ("[timeouts]\n«conect = '1s'", "did you mean 'connect'?"),
    ("[alerts]\n«webhook = ''", "did you mean 'webhook_url'?"),
    ("[traces]\n«enable = true", "unknown setting 'enable'; did you mean 'enabled'?"),
    ("[«trace]\nenabled = true", "unknown table 'trace'; did you mean 'traces'?"),
    ("[simulator]\n«moode = 'auto'", "did you mean 'mode'?"),
    # tables that are none
    ("server = «3", "'server' must be a table, not a number"),
    ("[[«server]]", "'server' must be a table, not a list"),
    # types
    ("[server]\nworkers = «true", "'workers' must be a whole number, not true or false"),
    ("[server]\nworkers = «1.5", "'workers' must be a whole number, not 1.5"),
    ("[server]\nworkers = «'2'", "'workers' must be a whole number, not text"),
    ("[server]\nserver_timing = «1", "'server_timing' must be true or false (without quotes), not a number"),
    ("[auth]\nrequired = «'true'", "must be true or false (without quotes), not text"),
    ("[server]\ntls_cert = «1\n", "'tls_cert' must be text in quotes, not a number"),
    ("[state]\npath = «1979-05-27 07:32:00", "must be text in quotes, not a date or time"),
    ("[server]\nlisten = «1", "'listen' must be a list, not a number"),
    ("[server]\nlisten = ['127.0.0.1:1', «2]", "'listen' must be text in quotes, not a number"),
    ("[routing]\nretry_budget = «true", "'retry_budget' must be a number, not true or false"),
    # ranges
    ("[server]\nworkers = «-1", "'workers' must be from 0 to 1024, not -1"),
    ("[server]\nmax_connections = «0", "'max_connections' must be from 1 to 1000000, not 0"),
    (f"[server]\nmax_connections = «{'9' * 4000}", "not 99999999999999999999…"),
    (f"[server]\nmax_connections = «0x{'f' * 9000}", "must be from 1 to 1000000, not that"),
    ("[routing]\nmax_attempts = «0", "'max_attempts' must be from 1 to 100, not 0"),
    ("[routing]\nretry_budget = «1.5", "'retry_budget' must be from 0 to 1, not 1.5"),
    ("[routing]\nretry_budget = «nan", "'retry_budget' must be from 0 to 1, not nan"),
    ("[routing.eject]\nerror_rate = «0", "'error_rate' must be above 0 and at most 1, not 0"),
    ("[routing.eject]\nconsecutive_failures = «0", "must be from 1 to 1000"),
    ("[routing.eject]\nbase = '10m'\nmax = «'1m'", "'max' (60s) must not be below 'base' (600s)"),
    ("[routing.eject]\nbase = «'10m'", "'max' (300s) must not be below 'base' (600s)"),
    ("[simulator]\nseed = «-1", "'seed' must be from 0"),
    # durations and sizes
    ("[timeouts]\nconnect = «5", "'connect' needs a unit and quotes: \"5s\" (ms, s, m, h)"),
    ("[timeouts]\nidle = «0.5", "'idle' needs a unit and quotes: \"0.5s\""),
    ("[timeouts]\nidle = «true", "'idle' must be text in quotes, not true or false"),
    ("[timeouts]\nfirst_byte = «'60'", "'first_byte' must be a duration such as \"30s\""),
    ("[timeouts]\nfirst_byte = «'60 sec'", "must be a duration"),
    ("[timeouts]\nfirst_byte = «'1m30s'", "must be a duration"),
    ("[timeouts]\nfirst_byte = «'-1s'", "'first_byte' must not be negative"),
    ("[timeouts]\nfirst_byte = «'0s'", "'first_byte' must be longer than zero"),
    ("[timeouts]\nfirst_byte = «'25h'", "'first_byte' must be at most \"24h\""),
    ("[timeouts]\nfirst_byte = «'9S'", 'did you mean "9s"?'),
    ("[routing]\nhalf_life = «'0ms'", "'half_life' must be longer than zero"),
    ("[server]\nmax_body = «67108864", "'max_body' needs a unit and quotes: \"67108864MiB\" (KiB, MiB, GiB)"),
    ("[server]\nmax_body = «'64MB'", 'did you mean "64MiB"?'),
    ("[server]\nmax_body = «'64 kb'", 'did you mean "64KiB"?'),
    ("[server]\nmax_body = «'0MiB'", "'max_body' must be more than zero"),
    ("[server]\nmax_body = «'65GiB'", "'max_body' must be at most \"64GiB\""),
    ("[routing]\nreplay_limit = «'-1KiB'", "'replay_limit' must not be negative"),
    # choices
    ("[routing]\nstrategy = «'costs'", "unknown strategy 'costs'; did you mean 'cost'? Valid: cost"),
    (
        "[routing]\nstrategy = «'x'",
        "unknown strategy 'x'; Valid: cost, latency, throughput, availability, round-robin, order",
    ),
    ("[simulator]\nmode = «'on'", "'mode' has an unknown mode 'on'; Valid: auto, never, always"),
    # listeners
    ("[server]\nlisten = [«'8080']", 'must be "host:port" or "unix:/path"'),
    ("[server]\nlisten = [«':8080']", 'must be "host:port"'),
    ("[server]\nlisten = [«'127.0.0.1:65536']", "must end in a port from 0 (any free one) to 65535"),
    ("[server]\nlisten = [«'127.0.0.1:http']", "must end in a port"),
    ("[server]\nlisten = [«'127.0.0.256:1']", "has a wrong IPv4 address"),
    ("[server]\nlisten = [«'::1:8080']", "must have an IPv6 address in brackets"),
    ("[server]\nlisten = [«'[::g]:8080']", "not an IPv6 address"),
    ("[server]\nlisten = [«'a b:8080']", "has a wrong host name"),
    ("[server]\nlisten = [«'unix:run/x']", "whole path"),
    ("[server]\nlisten = [«'unix:']", "whole path"),
    (f"[server]\nlisten = [«'unix:/{'x' * 107}']", "over 107 bytes"),
    ("[server]\nlisten = «[]", "'listen' must not be an empty list"),
    ("[server]\nlisten = ['[::1]:1', 'a:1', «'[0::1]:1']", "'[::1]:1' is used twice"),
    ("[server]\nlisten = ['unix:/a', «'unix:/a']", "'unix:/a' is used twice"),
    ("[server]\nlisten = ['a:1', «'A:1']", "'a:1' is used twice"),
    ("[server]\nlisten = «'127.0.0.1:8081'", "'127.0.0.1:8081' is used twice ([server] and [admin]"),
    ("[admin]\nlisten = «'127.0.0.1:8080'", "'127.0.0.1:8080' is used twice"),
    ("[server]\nlisten = ['a:1']\n[admin]\ntoken_env = 'T'\nlisten = «'a:1'", "'a:1' is used twice"),
    ("[admin]\nlisten = «'0.0.0.0:8081'", "needs 'token_env'"),
    ("[admin]\nlisten = «'10.0.0.1:8081'\ntoken_env = ''", "needs 'token_env'"),
    ("[server]\nsocket_mode = «660", "'socket_mode' must be permissions as octal text such as \"0660\""),
    ("[server]\nsocket_mode = «'0990'", "octal text"),
    ("[server]\nsocket_mode = «'66'", "octal text"),
    ("[server]\n«tls_cert = 'c.pem'", "'tls_cert' needs 'tls_key' beside it"),
    ("[server]\n«tls_key = 'k.pem'", "'tls_key' needs 'tls_cert' beside it"),
    ("[server]\ncors_origins = [«'https://a/b']", "must be an origin without a path"),
    ("[server]\ncors_origins = [«'a.example']", '(or "*")'),
    # other addresses and names of variables
    ("[state]\npath = «''", "'path' must not be empty"),
    ("[state]\nredis_url = «'http://x'", "an address that starts with redis:// or rediss:// or unix://"),
    ("[alerts]\nwebhook_url = «'ftp://x'", "starts with http:// or https://"),
    ("[alerts]\nwebhook_url = «'http://[x'", "starts with http:// or https://"),
    ("[traces]\nendpoint = «'grpc://geheim:4317'", "starts with http:// or https://"),
    ("[traces]\nendpoint = «'127.0.0.1:4318'", "starts with http:// or https://"),
    ("[traces]\nenabled = «'yes'", "'enabled' must be true or false (without quotes), not text"),
    ("[traces]\nsample = «1.5", "'sample' must be from 0 to 1, not 1.5"),
    ("[alerts]\nwebhook_url = «'hooks.example.com/x'", "starts with http:// or https://"),
    ("[alerts]\nwebhook_url = «'https://:443/x'", "followed by a host"),
    ("[alerts]\nwebhook_url = «'https://h:99999/x'", "followed by a host"),
    ("[alerts]\nwebhook_url = «'https://h/a b'", "followed by a host"),
    ("[log]\nformat = «'xml'", "'format' has an unknown format 'xml'; Valid: auto, text, json"),
    ("[log]\nlevel = «'warn'", "'level' has an unknown level 'warn'; did you mean 'warning'?"),
    ("[log]\nlevel = «10", "'level' must be text in quotes, not a number"),
    ("[log]\n«levle = 'info'", "unknown setting 'levle'; did you mean 'level'?"),
    ("[log]\nlevels = «'info'", "'levels' must be a table, not text"),
    ("[log]\nlevels = { «'tokenhub.sever' = 'info' }", "did you mean 'tokenhub.server'?"),
    ("[log]\nlevels = { 'tokenhub.keys' = «'loud' }", "'tokenhub.keys' has an unknown level 'loud'"),
    ("[log]\nlevels = { «tokenhub.keys = 'info' }", "needs quotes around the whole name"),
    ("[alerts]\nwebhook_url = «7", "'webhook_url' must be text in quotes, not a number"),
    ("[admin]\ntoken_env = «'not a name'", "'token_env' must name an environment variable"),
]


@pytest.mark.parametrize(("case", "message"), MISTAKES, ids=[case[-40:] for case, _ in MISTAKES])
def test_mistake_and_its_place(case: str, message: str) -> None:
    check_mistake(case, message)


LEVELS = [
    ('"tokenhub.attempt" = "error"', {"tokenhub.provider": "error"}),
    ('"tokenhub.worker" = "error", aiohttp = "info"', {"tokenhub.workers": "error", "aiohttp": "info"}),
    # several former names of one area: the last
    ('"tokenhub.completions" = "debug", "tokenhub.exchange" = "error"', {"tokenhub.request": "error"}),
    ('"tokenhub.exchange" = "error", "tokenhub.completions" = "debug"', {"tokenhub.request": "debug"}),
    # the area's own name, wherever it stands
    ('"tokenhub.folding" = "debug", "tokenhub.ledger" = "error"', {"tokenhub.ledger": "error"}),
    ('"tokenhub.ledger" = "error", "tokenhub.folding" = "debug"', {"tokenhub.ledger": "error"}),
    ('"tokenhub" = "info", "tokenhub.hedge" = "debug"', {"tokenhub": "info", "tokenhub.routing": "debug"}),
]


@pytest.mark.parametrize(("levels", "meant"), LEVELS, ids=[levels for levels, _ in LEVELS])
def test_former_names_of_loggers_mean_the_areas(levels: str, meant: dict[str, str]) -> None:
    read = parse(f"[log]\nlevels = {{ {levels} }}\n" + BASE).log.levels
    assert (dict(read), len(read)) == (meant, len(meant))


def test_former_names_of_loggers_stand_for_present_ones() -> None:
    assert set(FORMER_LOGGERS.values()) <= set(LOGGERS)
    assert not FORMER_LOGGERS.keys() & set(LOGGERS)
