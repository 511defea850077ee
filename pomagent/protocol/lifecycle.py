"""The states of a tunnel, and the allowed transitions, as a table."""

from __future__ import annotations

from enum import Enum, StrEnum


class State(StrEnum):
    DIALING = "dialing"
    """DNS and TCP."""
    SECURING = "securing"
    """The TLS handshake."""
    SECURED = "secured"
    """TLS is established and no CONNECT was sent: a warm connection at level ``tls``."""
    OPENING = "opening"
    """The CONNECT was sent, without an answer yet."""
    READY = "ready"
    """Accepted by the gateway and not leased."""
    ACTIVE = "active"
    """Leased to a session."""
    CLOSED = "closed"


class Reason(Enum):
    """Why a tunnel was closed. Log, counters and tests use the same words."""

    FINISHED = "finished"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    TIMED_OUT = "timed_out"
    PEER_CLOSED = "peer_closed"
    EXPIRED = "expired"
    STALE = "stale"
    UNWANTED = "unwanted"
    """The route now keeps fewer, or other, tunnels warm, or drains."""
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

    Raises ValueError otherwise, which is a bug of the agent and never an event of the network.
    """
    if to not in NEXT[state]:
        raise ValueError(f"a tunnel cannot go from {state.value} to {to.value}")
    return to
