"""The states of an exchange as one table: what follows after which event."""

from __future__ import annotations

from typing import Final

# States of an exchange.
HOLDING: Final = 0
TRYING: Final = 1
PEEKING: Final = 2
ANSWERING: Final = 3
DONE: Final = 4
STATES: Final = ("holding", "trying", "peeking", "answering", "done")
# Events. Those of a failed attempt say what can follow it: see after_failure().
CHOSEN: Final = 0  # the body is there as far as needed, and a member was picked
NOBODY: Final = 1  # there is no member to send it to
RETRY: Final = 2  # an attempt failed; another member is there for the next
RIVAL_RUNS: Final = 3  # an attempt failed; the other one of a hedge is under way
PASS_ON: Final = 4  # an attempt failed with an answer, and nothing can follow
LAST_FAILED: Final = 5  # an attempt failed without one, or not as the first, and nothing can follow
HEDGE_DUE: Final = 6  # no first byte for so long that a second member is asked
HEAD: Final = 7  # the head of an answer that is to be had
DOUBT: Final = 8  # the same, of a stream whose first event is to be seen first
CLEARED: Final = 9  # the first event is no error, or was not there in time
END: Final = 10  # the answer is complete
BROKEN: Final = 11  # the provider broke the answer off
LEFT: Final = 12  # the client left, or was told that its request is wrong
EVENTS: Final = (
    "chosen", "nobody", "retry", "rival runs", "pass on", "last failed", "hedge due", "head", "doubt",
    "cleared",    "end", "broken", "left",
)  # fmt: skip
# Actions.
TRY: Final = 0
HEDGE: Final = 1
WAIT: Final = 2
HOLD: Final = 3
COMMIT: Final = 4
FINISH: Final = 5
BREAK_OFF: Final = 6
DROP: Final = 7
ANSWER: Final = 8
ACTIONS: Final = ("try", "hedge", "wait", "hold", "commit", "finish", "break off", "drop", "answer")
# (state, event) -> (action, next state). What is missing can't happen.
TABLE: Final[dict[tuple[int, int], tuple[int, int]]] = {
    (HOLDING, CHOSEN): (TRY, TRYING),
    (HOLDING, NOBODY): (ANSWER, DONE),
    (HOLDING, LEFT): (DROP, DONE),
    (TRYING, RETRY): (TRY, TRYING),
    (TRYING, RIVAL_RUNS): (WAIT, TRYING),
    (TRYING, PASS_ON): (COMMIT, ANSWERING),
    (TRYING, LAST_FAILED): (ANSWER, DONE),
    (TRYING, HEDGE_DUE): (HEDGE, TRYING),
    (TRYING, HEAD): (COMMIT, ANSWERING),
    (TRYING, DOUBT): (HOLD, PEEKING),
    (TRYING, LEFT): (DROP, DONE),
    (PEEKING, CLEARED): (COMMIT, ANSWERING),
    (PEEKING, PASS_ON): (COMMIT, ANSWERING),
    (PEEKING, RETRY): (TRY, TRYING),
    (PEEKING, LAST_FAILED): (ANSWER, DONE),
    (PEEKING, LEFT): (DROP, DONE),
    (ANSWERING, END): (FINISH, DONE),
    (ANSWERING, BROKEN): (BREAK_OFF, DONE),
    (ANSWERING, LEFT): (DROP, DONE),
    (DONE, LEFT): (WAIT, DONE),
}  # fmt: skip
# By number, action and state in one: three times a request, a dictionary of pairs takes ten times as long.
_CODES: Final[list[int]] = [
    TABLE[state, event][0] * len(STATES) + TABLE[state, event][1] if (state, event) in TABLE else -1
    for state in range(len(STATES))
    for event in range(len(EVENTS))
]


def step(state: int, event: int) -> tuple[int, int]:
    """Look up what to do at an event, and the state after it, in :data:`TABLE`.

    :raises KeyError: it can't happen in this state.
    """
    code = _CODES[state * len(EVENTS) + event]
    if code < 0:
        raise KeyError((state, event))
    return code // len(STATES), code % len(STATES)


def after_failure(*, rival_runs: bool, can_follow: bool, has_answer: bool, attempts: int) -> int:
    """The event that a failed attempt is.

    :param rival_runs: the other attempt of a hedge is under way.
    :param can_follow: :meth:`Failover.next` found a member.
    :param has_answer: the provider did answer, if only with an error.
    :param attempts: how many failed so far, with this one.
    """
    if rival_runs:
        return RIVAL_RUNS
    if can_follow:
        return RETRY
    return PASS_ON if has_answer and attempts == 1 else LAST_FAILED
