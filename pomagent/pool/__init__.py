"""Keeps the tunnels of one route warm.

Facts and state:

- ``context``: what every part of one pool shares. ``history``: what the route keeps when its pool is replaced.
- ``state``: what one pool has and does, and a frozen snapshot of it. ``warm_tunnels``: the warm tunnels, watched.

Decisions, pure functions of facts:

- ``decisions``: how many tunnels to dial and when, where a new tunnel goes, which clients a failure concerns.
- ``warm_policy``: what the route keeps warm and why, from its settings, its use and what its server does:
  ``greeting`` (what a server sends first), ``presets`` (by protocol), ``early_closes`` (servers that close them).
- ``demand``: how many tunnels the route needs. ``dial_budget``: how many dials may be under way.
- ``breaker`` and ``backoff``: what failed dials forbid. ``refill_pacing``: when leases and losses allow a refill.
- ``outage``: how long clients are held while a gateway restarts.
- ``hidden_timeouts``: undocumented timeouts on the path. ``expiring_queue``, ``waiters``: what waits, in order.

Actors:

- ``pool``: what sessions and the agent call. ``dialing``: runs the dials. ``housekeeper``: the greenlet that expires
  and refills, which ``wakeup`` wakes. ``status``: what the pool reports.
- ``shared_reserve``: connections that all unused routes of one gateway share. ``reserves``: one for each gateway.
"""

from pomagent.pool.context import PoolContext
from pomagent.pool.history import RouteHistory
from pomagent.pool.pool import Pool

__all__ = ["Pool", "PoolContext", "RouteHistory"]
