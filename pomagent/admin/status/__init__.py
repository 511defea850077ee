"""The agent's status as a JSON document, health, metrics and a page, and the read-only HTTP server for them.

``documents`` builds the JSON for commands. ``route_states`` holds each route's state, ``health`` turns that into
answers for probes. ``snapshot`` collects numbers on the hub, and ``metrics`` formats them for Prometheus off the hub.
``resources`` maps paths to handlers, ``http`` serves one request on one connection, ``server`` owns the address.
"""
