"""Each error's facts, and the envelope every official SDK reads."""

from __future__ import annotations

import json

import pytest

from proxy.errors import (
    DOWNSTREAM,
    GATEWAY,
    UPSTREAM,
    BadRequest,
    CoolingDown,
    GatewayError,
    ProviderError,
    Unavailable,
    UnknownModel,
)

ERRORS = [
    (GatewayError("m"), 500, "api_error", None, None, GATEWAY, None, False),
    (
        GatewayError("m", status=429, type="rate_limit_error", code="c", source=DOWNSTREAM, retry_after_s=3),
        429, "rate_limit_error", "c", None, DOWNSTREAM, 3, False,
    ),
    (BadRequest("m"), 400, "invalid_request_error", None, None, DOWNSTREAM, None, False),
    (
        BadRequest("m", status=413, code="c", param="p", close=True),
        413, "invalid_request_error", "c", "p", DOWNSTREAM, None, True,
    ),
    (
        UnknownModel("gtp-4o", "gpt-4o"),
        404, "not_found_error", "model_not_found", "model", DOWNSTREAM, None, False,
    ),
    (ProviderError("m", status=502, code="c"), 502, "provider_error", "c", None, UPSTREAM, None, False),
    (
        ProviderError("m", status=503, retry_after_s=7),
        503, "provider_error", None, None, UPSTREAM, 7, False,
    ),
    (
        CoolingDown("premium", 6.01),
        429, "rate_limit_error", "providers_cooling_down", None, UPSTREAM, 7, False,
    ),
    (
        Unavailable("m", code="overloaded", retry_after_s=1),
        503, "provider_error", "overloaded", None, GATEWAY, 1, True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "param", "source", "retry_after_s", "close"), ERRORS
)
def test_facts_and_envelope(error, status, kind, code, param, source, retry_after_s, close):
    assert isinstance(error, GatewayError)
    assert (error.status, error.source, error.retry_after_s, error.close) == (
        status,
        source,
        retry_after_s,
        close,
    )
    assert json.loads(error.envelope()) == {
        "error": {"message": error.message, "type": kind, "code": code, "param": param}
    }
    assert str(error) == error.message


@pytest.mark.parametrize("status", range(400, 600))
def test_should_retry(status):
    may_pass = status in (408, 429) or status >= 500
    assert GatewayError("m", status=status).should_retry is may_pass
    assert BadRequest("m", status=status).should_retry is may_pass


def test_an_envelope_is_one_line_of_utf_8_whatever_the_message():
    message = 'é "quoted" \\ 日本 \n\r\n\x00 \u2028 😀'
    envelope = BadRequest(message).envelope()
    assert not set(envelope) & set(b"\r\n\x00")  # it must fit on a "data:" line
    assert json.loads(envelope.decode())["error"]["message"] == message


def test_unknown_model_suggests_the_nearest_name_if_there_is_one():
    assert UnknownModel("gtp-4o", "gpt-4o").message == (
        "The model 'gtp-4o' does not exist here. Did you mean 'gpt-4o'? "
        "GET /v1/models?all=true lists all models."
    )
    assert "Did you mean" not in UnknownModel("x", None).message


def test_a_header_is_blamed_in_the_models_place_and_in_no_other():
    error = UnknownModel("x", None)
    told = error.message
    error.blame_header("X-A")
    assert (error.param, error.message, str(error)) == ("X-A", f"X-A: {told}", f"X-A: {told}")
    other = BadRequest("no", param="X-B")
    other.blame_header("X-A")
    assert (other.param, other.message) == ("X-B", "no")


@pytest.mark.parametrize(("wait_s", "seconds"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.001, 2), (3600.0, 3600)])
def test_patience_is_asked_for_in_whole_seconds_and_never_too_few(wait_s, seconds):
    error = CoolingDown("premium", wait_s)
    assert error.retry_after_s == seconds
    assert error.message == f"All providers of 'premium' are rate limited. Retry in {seconds} s."
    assert error.should_retry


def test_the_tree():
    for kind in (BadRequest, UnknownModel, ProviderError, CoolingDown, Unavailable):
        assert kind.__bases__ == (GatewayError,)


@pytest.mark.parametrize(
    ("status", "code", "type"),
    [
        (400, None, "invalid_request_error"), (401, None, "authentication_error"),
        (402, None, "billing_error"), (403, None, "permission_error"),
        (404, "x", "not_found_error"), (405, None, "invalid_request_error"),
        (408, None, "timeout_error"), (411, None, "invalid_request_error"), (413, None, "request_too_large"),
        (415, None, "invalid_request_error"), (417, None, "invalid_request_error"),
        (422, None, "invalid_request_error"), (429, None, "rate_limit_error"),
        (431, None, "invalid_request_error"), (500, None, "api_error"), (502, None, "api_error"),
        (503, "all_attempts_failed", "api_error"), (503, "overloaded", "overloaded_error"),
        (504, None, "timeout_error"),
    ],
)  # fmt: skip
def test_errors_as_anthropics_api_has_them(status, code, type):
    """By https://platform.claude.com/docs/en/api/errors."""
    error = GatewayError('so "it" is', status=status, type="any", code=code, param="p")
    assert json.loads(error.anthropic_envelope(b"req_1")) == {
        "type": "error",
        "error": {"type": type, "message": 'so "it" is', "code": code, "param": "p"},
        "request_id": "req_1",
    }
