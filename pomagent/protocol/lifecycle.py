"""The states of a tunnel, as a table."""

from __future__ import annotations

from enum import Enum, StrEnum


class State(StrEnum):
    DIALING = "dialing"
    """DNS and TCP."""
    SECURING = "securing"
    """The TLS handshake."""
    SECURED = "secured"
    """TLS stands and no CONNECT was sent: what a pool at level ``tls`` holds."""
    OPENING = "opening"
    """The CONNECT waits for its answer."""
    READY = "ready"
    """Accepted by the gateway and used by nobody."""
    ACTIVE = "active"
    """Leased to a session."""
    CLOSED = "closed"


class Reason(Enum):
    """Why a tunnel was closed; the same word in the log, the counters and the tests."""

    FINISHED = "finished"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    TIMED_OUT = "timed_out"
    PEER_CLOSED = "peer_closed"
    EXPIRED = "expired"
    STALE = "stale"
    UNWANTED = "unwanted"
    """The route keeps less, or something else, warm now; or nothing, while it drains."""
    DRAINED = "drained"
    ABORTED = "aborted"


NEXT: dict[State, frozenset[State]] = {
    State.DIALING: frozenset(
        {State.SECURING, State.SECURED, State.CLOSED}
    ),  # SECURED at once over a clear-text gateway
    State.SECURING: frozenset({State.SECURED, State.CLOSED}),
    State.SECURED: frozenset({State.OPENING, State.CLOSED}),
    State.OPENING: frozenset({State.READY, State.CLOSED}),
    State.READY: frozenset({State.ACTIVE, State.CLOSED}),
    State.ACTIVE: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


def advance(state: State, to: State) -> State:
    """Return ``to`` if a tunnel may go there from ``state``.

    Raises ValueError otherwise: that is a bug of ours, never an event of the network.
    """
    if to not in NEXT[state]:
        raise ValueError(f"a tunnel cannot go from {state.value} to {to.value}")
    return to
