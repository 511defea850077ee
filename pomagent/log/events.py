"""Every name in the log: ``noun.past_participle``, ``…ing`` for a phase that begins.

Plain constants rather than an enumeration: ``events.SESSION_CLOSED`` reads the same, and ``Event`` stays gevent's word.
Names are never interpolated; what varies is a field.
"""

from __future__ import annotations

from typing import Final

AGENT_STARTED: Final = "agent.started"
AGENT_DRAINING: Final = "agent.draining"
AGENT_STOPPED: Final = "agent.stopped"
AGENT_UPGRADING: Final = "agent.upgrading"
AGENT_UPGRADED: Final = "agent.upgraded"
AGENT_UPGRADE_FAILED: Final = "agent.upgrade_failed"
"""The new process did not take over, and the old one goes on as before (``error``, ``problems``)."""

CONFIG_LOADED: Final = "config.loaded"
CONFIG_APPLIED: Final = "config.applied"
CONFIG_UNCHANGED: Final = "config.unchanged"
CONFIG_REJECTED: Final = "config.rejected"
CONFIG_WARNED: Final = "config.warned"
"""Accepted, but not as safe or as effective as it looks (``warning``)."""

LISTENER_BOUND: Final = "listener.bound"
LISTENER_CLOSED: Final = "listener.closed"
LISTENER_BIND_FAILED: Final = "listener.bind_failed"
LISTENER_ACCEPT_FAILED: Final = "listener.accept_failed"
LISTENER_BLOCKED: Final = "listener.blocked"
"""An accept loop does not accept: a bug, for which the watchdog restarts the agent."""
LISTENER_UNWANTED: Final = "listener.unwanted"
"""systemd listens somewhere on behalf of no route; who connects there waits in vain."""

ROUTE_QUARANTINED: Final = "route.quarantined"
ROUTE_CLASSIFIED: Final = "route.classified"
"""What the server says first, or does not, has shown what it speaks, and with it what is kept warm."""
ROUTE_DEMOTED: Final = "route.demoted"
ROUTE_PROMOTED: Final = "route.promoted"

CONTROL_CHANGED: Final = "control.changed"
CONTROL_REFUSED: Final = "control.refused"
"""Somebody who may not steer the agent tried to (``uid``, ``command``)."""

STATUS_REFUSED: Final = "status.refused"
"""Somebody may not see what the status server shows (``why``); once a minute for each reason."""

SESSION_OPENED: Final = "session.opened"
SESSION_PROGRESS: Final = "session.progress"
"""A session that lasts for hours goes on."""
SESSION_CLOSED: Final = "session.closed"
SESSION_REFUSED: Final = "session.refused"

TUNNEL_OPENED: Final = "tunnel.opened"
TUNNEL_CLOSED: Final = "tunnel.closed"
TUNNEL_FAILED: Final = "tunnel.failed"
TUNNELS_LOST: Final = "tunnels.lost"
"""Many warm tunnels of a gateway ended at the same moment."""

TRANSPORT_DOWNGRADED: Final = "transport.downgraded"
"""A gateway does not speak HTTP/2, for which its table asks; once for the table (``why``)."""

POOL_FILLED: Final = "pool.filled"
POOL_STARVED: Final = "pool.starved"

PERIOD_DETECTED: Final = "period.detected"
"""Tunnels of a route keep ending at the same age or idle time: somebody on the way has a limit (``why``)."""

BREAKER_OPENED: Final = "breaker.opened"
BREAKER_CLOSED: Final = "breaker.closed"

CERTIFICATE_EXPIRING: Final = "certificate.expiring"
"""A dial was shown a gateway's certificate that ends soon, or has ended (``gateway``, ``expires_in_ms``)."""

CLOCK_DRIFTED: Final = "clock.drifted"
"""A gateway's clock and this host's are more than a minute apart (``gateway``, ``offset_ms``: what to add to ours)."""

CALLBACK_REFUSED: Final = "callback.refused"
"""Somebody brought a login's token without that login's nonce (``why``)."""

CREDENTIAL_REFRESHED: Final = "credential.refreshed"
CREDENTIAL_REJECTED: Final = "credential.rejected"
CREDENTIAL_EXPIRING: Final = "credential.expiring"
CREDENTIAL_REVOKED: Final = "credential.revoked"
"""A recheck found that a gateway does not know a token any more; ``sessions`` that it had opened were ended."""
CREDENTIAL_UNCHECKED: Final = "credential.unchecked"
"""A recheck got no verdict, the first time in a row; nothing was touched."""
CREDENTIAL_COMMENTED: Final = "credential.commented"
"""A command that printed a token has also said something on standard error (``said``)."""

GREENLET_CRASHED: Final = "greenlet.crashed"

WATCH_DEGRADED: Final = "watch.degraded"
"""inotify is not to be had for a directory; the slow poll alone looks after it."""

LOG_DROPPED: Final = "log.dropped"
"""The reader of standard error was stuck; ``count`` lines are missing before this one."""

LIBRARY_WARNED: Final = "library.warned"
"""A library said so through ``logging`` (``library``, ``message``)."""
