"""One service that turns many Pomerium TCP routes into fixed local ports.

``docs/architecture.md`` is the map of the package. Importing it has no side effect.
"""

__version__ = "0.1.0"
