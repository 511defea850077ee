"""Dependencies of sessions: those shared by all sessions of the agent, and those shared by the sessions of a route."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pomagent.gateway.tunnel import Tunnel
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock, Deadline
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.sessions.counters import SessionCounts
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.session_limit import SessionLimit
from pomagent.sessions.user_names import Users
from pomagent.settings import Route

Lease = Callable[[Deadline], Tunnel]
"""Returns a ready tunnel of the route. Blocks. Raises PoolError, TunnelError."""


@dataclass(frozen=True, slots=True)
class SessionContext:
    """Dependencies shared by all sessions of the agent."""

    session_limit: SessionLimit
    """Bounds the sessions of the whole agent."""
    fair_share: FairShare
    log_sessions: Callable[[], str]
    """Returns the setting of this name, which a reload may change."""
    users: Users
    greenlets: GreenletReuse
    clock: Clock = time.monotonic


@dataclass(frozen=True, slots=True)
class RouteContext:
    """Dependencies shared by all sessions that one route accepts under one set of settings."""

    route: Route
    lease: Lease
    note_greeting: Callable[[bytes, float], object]
    """Records that the server sent these first bytes before the client sent any, this many seconds after the CONNECT
    was accepted."""
    note_close: Callable[[float, float], None]
    """Records that the gateway's side closed a session's tunnel, this many seconds after the last byte, at this age."""
    session_limit: SessionLimit
    """Bounds the sessions of the route."""
    counts: SessionCounts
    log: Logger
    generation: int
