"""HTTP sessions of ``requests`` with one gateway, dialled and verified as its settings require."""

from __future__ import annotations

from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from pomagent.credentials.edge_proxy import connections_through
from pomagent.errors import GatewayUnusable
from pomagent.settings import Gateway
from pomagent.transport.tls_context import make_context

# pomagent warns of verify_tls = false by itself. The library's warning would go to standard error for each request.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

_PORTS = {"https": 443, "http": 80}


def url_of(gateway: Gateway) -> str:
    """Return the gateway's URL without a default port. The gateway signs the name that it gets (wire contract §4.2)."""
    scheme = "https" if gateway.tls else "http"
    host = f"[{gateway.address.host}]" if ":" in gateway.address.host else gateway.address.host
    return f"{scheme}://{host}" + ("" if gateway.address.port == _PORTS[scheme] else f":{gateway.address.port}")


class Adapter(HTTPAdapter):
    """Dials ``connect_to`` with SNI and verified name of the URL, and the gateway's own trust settings."""

    def __init__(self, gateway: Gateway, what: str = "a page") -> None:
        self._gateway = gateway
        self._what = what
        if gateway.problem:
            raise GatewayUnusable(gateway.problem, gateway=str(gateway.address), destination=what, phase="tls")
        self._context = make_context(gateway.trust) if gateway.tls else None
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if self._gateway.proxy is not None:
            pool.ConnectionCls = connections_through(self._gateway, self._context, self._what)
        return pool

    def build_connection_pool_key_attributes(self, *_request: Any, **_options: Any) -> tuple[Any, Any]:
        """Use our TLS context, which replaces a request's ``verify`` and ``cert``."""
        dial_address = self._gateway.dial_address
        host = {"scheme": "https" if self._context else "http", "host": dial_address.host, "port": dial_address.port}
        tls = {"ssl_context": self._context, "server_hostname": self._gateway.address.host} if self._context else {}
        return host, tls

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing, because ``requests`` would add its own CA bundle to ours."""


def session_for(gateway: Gateway, what: str = "a page") -> requests.Session:
    """Return a session for this gateway only, through its forward proxy if it has one. ``what`` names its purpose."""
    session = requests.Session()
    session.trust_env = False  # ignore ~/.netrc, which would replace our header, and proxy variables
    session.mount(f"{url_of(gateway)}/", Adapter(gateway, what))
    return session


def cause_of(error: BaseException, kind: type[Any]) -> Any:
    """Return the innermost error of that kind among an error's causes and arguments."""
    found, seen, rest = None, set[int](), [error]
    while rest:
        current = rest.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, kind) and not isinstance(current, requests.exceptions.RequestException):
            found = current
        inner = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        rest += [item for item in inner if isinstance(item, BaseException)]
    return found


def describe(error: requests.exceptions.RequestException) -> str:
    """Return the system's description of an error, without the library's wrapping."""
    cause = cause_of(error, OSError)
    if cause is not None and cause.strerror:
        return str(cause.strerror).lower()
    return "the name has no address" if "resol" in str(error).lower() else "connection lost"
