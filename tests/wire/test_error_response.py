"""Errors as responses, read by llhttp."""

from __future__ import annotations

import httptools
import pytest

from proxy.errors import GatewayError
from proxy.wire.error_response import REASONS, gateway_response, own_head
from proxy.wire.request_head import RequestHead
from tests.support.oracles import Llhttp


@pytest.mark.parametrize("status", [*(status for status in REASONS if status >= 400), 599])
@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("message", ["", "\xe9"])
def test_gateway_response(status, close, message):
    error = GatewayError(message, status=status, retry_after_s=3)
    sent = gateway_response(error, b"req-1", extra=b"Allow: POST\r\n", close=close)
    reader = Llhttp(httptools.HttpResponseParser, sent)
    assert reader.end is not None
    assert reader.parser.get_status_code() == status
    assert reader.reason == REASONS.get(status, b"Unknown")
    assert reader.body == error.envelope()
    assert reader.fields == [
        (b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(error.envelope())),
        (b"X-Inferoute-Request-Id", b"req-1"), (b"x-request-id", b"req-1"),
        (b"x-should-retry", b"true" if status in (408, 429) or status >= 500 else b"false"),
        (b"Allow", b"POST"), (b"Retry-After", b"3"), *([(b"Connection", b"close")] if close else []),
    ]  # fmt: skip
    plain = gateway_response(GatewayError(message, status=status), b"req-1", close=close)
    assert Llhttp(httptools.HttpResponseParser, plain).end is not None
    head = RequestHead(b"HEAD", b"/x", b"", 1)
    bare = gateway_response(error, b"req-1", head, extra=b"Allow: POST\r\n", close=close)
    assert bare == sent.removesuffix(error.envelope())


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
def test_a_client_of_anthropic_reads_its_shape(method):
    error = GatewayError("no", status=404, code="c", param="model")
    body = error.anthropic_envelope(b"req-1")
    head = RequestHead(method, b"/v1/messages", b"", 1)
    reader = Llhttp(httptools.HttpResponseParser, gateway_response(error, b"req-1", head, close=False) + b"")
    assert (b"request-id", b"req-1") in reader.fields
    assert (b"Content-Length", b"%d" % len(body)) in reader.fields
    assert reader.body == (body if method == b"POST" else b"")
    begun = gateway_response(error, b"req-1", None, b"POST /v1/messages HTT", close=False)
    assert begun.endswith(b"\r\n\r\n" + body)
    models = RequestHead(b"GET", b"/v1/models/x", b"", 1)
    assert gateway_response(error, b"req-1", models, close=False).endswith(error.envelope())
    models.lines.append(b"Anthropic-Version: 1")
    assert gateway_response(error, b"req-1", models, close=False).endswith(body)


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("close", [True, False])
def test_own_head(status, close):
    reader = Llhttp(
        httptools.HttpResponseParser, own_head(status, b"req-1", b"X: y\r\n", 2, close=close) + b"{}"
    )
    assert reader.end is not None
    assert (reader.parser.get_status_code(), reader.reason) == (status, REASONS[status])
    assert reader.fields == [
        (b"Content-Length", b"2"), (b"X", b"y"), (b"X-Inferoute-Request-Id", b"req-1"),
        *([(b"Connection", b"close")] if close else []),
    ]  # fmt: skip


def test_an_answer_that_never_has_a_body_has_no_length():
    reader = Llhttp(httptools.HttpResponseParser, own_head(204, b"req-1", b"", 0, close=False))
    assert reader.end is not None
    assert reader.fields == [(b"X-Inferoute-Request-Id", b"req-1")]
