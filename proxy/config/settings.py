"""The settings of routes.toml as frozen values, with their defaults. :mod:`proxy.config` exports them.

Units stand last in the names: ``_s`` seconds, ``_bytes``, ``_usd_per_mtok`` dollars per million tokens.
What may hold a secret is left out of ``repr``, which ends up in logs and in the messages of exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.endpoints import ROWS

# The endpoints that settings name; the others are served with one of them.
ENDPOINTS = tuple(row.name for row in ROWS if not row.served_with)
SERVED_WITH = {row.name: row.served_with for row in ROWS if row.served_with}
ONE_MODEL_ENDPOINTS = frozenset(row.name for row in ROWS if row.is_one_model)
_ALSO_SERVED_BY = {row.name: row.also_served_by for row in ROWS if row.also_served_by}
STRATEGIES = ("cost", "latency", "throughput", "availability", "round-robin", "order")
CAPABILITIES = (*ENDPOINTS, "vision", "tools", "audio", "json", "reasoning")
LOG_FORMATS = ("auto", "text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
# Loggers are named by area, not by module; a name stands for those below it too.
LOGGERS = (
    "tokenhub",
    "tokenhub.admin",  # the admin API and the dashboard
    "tokenhub.alerts",  # what is sent to the webhook
    "tokenhub.client",  # connections of clients
    "tokenhub.config",  # routes.toml, and what is read beside it
    "tokenhub.dropped",  # headers and parameters of clients that providers don't get
    "tokenhub.keys",
    "tokenhub.ledger",
    "tokenhub.provider",  # failed attempts, refused keys, ejections
    "tokenhub.request",  # internal errors between a request and its response
    "tokenhub.routing",
    "tokenhub.server",  # start, overload, drain, the log itself
    "tokenhub.state",  # the database
    "tokenhub.tls",
    "tokenhub.traces",
    "tokenhub.workers",
    "aiohttp",
    "asyncio",
    "opentelemetry",
)
# Names that were modules' once; files that have them go on working.
FORMER_LOGGERS = {
    "tokenhub.attempt": "tokenhub.provider",
    "tokenhub.downstream": "tokenhub.client",
    "tokenhub.completions": "tokenhub.request",
    "tokenhub.exchange": "tokenhub.request",
    "tokenhub.folding": "tokenhub.ledger",
    "tokenhub.hedge": "tokenhub.routing",
    "tokenhub.live": "tokenhub.admin",
    "tokenhub.logs": "tokenhub.server",
    "tokenhub.outbox": "tokenhub.request",
    "tokenhub.reload": "tokenhub.config",
    "tokenhub.supervisor": "tokenhub.workers",
    "tokenhub.worker": "tokenhub.workers",
}
KEY_AUTHS = ("bearer", "x-api-key", "api-key")  # where the operator's key can go
AUTHS = (*KEY_AUTHS, "none", "passthrough")


@dataclass(frozen=True, slots=True)
class Listen:
    """One listening address: TCP (``host`` and ``port``) or a Unix socket (``path``)."""

    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    listen: tuple[Listen, ...] = (Listen("127.0.0.1", 8080),)
    socket_mode: int = 0o660
    workers: int = 1
    max_body_bytes: int = 64 << 20
    max_buffered_bytes: int = 0  # 0: by the memory that there is
    max_connections: int = 10_000
    max_connections_per_client: int = 0  # 0: no limit
    shed_after_s: float = 0.1  # 0: never
    lame_duck_s: float = 0.0
    drain_timeout_s: float = 30.0
    cors_origins: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    server_timing: bool = False


@dataclass(frozen=True, slots=True)
class AdminConfig:
    listen: Listen | None = Listen("127.0.0.1", 8081)  # None: switched off
    token_env: str = ""


@dataclass(frozen=True, slots=True)
class AuthConfig:
    required: bool | None = (
        None  # None: not written; needed unless only this machine can connect and no key exists
    )


@dataclass(frozen=True, slots=True)
class StateConfig:
    path: str = "tokenhub.db"
    ledger_keep_bytes: int = 1 << 30
    redis_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class UsageConfig:
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()  # names, each with the values that always count
    tag_values: int = 1000  # of a tag, that are told apart
    metric_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EjectConfig:
    consecutive_failures: int = 5
    error_rate: float = 0.5
    base_s: float = 10.0
    max_s: float = 300.0


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    strategy: str = "latency"
    failover: bool = True
    max_attempts: int = 3
    retry_same: int = 1
    replay_limit_bytes: int = 16 << 20
    half_life_s: float = 30.0
    retry_budget: float = 0.2
    keepalive_s: float = 0.0  # 0: off
    peek: bool = True
    hedge: str | float = "auto"  # or "off", "p95", seconds; of [routing] for streams only
    # Statuses, classes of them, and codes of errors.
    fail_on: tuple[str, ...] = (
        "5xx", "3xx", "401", "402", "403", "404", "405", "408", "410", "429", "context_length_exceeded",
        "model_not_found", "api_key_invalid",
    )  # fmt: skip
    deadline_s: float = 0.0  # 0: off
    default_models: tuple[tuple[str, str], ...] = ()  # endpoint, and the name that stands for none there
    eject: EjectConfig = EjectConfig()


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits of an alias, a model or a provider; None: as what is less particular says."""

    connect_s: float | None = None
    first_byte_s: float | None = None
    first_token_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None


