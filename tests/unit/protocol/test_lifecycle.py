"""Every step that a tunnel may and may not take."""

from itertools import product

import pytest

from pomagent.protocol.lifecycle import NEXT, Reason, State, advance

STEPS = {
    (State.DIALING, State.SECURING),
    (State.DIALING, State.SECURED),
    (State.DIALING, State.CLOSED),
    (State.SECURING, State.SECURED),
    (State.SECURING, State.CLOSED),
    (State.SECURED, State.OPENING),
    (State.SECURED, State.CLOSED),
    (State.OPENING, State.READY),
    (State.OPENING, State.CLOSED),
    (State.READY, State.ACTIVE),
    (State.READY, State.CLOSED),
    (State.ACTIVE, State.CLOSED),
}


@pytest.mark.parametrize(("state", "to"), list(product(State, State)), ids=lambda state: state.value)
def test_every_pair_of_states(state, to):
    if (state, to) in STEPS:
        assert advance(state, to) is to
    else:
        with pytest.raises(ValueError, match=f"^a tunnel cannot go from {state.value} to {to.value}$"):
            advance(state, to)


def test_every_state_is_in_the_table():
    assert set(State) == set(NEXT)


def test_every_state_but_the_last_can_be_closed():
    assert {state for state in State if State.CLOSED in NEXT[state]} == set(State) - {State.CLOSED}


def test_the_reasons_are_the_words_of_the_log():
    words = "finished refused unreachable untrusted timed_out peer_closed expired stale unwanted drained aborted"
    assert set(words.split()) == {reason.value for reason in Reason}
