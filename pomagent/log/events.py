"""The names of all log events: ``noun.past_participle``, or ``…ing`` for a phase that begins.

They are plain constants rather than an enumeration: ``events.SESSION_CLOSED`` reads the same, and ``Event`` remains
gevent's name. Names are never interpolated. Values are fields.
"""

from __future__ import annotations

from typing import Final

AGENT_STARTED: Final = "agent.started"
AGENT_DRAINING: Final = "agent.draining"
AGENT_STOPPED: Final = "agent.stopped"
AGENT_UPGRADING: Final = "agent.upgrading"
AGENT_UPGRADED: Final = "agent.upgraded"
AGENT_UPGRADE_FAILED: Final = "agent.upgrade_failed"
"""The new process did not take over, and the old process continues (``error``, ``problems``)."""

CONFIG_LOADED: Final = "config.loaded"
CONFIG_APPLIED: Final = "config.applied"
CONFIG_UNCHANGED: Final = "config.unchanged"
CONFIG_REJECTED: Final = "config.rejected"
CONFIG_WARNED: Final = "config.warned"
"""An accepted setting is unsafe or without effect (``warning``)."""

HUB_STALLED: Final = "hub.stalled"
"""The event loop stood still, and every session with it: a bug, a stopped process, or a host without processor time."""

LISTENER_BOUND: Final = "listener.bound"
LISTENER_CLOSED: Final = "listener.closed"
LISTENER_LOST: Final = "listener.lost"
"""The file of a Unix socket was removed or replaced. The address is bound again."""
LISTENER_BIND_FAILED: Final = "listener.bind_failed"
LISTENER_ACCEPT_FAILED: Final = "listener.accept_failed"
LISTENER_BLOCKED: Final = "listener.blocked"
"""An accept loop is stuck: a bug, for which the watchdog restarts the agent."""
LISTENER_UNWANTED: Final = "listener.unwanted"
"""systemd listens on an address that no route has. Clients that connect there get no answer."""

ROUTE_QUARANTINED: Final = "route.quarantined"
ROUTE_CLASSIFIED: Final = "route.classified"
"""The server's first bytes, or their absence, identified its protocol and so what is kept warm."""
ROUTE_DEMOTED: Final = "route.demoted"
ROUTE_PROMOTED: Final = "route.promoted"

CONTROL_CHANGED: Final = "control.changed"
CONTROL_REFUSED: Final = "control.refused"
"""A user without permission sent a command to the control socket (``uid``, ``command``)."""

STATUS_REFUSED: Final = "status.refused"
"""The status server refused a request (``why``), logged once a minute for each reason."""

SESSION_OPENED: Final = "session.opened"
SESSION_PROGRESS: Final = "session.progress"
"""A session has been open for hours."""
SESSION_CLOSED: Final = "session.closed"
SESSION_REFUSED: Final = "session.refused"

TUNNEL_OPENED: Final = "tunnel.opened"
TUNNEL_CLOSED: Final = "tunnel.closed"
TUNNEL_FAILED: Final = "tunnel.failed"
TUNNELS_LOST: Final = "tunnels.lost"
"""Many warm tunnels of a gateway ended at the same time."""

TRANSPORT_DOWNGRADED: Final = "transport.downgraded"
"""A gateway does not offer HTTP/2, which its table requests (``why``), logged once for the table."""

POOL_FILLED: Final = "pool.filled"
POOL_STARVED: Final = "pool.starved"

PERIOD_DETECTED: Final = "period.detected"
"""Tunnels of a route keep ending at the same age or idle time: the path has a limit (``why``)."""

BREAKER_OPENED: Final = "breaker.opened"
BREAKER_CLOSED: Final = "breaker.closed"

CERTIFICATE_EXPIRING: Final = "certificate.expiring"
"""A gateway presented a certificate that expires soon or has expired (``gateway``, ``expires_in_ms``)."""

CLOCK_DRIFTED: Final = "clock.drifted"
"""Gateway clock and local clock differ by more than a minute (``gateway``, ``offset_ms``: gateway minus local)."""

CALLBACK_REFUSED: Final = "callback.refused"
"""The callback of a login received a token without the nonce of that login (``why``)."""

CREDENTIAL_REFRESHED: Final = "credential.refreshed"
CREDENTIAL_REJECTED: Final = "credential.rejected"
CREDENTIAL_EXPIRING: Final = "credential.expiring"
CREDENTIAL_READMITTED: Final = "credential.readmitted"
"""A recheck found that a gateway accepts a revoked token again."""
CREDENTIAL_REVOKED: Final = "credential.revoked"
"""A recheck found that a gateway no longer accepts a token, once for each of both. ``sessions`` were ended."""
CREDENTIAL_UNCHECKED: Final = "credential.unchecked"
"""A recheck got no verdict, logged for the first of several in a row. Sessions continue."""
CREDENTIAL_COMMENTED: Final = "credential.commented"
"""A command that printed a token also wrote to standard error (``said``)."""

GREENLET_CRASHED: Final = "greenlet.crashed"

WATCH_DEGRADED: Final = "watch.degraded"
"""inotify is not available for a directory, which only the slow poll watches."""

LOG_DROPPED: Final = "log.dropped"
"""Standard error was blocked by its reader. ``count`` lines before this one are missing."""

LIBRARY_WARNED: Final = "library.warned"
"""A library logged a warning through ``logging`` (``library``, ``message``)."""
