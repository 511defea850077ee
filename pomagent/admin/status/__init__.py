"""What the agent tells about itself: as one document, as health, as metrics, and the read-only HTTP server for them.

``document`` is for commands. ``states`` says how each route is, ``health`` turns that into answers for probes.
``facts`` gathers numbers on the hub and ``metrics`` writes them as Prometheus reads them, off the hub. ``site`` knows
which path shows what, ``conversation`` is one request on one connection, ``server`` owns the address.
"""
