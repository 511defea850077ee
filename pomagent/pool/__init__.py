"""Keeps the tunnels of one route warm. Five modules act; the others decide, without I/O, clocks and dice of their own.

- ``pool``: what sessions and the agent ask of it. ``keeper``: looks after what is warm. ``shelf``: holds and watches
  it. ``supplier``: begins dials, and tells whom their outcome concerns. ``reserve``: what the unused routes of a
  gateway have in common.
- ``warmth``: at which level what is kept, and why: ``greeting`` (what the server says first), ``early_ends`` (whether
  it bears idle tunnels), use. ``period``: limits that nobody tells. ``memory``: what outlives a pool.
- ``stock``: the oldest first, each for how long. ``demand``: how many. ``waiters``: the clients in line. ``dials``: how
  many dials for them, how many to fill up.
- ``breaker``, ``backoff``: when dials have failed.
"""

from pomagent.pool.history import RouteHistory
from pomagent.pool.pool import Pool

__all__ = ["Pool", "RouteHistory"]
