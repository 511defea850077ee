"""The ways in which a session ends: which side ended it, why, and what the client observes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Side(Enum):
    CLIENT = "client"
    GATEWAY = "gateway"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended, in the words of ``session.closed``."""

    side: Side
    reason: str
    is_clean: bool = True
    """Whether the client sees an orderly end, as if from the destination. Otherwise it sees a reset."""
    cause: str = field(default="", compare=False)
    """Detail of a lost tunnel, as the network reported it."""


CLIENT_FINISHED = End(Side.CLIENT, "finished")
CLIENT_ABORTED = End(Side.CLIENT, "aborted", is_clean=False)
GATEWAY_FINISHED = End(Side.GATEWAY, "finished")
GATEWAY_LOST = End(Side.GATEWAY, "lost", is_clean=False)
IDLE = End(Side.AGENT, "idle", is_clean=False)
LIFETIME_OVER = End(Side.AGENT, "lifetime", is_clean=False)
DRAINED = End(Side.AGENT, "drained", is_clean=False)
REMOVED = End(Side.AGENT, "removed", is_clean=False)
REVOKED = End(Side.AGENT, "revoked", is_clean=False)
CLOSED = End(Side.AGENT, "closed", is_clean=False)
"""Closed by an operator."""
CRASHED = End(Side.AGENT, "aborted", is_clean=False)
CLIENT_LOST = End(Side.CLIENT, "lost", is_clean=False)
