"""What a request's head asks of the gateway itself, checked."""

from __future__ import annotations

from typing import NamedTuple

from proxy.config import STRATEGIES
from proxy.errors import BadRequest
from proxy.headers import RequestHead


class Options(NamedTuple):
    """``X-Inferoute-*`` of a request, None where it says nothing; ``timeout_s``: to the first byte."""

    strategy: str | None = None
    timeout_s: float | None = None


def read_options(head: RequestHead) -> Options:
    """The options of a head. They are kept with it: a head that comes again is not read again.

    :raises BadRequest: a header has a value that can't be followed.
    """
    strategy: str | None = None
    timeout_s: float | None = None
    for name, value in head.inferoute:
        if name == b"x-inferoute-strategy":
            strategy = _strategy(value)
        elif name == b"x-inferoute-timeout":
            timeout_s = _seconds(value)
    if head.content_encoding not in (b"", b"identity"):
        raise BadRequest(
            "A compressed request body can't be routed. Send it without Content-Encoding.",
            code="unsupported_content_encoding",
            close=True,
        )
    if head.expect not in (b"", b"100-continue"):
        raise BadRequest("The only Expect is 100-continue.", status=417, close=True)
    options = head.options = Options(strategy, timeout_s)
    return options


def _strategy(value: bytes) -> str:
    strategy = value.decode("latin-1")
    if strategy not in STRATEGIES:
        raise BadRequest(
            f"X-Inferoute-Strategy must be one of {', '.join(STRATEGIES)}; '{strategy[:40]}' is none.",
            code="invalid_strategy",
            param="X-Inferoute-Strategy",
        )
    return strategy


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise BadRequest(
            "X-Inferoute-Timeout must be a number of seconds above 0, such as 2.5.",
            code="invalid_timeout",
            param="X-Inferoute-Timeout",
        )
    return seconds
