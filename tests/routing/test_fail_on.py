"""Which responses are failures."""

from __future__ import annotations

import pytest

from proxy.routing.fail_on import USUAL, FailOn

NO_WORDS: frozenset[str] = frozenset()


@pytest.mark.parametrize("status", range(300, 600))
def test_the_usual_statuses(status):
    fails = status // 100 in (3, 5) or status in (401, 402, 403, 404, 405, 408, 410, 429)
    assert USUAL.is_failure(status, NO_WORDS) == fails
    assert USUAL.by_status(status) == fails
    in_doubt = 400 <= status < 500 and status not in (408, 429)
    assert USUAL.needs_body(status) == in_doubt


@pytest.mark.parametrize(
    ("status", "words", "fails"),
    [
        (400, "model_not_found", True), (400, "context_length_exceeded", True),
        (400, "api_key_invalid", True),
        (400, "content_filter", False), (422, "invalid_request_error", False), (413, "", False),
        (403, "content_policy_violation", False), (403, "moderation", False), (404, "file_not_found", False),
        (404, "previous_response_not_found", False), (404, "not_found_error", True), (403, "", True),
    ],
)  # fmt: skip
def test_codes_decide_too(status, words, fails):
    assert USUAL.is_failure(status, frozenset(words.split())) == fails


def test_what_an_operator_wants():
    own = FailOn(("4xx", "500", "Busy_Right_Now"))
    assert [own.by_status(status) for status in (302, 418, 500, 503)] == [False, True, True, False]
    assert own.is_failure(200, frozenset(("busy_right_now",)))
    assert own.is_failure(401, NO_WORDS)  # is never a client's own
    assert not FailOn(()).needs_body(422)
