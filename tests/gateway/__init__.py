"""An embedded gateway that behaves like a Pomerium edge: the other end of the tests, and of ``scripts/demo``.

- ``facade``: ``Gateway``, starts and stops all of it.
- ``edge``: a real Envoy. ``configuration`` and ``listener``: its configuration. ``certificates``: its certificates,
  ``access`` and ``admin``: its reports.
- ``authorizer``: decides by token, over gRPC (``protobuf``). ``tokens``: mints them.
- ``identity``: logs browsers in and lists routes, behind ``/.pomerium/``.
- ``destinations``: the servers behind its routes.
- ``client``: a CONNECT by hand, to measure against. ``agent_toml``: the agent's file for this gateway.
- ``waiting``, ``ports``, ``tether``: conditions, free ports, processes that do not outlive us.

Everything listens on loopback only. Nothing here is part of the agent. Importing the package itself imports nothing,
so that unit tests can wait for conditions without Envoy and gRPC.
"""
