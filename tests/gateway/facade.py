"""``Gateway``: authorizer, edge and destinations as one thing that starts and stops."""

import contextlib
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.gateway import client, tokens
from tests.gateway.authorizer import Authorizer
from tests.gateway.certificates import A_DAY, Authority, Certificate
from tests.gateway.configuration import Route
from tests.gateway.destinations import HANDLERS, Destinations
from tests.gateway.edge import Edge
from tests.gateway.identity import Identity
from tests.gateway.listener import ListenerOptions
from tests.gateway.ports import LOOPBACK, ReservedPort

HOST = "gateway.example.test"
IDLE_ROUTE_TIMEOUT_S = 1


def destination(name: str) -> str:
    """What a CONNECT to this route names: ``echo`` → ``echo.example.test:7000``."""
    return f"{name}.example.test:7000"


class Gateway:
    """A running gateway with a route to each of the ``destinations``, and these:

    ``public`` (echo without a credential), ``idle`` (echo. Cut after a second without a byte), ``down`` (refuses
    connections), ``noconnect`` (a route that does not allow CONNECT).

    Further routes, by "host:port", come from ``routes`` or ``add_route``. Other keywords are ``ListenerOptions``.
    """

    def __init__(self, routes: dict[str, Route] | None = None, drain_time_s: int = 600, **listener: Any) -> None:
        self._stack = contextlib.ExitStack()
        self._extra_routes = routes or {}
        self._drain_time_s = drain_time_s
        self._listener = listener
        self.host = HOST
        self.token = tokens.mint()
        self.forbidden_token = tokens.mint("guest@example.test")
        self.authorizer = Authorizer()
        self.identity = Identity(self.authorizer)
        self.destinations = Destinations()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def port(self) -> int:
        """The edge's port on 127.0.0.1."""
        return self.edge.port

    @property
    def url(self) -> str:
        """The gateway's URL. Nothing resolves its host, so a client needs ``connect_to`` as well."""
        return f"https://{HOST}:{self.port}"

    @property
    def connect_to(self) -> str:
        """The address behind the URL, "127.0.0.1:PORT"."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """What a client has to trust."""
        return self.authority.ca_file

    @property
    def untrusted_certificate(self) -> Certificate:
        """A certificate for the right names from an untrusted authority."""
        return Authority(self.directory, "stranger").issue_server("untrusted")

    @property
    def expired_certificate(self) -> Certificate:
        """A certificate for the right names, from the right authority, that has expired."""
        return self.authority.issue_server("expired", expires_in=-A_DAY)

    def new_token(self, **claims: Any) -> str:
        """Another token that opens every route. ``claims`` as in ``tokens.mint``."""
        token = tokens.mint(**claims)
        self.authorizer.trust(token)
        return token

    def connect(self, address: str, token: str | None = None, **headers: str) -> client.Tunnel:
        """A CONNECT by hand, with the good token unless another is given ("" for none). Closes with its ``with``."""
        token = self.token if token is None else token
        if token:
            headers["Authorization"] = f"Pomerium {token}"
        return client.connect(self.secure(), address, headers)

    def secure(self, certificate: Certificate | None = None) -> ssl.SSLSocket:
        """A TLS connection by hand, with a client certificate if one is given."""
        return client.secure((LOOPBACK, self.port), HOST, self.ca_file, certificate)

    def add_route(self, address: str, upstream_port: int, **options: Any) -> str:
        """Serve "host:port" from a loopback port, at once. ``options`` as in ``Route``. Returns the address."""
        self.edge.set_route(address, Route((LOOPBACK, upstream_port), **options))
        return address

    def remove_route(self, address: str) -> None:
        """Stop serving "host:port", at once."""
        self.edge.remove_route(address)

    @contextlib.contextmanager
    def route(self, address: str, upstream_port: int, **options: Any) -> Iterator[str]:
        """``add_route`` for as long as the ``with`` lasts."""
        self.add_route(address, upstream_port, **options)
        try:
            yield address
        finally:
            self.remove_route(address)

    def recover(self) -> None:
        """As if freshly started: running, well-behaved, nothing recorded. Its routes stay as they are."""
        self.edge.resume()
        self.edge.start()
        self.authorizer.behave()
        self.authorizer.forget()
        self.identity.reset()

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pomagent-gateway-")))
        self.authority = Authority(self.directory)
        self._start_servers(stack)
        self._start_edge(stack)

    def _start_servers(self, stack: contextlib.ExitStack) -> None:
        self.authorizer.trust(self.token)
        self.authorizer.forbid_token(self.forbidden_token)
        self.authorizer.start()
        stack.callback(self.authorizer.stop)
        self.identity.start()
        stack.callback(self.identity.stop)
        self.destinations.start()
        stack.callback(self.destinations.stop)
        self._down = ReservedPort()
        stack.callback(self._down.release)

    def _start_edge(self, stack: contextlib.ExitStack) -> None:
        listener = ListenerOptions(**{"certificate": self.authority.issue_server(), **self._listener})
        routes = self._own_routes() | self._extra_routes
        self.edge = Edge(self.directory, self.authorizer.port, self.identity.port, listener, routes, self._drain_time_s)
        stack.callback(self.edge.close)
        self.edge.start()

    def _own_routes(self) -> dict[str, Route]:
        routes = {name: Route(self.destinations.address(name)) for name in HANDLERS}
        echo = self.destinations.address("echo")
        routes["public"] = Route(echo, public=True)
        routes["idle"] = Route(echo, idle_timeout_s=IDLE_ROUTE_TIMEOUT_S)
        routes["down"] = Route((LOOPBACK, self._down.port))
        routes["noconnect"] = Route(echo, connect_enabled=False)
        return {destination(name): route for name, route in routes.items()}
