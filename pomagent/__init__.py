"""One service that turns many Pomerium TCP routes into fixed local ports.

The map of the package, in the order in which a connection meets it:

- ``cli``: commands; turns errors into sentences and exit codes.
- ``config``: ``agent.toml`` and the environment to ``settings.Settings``, or every problem with its line.
- ``agent``: builds everything, applies plans, drains. ``watch``, ``reload`` and ``plan``: how an edit gets there.
- ``listener`` → ``forwarder`` → ``pool`` → ``relay``: one session, from accept to close.
- ``connector`` → ``dial`` → ``gate`` → ``hop``, ``forward_proxy`` → ``stream`` → ``tunnel``, ``credentials``: one
  tunnel, from DNS to the gateway's answer. ``recheck``: whether that answer still holds.
- ``service``: the process, from start to end. ``upgrade``: how another one takes its place.
- ``status``: what it says of itself, and to whom; ``control``: who may steer it, ``steering``: how. ``diagnosis``: what
  is mailed to whoever helps.
- ``protocol``, ``deadline``, and in ``pool`` all but ``pool.pool``: decisions without sockets and clocks.
- ``errors``, ``events``, ``log``, ``settings``: leaves that everything may import.

Importing the package has no side effect.
"""

__version__ = "0.1.0"
