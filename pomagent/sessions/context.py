"""What a session is given: what all sessions share, where its tunnel comes from, who learns from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pomagent.gateway.tunnel import Tunnel
from pomagent.runtime.deadline import Clock, Deadline
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.session_limit import SessionLimit
from pomagent.sessions.user_names import Users

Lease = Callable[[Deadline], Tunnel]
"""A ready tunnel of the route. Blocks. Raises PoolError, TunnelError."""


class Observer(Protocol):
    """Learns from sessions what their route's server is like."""

    def heard(self, first: bytes, after_s: float) -> None:
        """The server spoke before its client did, so long after the gateway had accepted the tunnel."""

    def was_ended(self, idle_s: float, age_s: float) -> None:
        """The other side ended a tunnel of this age, so long after its last byte."""


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of the agent share."""

    session_limit: SessionLimit
    """Of the whole agent."""
    fair_share: FairShare
    log_sessions: Callable[[], str]
    users: Users
    greenlets: GreenletReuse
    clock: Clock = time.monotonic
