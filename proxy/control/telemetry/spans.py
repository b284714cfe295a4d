"""The content of a request's spans, by OpenTelemetry's semantic conventions for generative AI and for HTTP;
``tokenhub.*`` where those have no name.

Tokens and dollars stand in the request's span only, so that a sum over all spans counts nothing twice. No
span has a prompt, a completion or a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from proxy import __version__
from proxy.deployments.record import RESET
from proxy.endpoints import OPERATIONS, OUTPUTS
from proxy.relay.exchange.detached_client import DetachedClient
from proxy.relay.exchange.exchange import CLIENT_LEFT
from proxy.relay.exchange.tracing import HEDGED, LEFT, Trace, Tried

if TYPE_CHECKING:
    from proxy.relay.exchange.exchange import Exchange
    from proxy.usage.tokens import Usage

Attributes = dict[str, str | bool | int | float]

_SCOPE = InstrumentationScope("tokenhub", __version__)
# What a client calls a model that there is may be of any length.
_MAX_NAME_CHARS = 200

# And of providers, by the host that is asked; others go by the operator's name for them.
_PROVIDERS = (
    ("*api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("*aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("*.openai.azure.com", "azure.ai.openai"),
    ("*.services.ai.azure.com", "azure.ai.inference"),
    ("bedrock*.amazonaws.com", "aws.bedrock"),
    ("*.ml.cloud.ibm.com", "ibm.watsonx.ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cohere.*", "cohere"),
    ("api.moonshot.*", "moonshot_ai"),
)


def spans_of(
    exchange: Exchange, trace: Trace, status: int, now: float, resource: Resource
) -> Iterator[ReadableSpan]:
    """The spans of a request that is over, its attempts first. Parameters: see
    :meth:`proxy.relay.exchange.tracing.Collector.take`."""
    offset_s = exchange.request.context.unix_offset_s
    parent = trace.parent
    state = "" if parent is None else parent.state
    above = None if parent is None else context_of(*parent, is_remote=True)
    own = context_of(trace.trace_id, trace.span_id, trace.flags, state)
    operation = OPERATIONS[exchange.request.endpoint]
    for number, tried in enumerate(trace.tried, 1):
        model = tried.attempt.deployment.model.upstream
        yield ReadableSpan(
            f"{operation} {model}",
            context_of(trace.trace_id, tried.span_id, trace.flags, state),
            own,
            resource,
            _of_attempt(exchange, tried, number, operation),
            kind=SpanKind.CLIENT,
            status=_status(_error_of(tried), tried.what),
            start_time=_unix_ns(tried.attempt.record.begun_at + offset_s),
            end_time=_unix_ns(tried.ended_at + offset_s),
            instrumentation_scope=_SCOPE,
        )
    last = _last(exchange, trace)
    cause = _cause_of(last, status)
    yield ReadableSpan(
        # Only a name that there is: those of the clients' own making would be names without number.
        operation if exchange.request.pool is None else f"{operation} {exchange.request.pool.name}",
        own,
        above,
        resource,
        _of_request(exchange, trace, last, status, operation),
        kind=SpanKind.SERVER,
        status=_status(cause, "" if last is None else last.what),
        start_time=_unix_ns(exchange.request.begun_at + offset_s),
        end_time=_unix_ns(now + offset_s),
        instrumentation_scope=_SCOPE,
    )


def context_of(
    trace_id: int, span_id: int, flags: int, state: str, *, is_remote: bool = False
) -> SpanContext:
    """A span as others refer to it."""
    states = TraceState.from_header([state]) if state else None
    return SpanContext(trace_id, span_id, is_remote, TraceFlags(flags), states)


@lru_cache(1024)
def provider_name(name: str, host: str) -> str:
    """The name of a provider in the conventions.

    :param name: what the operator calls it.
    """
    return next((known for hosts, known in _PROVIDERS if fnmatchcase(host.lower(), hosts)), name)


def _unix_ns(unix_s: float) -> int:
    return int(unix_s * 1e9)


def _status(error: str, what: str) -> Status:
    return Status(StatusCode.ERROR, what or None) if error else Status()


def _last(exchange: Exchange, trace: Trace) -> Tried | None:
    """The attempt that the request ended with; nobody was asked: None."""
    for tried in trace.tried:
        if tried.attempt is exchange.attempt:
            return tried
    return None


def _error_of(tried: Tried) -> str:
    """The ``error.type`` of an attempt; "" for none. A response of 400 and above is one, to who asked."""
    if tried.outcome:
        return "" if tried.outcome in (LEFT, HEDGED) else tried.outcome
    response = tried.attempt.response
    return str(response.head.status) if response is not None and response.head.status >= 400 else ""


def _cause_of(last: Tried | None, status: int) -> str:
    """The ``error.type`` of a request; "" for none. A client's mistake is no error of a server."""
    if status >= 500:
        return str(status)
    return RESET if last is not None and last.outcome == RESET else ""


