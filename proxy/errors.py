"""Errors of a request, as one tree.

    GatewayError                 carries everything the response's envelope needs
    ├── BadRequest        400    the client's request as such (also 404, 405, 408, 411, 413, 415, 417, 431)
    ├── Unauthorized      401    no key, or one that is not valid
    ├── NotAllowed        403    the key may not use that model
    ├── ForeignOrigin     403    a web page that may not call the gateway
    ├── LimitReached  402/429    of the key or its group
    ├── TooManyRefused    429    refused requests from one address, without a key
    ├── NotFound          404    a path, alias or key that is not there
    ├── UnknownModel      404    a name that is no id, alias or short name
    ├── ProviderError     502/503/504   every attempt failed
    ├── CoolingDown       429    all providers of the name are rate limited
    ├── Unavailable       503    the gateway itself sheds load or drains
    └── Fault             500    of the gateway itself

``source`` says whose fault it is (``downstream`` is the client's side, ``upstream`` the provider's), so that
health tables, logs and retries never have to guess from a status. The errors are made where the fault is
found and turned into bytes in one place, :meth:`GatewayError.envelope`.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import orjson

DOWNSTREAM: Final = "downstream"
UPSTREAM: Final = "upstream"
GATEWAY: Final = "gateway"

# The code of what the gateway turns away, as it has too much to do.
OVERLOADED: Final = "overloaded"
# ``error.type`` by status, as Anthropic's API has it; other 4xx are invalid requests, other 5xx faults of its
# own.
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


class GatewayError(Exception):
    """A response the gateway gives by itself.

    :param message: one sentence that names the fault and the way out.
    :param status: HTTP status of the response.
    :param type: ``error.type`` of the envelope (docs/errors.md lists them).
    :param code: ``error.code``, or None.
    :param param: the request field at fault, or None.
    :param source: ``downstream``, ``upstream`` or ``gateway``.
    :param retry_after_s: whole seconds for ``Retry-After``, or None.
    :param close: the connection can't be used again (framing is lost, or the body was not read).
    :param headers: further header lines of the response, each with its CRLF.
    :param should_retry: what ``x-should-retry`` tells the official SDKs: the same request may succeed a
        moment later. None: as is usual with the status.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        type: str = "api_error",
        code: str | None = None,
        param: str | None = None,
        source: str = GATEWAY,
        retry_after_s: int | None = None,
        close: bool = False,
        headers: bytes = b"",
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = headers
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.source = source
        self.retry_after_s = retry_after_s
        self.close = close
        # No property that subclasses override: mypyc calls such a one of an exception at address 0.
        self.should_retry = status in (408, 429) or status >= 500 if should_retry is None else should_retry

    def blame_header(self, name: str) -> None:
        """A header's value is at fault, where the error blames the body's ``model``: say so."""
        if self.param == "model":
            self.param = name
            self.message = f"{name}: {self.message}"
            self.args = (self.message,)

    def header_lines(self) -> bytes:
        """Header lines of its own, each with its CRLF."""
        if self.retry_after_s is None:
            return self.headers
        return self.headers + b"Retry-After: %d\r\n" % self.retry_after_s

    def envelope(self) -> bytes:
        """The JSON body every error of this gateway has."""
        return orjson.dumps(
            {"error": {"message": self.message, "type": self.type, "code": self.code, "param": self.param}}
        )

    def anthropic_envelope(self, request_id: bytes) -> bytes:
        """The same as clients of Anthropic's API read it, with the code and the field at fault beside."""
        usual = "invalid_request_error" if self.status < 500 else "api_error"
        kind = _ANTHROPIC_TYPES.get(self.status, usual)
        if self.code == OVERLOADED:
            kind = "overloaded_error"
        error = {"type": kind, "message": self.message, "code": self.code, "param": self.param}
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id.decode()})


class BadRequest(GatewayError):
    """The client's request is at fault."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(
            message,
            status=status,
            type="invalid_request_error",
            code=code,
            param=param,
            source=DOWNSTREAM,
            close=close,
        )


class NotFound(GatewayError):
    """There is nothing of that name, or at that path."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, status=404, type="not_found_error", code=code, source=DOWNSTREAM)


class Unauthorized(GatewayError):
    """The request brings no key, or one that is not valid (RFC 9110 section 15.5.2 wants the header)."""

    def __init__(self, message: str, code: str = "invalid_api_key") -> None:
        super().__init__(
            message,
            status=401,
            type="authentication_error",
            code=code,
            source=DOWNSTREAM,
            headers=b'WWW-Authenticate: Bearer realm="tokenhub"\r\n',
        )


