"""Reads the tables of routes.toml about the service itself, one function each, named as its table is."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.config import values
from proxy.config.settings import (
    ENDPOINTS,
    FORMER_LOGGERS,
    LOG_FORMATS,
    LOG_LEVELS,
    LOGGERS,
    STRATEGIES,
    AdminConfig,
    AlertsConfig,
    AuthConfig,
    EjectConfig,
    Listen,
    LogConfig,
    RoutingConfig,
    ServerConfig,
    SimulatorConfig,
    StateConfig,
    TimeoutsConfig,
    TracesConfig,
)
from proxy.config.tables import Table
from proxy.config.toml_positions import Path


def _listen(value: object) -> Listen:
    return Listen(*values.listen(value))


def _listen_or_off(value: object) -> Listen | None:
    return None if value == "" else _listen(value)


def check_listeners(server: Table, admin: Table, admin_listen: Listen | None) -> None:
    """Two listeners can't have one address. Port 0 never collides: the system picks another each time.

    Every address that can be read counts, so that a mistake in one hides none in another.
    """
    listeners: list[tuple[Listen, Path]] = []
    given = server.content.get("listen", ["127.0.0.1:8080"])
    for index, written in enumerate(given if isinstance(given, list) else [given]):
        try:
            listeners.append((_listen(written), server.at("listen", index)))
        except ValueError:
            continue  # noted when it was taken
    # The mistake is shown at the later one, which has to be one that stands in the file.
    if admin_listen is not None:
        listeners.insert(len(listeners) if "listen" in admin else 0, (admin_listen, admin.at("listen")))
    seen: set[Listen] = set()
    for address, at in listeners:
        if address in seen:
            host = f"[{address.host}]" if ":" in address.host else address.host
            written = f"unix:{address.path}" if address.path else f"{host}:{address.port}"
            server.notes.wrong(at, f"'{written}' is used twice ([server] and [admin] share their addresses)")
        elif address.port or address.path:
            seen.add(address)


def server(table: Table) -> ServerConfig:
    default = ServerConfig()
    config = ServerConfig(
        listen=table.take_list("listen", default.listen, _listen),
        socket_mode=table.take("socket_mode", default.socket_mode, values.octal_mode),
        workers=table.take("workers", default.workers, values.whole(0, 1024)),
        max_body_bytes=table.take("max_body", default.max_body_bytes, values.positive_size),
        max_buffered_bytes=table.take("max_buffered", default.max_buffered_bytes, values.size),
        max_connections=table.take("max_connections", default.max_connections, values.whole(1, 1_000_000)),
        max_connections_per_client=table.take(
            "max_connections_per_client", default.max_connections_per_client, values.whole(0, 1_000_000)
        ),
        shed_after_s=table.take("shed_after", default.shed_after_s, values.seconds),
        lame_duck_s=table.take("lame_duck", default.lame_duck_s, values.seconds),
        drain_timeout_s=table.take("drain_timeout", default.drain_timeout_s, values.seconds),
        cors_origins=table.take_list("cors_origins", (), values.origin, may_be_empty=True),
        tls_cert=table.take("tls_cert", "", values.text),
        tls_key=table.take("tls_key", "", values.text),
        server_timing=table.take("server_timing", False, values.flag),
    )
    if bool(config.tls_cert) != bool(config.tls_key):
        given, missing = ("tls_cert", "tls_key") if config.tls_cert else ("tls_key", "tls_cert")
        table.notes.wrong(table.at(given), f"'{given}' needs '{missing}' beside it", at_key=True)
    table.done()
    return config


def admin(table: Table) -> AdminConfig:
    config = AdminConfig(
        listen=table.take("listen", AdminConfig().listen, _listen_or_off),
        token_env=table.take("token_env", "", values.env_name),
    )
    listen = config.listen
    public = listen is not None and not listen.path and not values.is_loopback(listen.host)
    if public and not table.content.get("token_env"):
        message = "an admin address that other machines can reach needs 'token_env'"
        table.notes.wrong(table.at("listen"), message)
    table.done()
    return config


def auth(table: Table) -> AuthConfig:
    config = AuthConfig(required=table.take("required", None, values.flag))
    table.done()
    return config


def state(table: Table) -> StateConfig:
    config = StateConfig(
        path=table.take("path", StateConfig().path, values.filled),
        ledger_keep_bytes=table.take("ledger_keep", StateConfig().ledger_keep_bytes, values.size),
        redis_url=table.take("redis_url", "", values.url(("redis", "rediss", "unix"))),
    )
    table.done()
    return config


def routing(table: Table) -> RoutingConfig:
    default = RoutingConfig()
    config = RoutingConfig(
        strategy=table.take("strategy", default.strategy, values.choice(STRATEGIES, "strategy")),
        failover=table.take("failover", default.failover, values.flag),
        max_attempts=table.take("max_attempts", default.max_attempts, values.whole(1, 100)),
        retry_same=table.take("retry_same", default.retry_same, values.whole(0, 10)),
        replay_limit_bytes=table.take("replay_limit", default.replay_limit_bytes, values.size),
        half_life_s=table.take("half_life", default.half_life_s, values.positive_seconds),
        retry_budget=table.take("retry_budget", default.retry_budget, values.number(0, 1)),
        keepalive_s=table.take("keepalive", default.keepalive_s, values.seconds),
        peek=table.take("peek", default.peek, values.flag),
        hedge=table.take("hedge", default.hedge, values.hedge),
        fail_on=table.take_list("fail_on", default.fail_on, values.fail_on, may_be_empty=True),
        deadline_s=table.take("deadline", default.deadline_s, values.seconds),
        default_models=table.take_pairs(
            "default_models", values.choice(ENDPOINTS, "endpoint"), values.filled
        ),
        eject=_eject(table.table("eject")),
    )
    table.done()
    return config


def _eject(table: Table) -> EjectConfig:
    default = EjectConfig()
    config = EjectConfig(
        consecutive_failures=table.take(
            "consecutive_failures", default.consecutive_failures, values.whole(1, 1000)
        ),
        error_rate=table.take("error_rate", default.error_rate, values.number(0, 1, above=True)),
        base_s=table.take("base", default.base_s, values.positive_seconds),
        max_s=table.take("max", default.max_s, values.positive_seconds),
    )
    if config.max_s < config.base_s:
        at = table.at("max" if "max" in table else "base")
        table.notes.wrong(at, f"'max' ({config.max_s:g}s) must not be below 'base' ({config.base_s:g}s)")
    table.done()
    return config


def timeouts(table: Table) -> TimeoutsConfig:
    default = TimeoutsConfig()

    def take(key: str, default_s: float) -> float:
        return table.take(key, default_s, values.positive_seconds)

    config = TimeoutsConfig(
        connect_s=take("connect", default.connect_s),
        first_byte_s=take("first_byte", default.first_byte_s),
        first_token_s=table.take("first_token", default.first_token_s, values.first_token),
        idle_s=take("idle", default.idle_s),
        total_s=take("total", default.total_s),
        client_head_s=take("client_head", default.client_head_s),
        client_body_s=take("client_body", default.client_body_s),
        client_write_s=take("client_write", default.client_write_s),
        keep_alive_s=take("keep_alive", default.keep_alive_s),
    )
    table.done()
    return config


def alerts(table: Table) -> AlertsConfig:
    config = AlertsConfig(webhook_url=table.take("webhook_url", "", values.url(("http", "https"))))
    table.done()
    return config


def traces(table: Table) -> TracesConfig:
    config = TracesConfig(
        enabled=table.take("enabled", False, values.flag),
        endpoint=table.take("endpoint", "", values.url(("http", "https"))),
        sample=table.take("sample", None, values.number(0, 1)),
    )
    table.done()
    return config


def log(table: Table) -> LogConfig:
    default = LogConfig()
    level = values.choice(LOG_LEVELS, "level")

    def level_of_one(value: object) -> str:
        if isinstance(value, dict):  # tokenhub.keys = … is a table in a table
            raise ValueError('needs quotes around the whole name: levels = { "tokenhub.keys" = "debug" }')
        return level(value)

    logger = values.choice(LOGGERS, "logger", FORMER_LOGGERS)
    config = LogConfig(
        format=table.take("format", default.format, values.choice(LOG_FORMATS, "format")),
        level=table.take("level", default.level, level),
        levels=_by_area(table.take_pairs("levels", logger, level_of_one)),
    )
    table.done()
    return config


def _by_area(levels: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Levels under the loggers' present names. Several former names may mean one area: the last of them
    counts, and the area's own name counts before all of them, wherever it stands."""
    former_first = sorted(levels, key=lambda pair: pair[0] not in FORMER_LOGGERS)
    return tuple({FORMER_LOGGERS.get(name, name): level for name, level in former_first}.items())


def simulator(table: Table) -> SimulatorConfig:
    default = SimulatorConfig()
    config = SimulatorConfig(
        mode=table.take("mode", default.mode, values.choice(("auto", "never", "always"), "mode")),
        seed=table.take("seed", default.seed, values.whole(0, 2**63 - 1)),
    )
    table.done()
    return config
