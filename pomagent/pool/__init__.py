"""Keeps the tunnels of one route warm: ``Pool`` acts, every other module of the package decides and does no I/O.

- ``pool``: dials, hands out, watches, discards.
- ``stock``: what is warm, the oldest first, and for how long. ``demand``: how much should be.
- ``waiters``: the clients in line. ``dials``: how many dials to begin for them, and how many to fill up.
- ``backoff``: how long to wait after failures.
"""

from pomagent.pool.memory import Memory
from pomagent.pool.pool import Pool

__all__ = ["Memory", "Pool"]