class NotAllowed(GatewayError):
    """The key may not use that model."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            status=403,
            type="permission_error",
            code="model_not_allowed",
            param="model",
            source=DOWNSTREAM,
        )


class ForeignOrigin(GatewayError):
    """The request comes from a web page, and the operator has not said that it may."""

    def __init__(self) -> None:
        super().__init__(
            "Pages of this origin may not call the gateway: [server] cors_origins names those that may.",
            status=403,
            type="permission_error",
            code="origin_not_allowed",
            source=DOWNSTREAM,
        )


class LimitReached(GatewayError):
    """A limit of the key or of its group is reached.

    :param which: its name, as in the key's settings; a group's begins with ``group_limits.``.
    :param wait_s: until there is room again, or the window ends.
    :param code: of one of a day or a month, which is used up.

    ``is_spent``: it is such a one. ``headers`` say what is left, where there will be more soon.
    """

    def __init__(self, message: str, which: str, wait_s: float, code: str = "") -> None:
        is_spent = code != ""
        super().__init__(
            message,
            status=402 if is_spent else 429,
            type="usage_limit_exceeded" if is_spent else "rate_limit_error",
            code=code or "rate_limit_exceeded",
            param=which,
            source=DOWNSTREAM,
            retry_after_s=max(1, ceil(wait_s)),
        )
        self.is_spent = is_spent
        self.wait_s = wait_s


class TooManyRefused(GatewayError):
    """Too many requests from one client address were refused, so this one is told no more than that.

    :param error: why this one is refused.
    :param wait_s: until the next refusal is answered in full.
    """

    def __init__(self, error: GatewayError, wait_s: float) -> None:
        seconds = max(1, ceil(wait_s))
        super().__init__(
            f"Too many refused requests from this address. Correct the request, or retry in {seconds} s. "
            f"The fault of this one: {error.message}",
            status=429,
            type="rate_limit_error",
            code="too_many_refused_requests",
            source=DOWNSTREAM,
            retry_after_s=seconds,
            close=error.close,
            should_retry=False,  # the same request would be refused again
        )


class UnknownModel(GatewayError):
    """The request names a model that is neither an id, an alias nor a short name."""

    def __init__(self, name: str, nearest: str | None) -> None:
        self.name = name
        hint = f" Did you mean '{nearest}'?" if nearest else ""
        super().__init__(
            f"The model '{name}' does not exist here.{hint} GET /v1/models?all=true lists all models.",
            status=404,
            type="not_found_error",
            code="model_not_found",
            param="model",
            source=DOWNSTREAM,
        )


class ProviderError(GatewayError):
    """All attempts failed, and no provider's response can be passed on."""

    def __init__(
        self, message: str, *, status: int, code: str | None = None, retry_after_s: int | None = None,
        should_retry: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            message,
            status=status,
            type="provider_error",
            code=code,
            source=UPSTREAM,
            retry_after_s=retry_after_s,
            should_retry=should_retry,
        )


class CoolingDown(GatewayError):
    """All members of a pool sent Retry-After, and none of these times has come yet."""

    def __init__(self, name: str, wait_s: float) -> None:
        seconds = max(1, ceil(wait_s - 1e-6))  # 7 s from now, less now, may be more than 7
        super().__init__(
            f"All providers of '{name}' are rate limited. Retry in {seconds} s.",
            status=429,
            type="rate_limit_error",
            code="providers_cooling_down",
            source=UPSTREAM,
            retry_after_s=seconds,
        )


class Unavailable(GatewayError):
    """The gateway can't take the request now: too many connections or requests, or it drains."""

    def __init__(self, message: str, *, code: str, retry_after_s: int, close: bool = True) -> None:
        super().__init__(
            message, status=503, type="provider_error", code=code, retry_after_s=retry_after_s, close=close
        )


class Fault(GatewayError):
    """An internal error of the gateway. The code that answers with it logs the cause."""

    def __init__(self, *, status: int = 500, close: bool = False) -> None:
        text = "Internal error in the gateway. Its log has the details."
        super().__init__(text, status=status, close=close)


class StartError(Exception):
    """The gateway can't start (or take on a new configuration); the text says why and what to do."""


class AttemptFailed:
    """A failed attempt: what its exchange goes on from. No exception: failing over is the usual course.

    :param outcome: a status, or ``connect``, ``timeout``, ``reset``, ``error``, ``empty``, ``not-a-stream``,
        ``web-page``, ``no-key``.
    :param what: what the provider did, for people.
    :param status: of the response to the client, if this is the last word; and ``code`` of its envelope.
    """

    __slots__ = (
        "code", "has_response", "is_clients", "is_closed", "is_confirmed", "is_final", "is_gone",
        "is_of_size", "is_refusal", "outcome", "status", "wait_s", "what", "window",
    )  # fmt: skip

    def __init__(self, outcome: str, what: str, status: int, code: str) -> None:
        self.outcome = outcome
        self.what = what
        self.status = status
        self.code = code
        self.wait_s: float | None = None  # seconds the provider wants to be left alone
        self.has_response = False  # there is one that could be passed on
        self.is_clients = False  # the client's own time limit has passed
        self.is_closed = False  # the connection was closed, or reset, before any response
        self.is_final = False  # the response was being made for as long as one may take: nothing follows
        self.is_refusal = False  # of the operator's key, account, model or address ...
        self.is_confirmed = False  # ... which is sure, and not the request's fault
        self.is_gone = False  # ... and for good
        self.is_of_size = False  # the prompt is larger than the model's context window: nobody's fault
        self.window = 0  # which has these tokens, by the provider's word; 0: it names no figure
