"""The states of an exchange as one table: what follows after which event."""

from __future__ import annotations

from typing import Final

# States of an exchange.
HOLDING: Final = 0
TRYING: Final = 1
ANSWERING: Final = 2
DONE: Final = 3
PAUSING: Final = 4
STATES: Final = ("holding", "trying", "answering", "done", "pausing")
# Events. Those of a failed attempt say what can follow it: see after_failure().
CHOSEN: Final = 0  # the body is there as far as needed, and a member was picked: it is tried
NOBODY: Final = 1  # there is no member to send it to: the client is told so
RETRY: Final = 2  # an attempt failed; another member is there, and is tried
HEDGE_RUNS: Final = 3  # an attempt failed; the other of a hedge is under way, and waited for
PASS_ON: Final = 4  # an attempt failed with a response, and nothing can follow: that is passed on
LAST_FAILED: Final = 5  # it failed without one, or not as the first; nothing can follow, the client is told
HEDGE_DUE: Final = 6  # no output for too long: a second member is asked
COMMIT: Final = 7  # a response shows output, or is held no longer: the client gets it
END: Final = 8  # the response is complete
BROKEN: Final = 9  # the provider broke the response off: so is the client's
LEFT: Final = 10  # the client left, or was told that its request is wrong: nothing goes on for it
REPEAT: Final = 11  # an attempt failed; nobody else is there, and its member is asked once more in a moment
RESUME: Final = 12  # that moment has come
EVENTS: Final = (
    "chosen", "nobody", "retry", "hedge runs", "pass on", "last failed", "hedge due", "commit", "end",
    "broken", "left", "repeat", "resume",
)  # fmt: skip
# (state, event) -> next state. What is missing can't happen; what is done is said beside the events.
TABLE: Final[dict[tuple[int, int], int]] = {
    (HOLDING, CHOSEN): TRYING,
    (HOLDING, NOBODY): DONE,
    (HOLDING, LEFT): DONE,
    (TRYING, RETRY): TRYING,
    (TRYING, REPEAT): PAUSING,
    (TRYING, HEDGE_RUNS): TRYING,
    (TRYING, PASS_ON): ANSWERING,
    (TRYING, LAST_FAILED): DONE,
    (TRYING, HEDGE_DUE): TRYING,
    (TRYING, COMMIT): ANSWERING,
    (TRYING, LEFT): DONE,
    (PAUSING, RESUME): TRYING,
    (PAUSING, LEFT): DONE,
    (ANSWERING, END): DONE,
    (ANSWERING, BROKEN): DONE,
    (ANSWERING, LEFT): DONE,
    (DONE, LEFT): DONE,
}
# By number: three times a request, and a dictionary of pairs takes ten times as long.
_NEXT: Final[list[int]] = [
    TABLE.get((state, event), -1) for state in range(len(STATES)) for event in range(len(EVENTS))
]


def step(state: int, event: int) -> int:
    """Look up the state after an event in :data:`TABLE`.

    :raises KeyError: it can't happen in this state.
    """
    after = _NEXT[state * len(EVENTS) + event]
    if after < 0:
        raise KeyError((state, event))
    return after


def after_failure(
    *, hedge_runs: bool, can_follow: bool, can_repeat: bool, has_response: bool, is_only: bool
) -> int:
    """The event that a failed attempt is.

    :param hedge_runs: the other attempt of a hedge is under way.
    :param can_follow: :meth:`Failover.next` found a member.
    :param can_repeat: :meth:`Failover.repeat` plans to ask the same member once more.
    :param has_response: the provider did answer, if only with an error.
    :param is_only: no other member was asked.
    """
    if hedge_runs:
        return HEDGE_RUNS
    if can_follow:
        return RETRY
    if can_repeat:
        return REPEAT
    return PASS_ON if has_response and is_only else LAST_FAILED
