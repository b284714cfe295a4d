"""The table of an exchange's states, walked completely."""

from __future__ import annotations

from itertools import product

import pytest

from proxy.relay.exchange import states
from proxy.relay.exchange.states import EVENTS, STATES, TABLE, after_failure, step

# What the contract asks for, written out again in words. A dash: it can't happen.
EXPECTED = """
            holding     trying      answering   done        pausing
chosen      trying      -           -           -           -
nobody      done        -           -           -           -
retry       -           trying      -           -           -
repeat      -           pausing     -           -           -
resume      -           -           -           -           trying
hedge-runs  -           trying      -           -           -
pass-on     -           answering   -           -           -
last-failed -           done        -           -           -
hedge-due   -           trying      -           -           -
commit      -           answering   -           -           -
end         -           -           done        -           -
broken      -           -           done        -           -
left        done        done        done        done        done
"""


def expected() -> dict[tuple[str, str], str]:
    states, *lines = [line.split() for line in EXPECTED.strip().splitlines()]
    return {
        (state, event.replace("-", " ")): cell
        for event, *cells in lines
        for state, cell in zip(states, cells, strict=True)
    }


@pytest.mark.parametrize(("state", "event"), [*product(range(len(STATES)), range(len(EVENTS)))])
def test_the_table_says_what_the_contract_says(state, event):
    found = TABLE.get((state, event))
    if found is None:
        with pytest.raises(KeyError):
            step(state, event)
    else:
        assert step(state, event) == found
    said = "-" if found is None else STATES[found]
    assert said == expected()[STATES[state], EVENTS[event]]


def test_the_table_holds_nothing_else():
    assert set(expected()) == set(product(STATES, EVENTS))
    assert set(TABLE) <= set(product(range(len(STATES)), range(len(EVENTS))))
    names = {name: getattr(states, name.upper().replace(" ", "_")) for name in (*STATES, *EVENTS)}
    assert [names[name] for name in STATES] == list(range(len(STATES)))
    assert [names[name] for name in EVENTS] == list(range(len(EVENTS)))


def reachable(start: int) -> set[int]:
    found, edge = {start}, [start]
    while edge:
        at = edge.pop()
        new = {after for (state, _), after in TABLE.items() if state == at} - found
        found |= new
        edge += new
    return found


def test_every_state_is_reached_and_every_one_ends():
    assert reachable(states.HOLDING) == set(range(len(STATES)))
    for state in range(len(STATES)):
        assert states.DONE in reachable(state)
        assert (state, states.LEFT) in TABLE  # a client may leave at any time
    assert reachable(states.DONE) == {states.DONE}


def test_behind_the_commit_point_no_other_provider_is_asked():
    assert reachable(states.ANSWERING) == {states.ANSWERING, states.DONE}
    asks = {states.CHOSEN, states.RETRY, states.REPEAT, states.HEDGE_DUE}
    assert not {event for state, event in TABLE if state in (states.ANSWERING, states.DONE)} & asks
    commits = {event for (_, event), after in TABLE.items() if after == states.ANSWERING}
    assert commits == {states.COMMIT, states.PASS_ON}


@pytest.mark.parametrize(
    ("hedge_runs", "can_follow", "can_repeat", "has_response", "is_only"), [*product((False, True), repeat=5)]
)
def test_what_a_failed_attempt_is(hedge_runs, can_follow, can_repeat, has_response, is_only):
    event = after_failure(
        hedge_runs=hedge_runs, can_follow=can_follow, can_repeat=can_repeat, has_response=has_response,
        is_only=is_only,
    )  # fmt: skip
    if hedge_runs:
        assert event == states.HEDGE_RUNS
    elif can_follow:
        assert event == states.RETRY
    elif can_repeat:
        assert event == states.REPEAT
    elif has_response and is_only:
        assert event == states.PASS_ON
    else:
        assert event == states.LAST_FAILED
    assert (states.TRYING, event) in TABLE