NO_LIMITS = TimeLimits()
# A limit of ``first_token``: three times what 99 % of a member's responses took.
P99 = -1.0


@dataclass(frozen=True, slots=True)
class TimeoutsConfig:
    connect_s: float = 5.0
    first_byte_s: float = 60.0
    first_token_s: float = 0.0  # 0: off
    idle_s: float = 120.0
    total_s: float = 600.0
    client_head_s: float = 10.0
    client_body_s: float = 30.0
    client_write_s: float = 120.0
    keep_alive_s: float = 75.0


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    name: str
    base_url: str  # as written, without a trailing slash
    scheme: str  # "http" or "https"
    host: str  # without brackets
    port: int
    base_path: str  # "/v1"; "" for none
    api_key_env: str = ""
    api_key_file: str = ""
    auth: str = "bearer"  # bearer, x-api-key, api-key, none, passthrough
    auth_at: tuple[tuple[str, str], ...] = ()  # endpoints where it is another
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: str = ""
    pass_headers: tuple[str, ...] = ()  # of clients; "x-team-*" for a prefix
    drop_headers: tuple[str, ...] = ()
    pass_query: tuple[str, ...] = ()
    case_insensitive_keys: bool = False
    endpoints: frozenset[str] = frozenset({"chat", "completions", "embeddings"})
    request_stream_usage: bool = False
    compression: str = "identity"  # or "pass"
    output_limit_word: str = "max_tokens"  # at chat: or "max_completion_tokens"
    stream_end: str = "strict"  # or "framing"
    times: TimeLimits = NO_LIMITS

    def auth_of(self, endpoint: str) -> str:
        """The place of the key at an endpoint; one that is served with another goes with it, unless it is
        named itself."""
        ways = dict(self.auth_at)
        return ways.get(endpoint) or ways.get(SERVED_WITH.get(endpoint, endpoint), self.auth)

    @property
    def no_key(self) -> str:
        """The fault where the operator's key is missing, and the way out; the end of a sentence that
        the provider begins. Errors, traces, the log and explain have the same words."""
        return f"has no key: set {self.api_key_env or self.api_key_file or 'api_key_env'}"

    @property
    def needs_key(self) -> bool:
        """Some endpoint needs the operator's key."""
        return any(auth in KEY_AUTHS for auth in (self.auth, *dict(self.auth_at).values()))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    id: str
    provider: str
    upstream: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    input_price_usd_per_mtok: float | None = None
    cached_input_price_usd_per_mtok: float | None = None
    output_price_usd_per_mtok: float | None = None
    cache_write_price_usd_per_mtok: float | None = None  # None: as input
    reasoning_price_usd_per_mtok: float | None = None  # None: as output
    audio_input_price_usd_per_mtok: float | None = None  # None: as input
    audio_output_price_usd_per_mtok: float | None = None  # None: as output
    capabilities: frozenset[str] = frozenset({"chat"})
    dimensions: int | None = None
    weight: int = 1
    times: TimeLimits = NO_LIMITS


def served_endpoints(model: ModelConfig, provider: ProviderConfig) -> frozenset[str]:
    """The endpoints at which a model of a provider can be asked for."""
    return frozenset(
        endpoint
        for endpoint in provider.endpoints
        if endpoint in model.capabilities or _ALSO_SERVED_BY.get(endpoint) in model.capabilities
    )


@dataclass(frozen=True, slots=True)
class AliasConfig:
    name: str
    models: tuple[str, ...]  # ids, short names or other aliases, as written
    strategy: str | None = None
    split: tuple[tuple[str, int], ...] = ()
    sticky: str | None = None
    peek: bool | None = None  # None: as [routing]
    fail_on: tuple[str, ...] | None = None  # None: as [routing]
    hedge: str | float | None = None  # None: as [routing]
    max_first_token_s: float | None = None  # None: ten times the quickest member's, at least 10 s
    keepalive_s: float | None = None  # None: as [routing]
    on_disconnect: str | None = None
    fallback: tuple[str, ...] = ()  # names that are tried after the members
    deadline_s: float | None = None  # None: as [routing]; 0: off
    times: TimeLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class AlertsConfig:
    webhook_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class TracesConfig:
    enabled: bool = False
    # Of a collector; "": as OpenTelemetry's standard variables say.
    endpoint: str = field(default="", repr=False)
    sample: float | None = None  # None: as they say


@dataclass(frozen=True, slots=True)
class LogConfig:
    format: str = "auto"  # text at a terminal, else json
    level: str = "info"
    levels: tuple[tuple[str, str], ...] = ()  # of single loggers, by name


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    mode: str = "never"  # auto, never, always
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    server: ServerConfig
    admin: AdminConfig
    auth: AuthConfig
    state: StateConfig
    routing: RoutingConfig
    timeouts: TimeoutsConfig
    providers: dict[str, ProviderConfig]
    models: dict[str, ModelConfig]
    aliases: dict[str, AliasConfig]
    alerts: AlertsConfig
    traces: TracesConfig
    simulator: SimulatorConfig
    log: LogConfig = LogConfig()
    usage: UsageConfig = UsageConfig()