def _of_attempt(exchange: Exchange, tried: Tried, number: int, operation: str) -> Attributes:
    attempt = tried.attempt
    deployment, asked = attempt.deployment, attempt.provider.config
    found: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider_name(deployment.provider.name, deployment.provider.host),
        "gen_ai.request.model": deployment.model.upstream,
        "server.address": asked.host,
        "server.port": asked.port,
        "tokenhub.attempt": number,
        "tokenhub.provider": deployment.provider.name,
        "tokenhub.model": deployment.id,
    }
    if attempt.response is not None:
        found["http.response.status_code"] = attempt.response.head.status
    if attempt.answered_at:
        _add_first_byte(found, attempt.answered_at - attempt.record.begun_at, exchange.request.streamed)
    if attempt.redialled:
        found["tokenhub.redialled"] = True
    if tried.outcome:
        found["tokenhub.outcome"] = tried.outcome
    if error := _error_of(tried):
        found["error.type"] = error
    return found


def _of_request(
    exchange: Exchange, trace: Trace, last: Tried | None, status: int, operation: str
) -> Attributes:
    found: Attributes = {
        "gen_ai.operation.name": operation,
        "http.request.method": "POST",
        "http.route": exchange.request.head.path.decode(),
        "tokenhub.request_id": exchange.request.request_id.decode(),
        "tokenhub.endpoint": exchange.request.endpoint,
        "tokenhub.attempts": len(trace.tried),
    }
    name = _model_asked(exchange)
    if name is not None:
        found["gen_ai.request.model"] = name
    if exchange.request.streamed:
        found["gen_ai.request.stream"] = True
    if exchange.request.endpoint in OUTPUTS:
        found["gen_ai.output.type"] = OUTPUTS[exchange.request.endpoint]
    if exchange.request.grant is not None:
        found["tokenhub.key"] = exchange.request.grant.name
    if status != CLIENT_LEFT:  # which nobody was answered
        found["http.response.status_code"] = status
    if exchange.request.sent_at:
        found["tokenhub.overhead_us"] = int((exchange.request.sent_at - exchange.request.settled_at) * 1e6)
    if exchange.chain is not None and exchange.chain.failures:
        found["tokenhub.failed_attempts"] = exchange.chain.story().decode()
    if cause := _cause_of(last, status):
        found["error.type"] = cause
    if last is not None:
        _add_answer(found, exchange, last)
    return found


def _model_asked(exchange: Exchange) -> str | None:
    if exchange.request.pool is not None:
        return exchange.request.pool.name
    found = exchange.request.body.found
    return None if found is None or found.name is None else found.name[:_MAX_NAME_CHARS]


def _add_answer(found: Attributes, exchange: Exchange, last: Tried) -> None:
    """Add the attributes of the last attempt and its response."""
    attempt = last.attempt
    deployment, response = attempt.deployment, attempt.response
    found["gen_ai.provider.name"] = provider_name(deployment.provider.name, deployment.provider.host)
    found["tokenhub.provider"] = deployment.provider.name
    found["tokenhub.model"] = deployment.id
    found["tokenhub.strategy"] = attempt.pool.strategy
    if attempt.provider.simulated:
        found["tokenhub.simulated"] = True
    if isinstance(exchange.client, DetachedClient) or last.outcome == LEFT:
        found["tokenhub.client_left"] = True
    if response is not None and response.head.status < 400:
        found["gen_ai.response.model"] = deployment.model.upstream
    if attempt.answered_at:
        _add_first_byte(found, attempt.answered_at - exchange.request.begun_at, exchange.request.streamed)
    usage, cost_nusd = attempt.charge
    if usage is not None:
        _add_usage(found, usage)
    costs = [cost_nusd, *(extra.cost_nusd for extra in exchange.hedge_charges)]
    if any(cost is not None for cost in costs):
        found["tokenhub.usd"] = sum(cost or 0 for cost in costs) / 1e9


def _add_first_byte(found: Attributes, took_s: float, streamed: bool) -> None:
    found["tokenhub.ttft_ms"] = round(took_s * 1000, 3)
    if streamed:
        found["gen_ai.response.time_to_first_chunk"] = took_s


def _add_usage(found: Attributes, usage: Usage) -> None:
    found["gen_ai.usage.input_tokens"] = usage.input_tokens
    found["gen_ai.usage.output_tokens"] = usage.output_tokens
    found["tokenhub.usage_source"] = "estimated" if usage.estimated else "provider"
    parts = {
        "cache_read.input_tokens": usage.cached_tokens,
        "cache_creation.input_tokens": usage.cache_write_tokens,
        "reasoning.output_tokens": usage.reasoning_tokens,
        "audio.input_tokens": usage.audio_input_tokens,
        "audio.output_tokens": usage.audio_output_tokens,
    }
    for name, tokens in parts.items():
        if tokens:
            found[f"gen_ai.usage.{name}"] = tokens
