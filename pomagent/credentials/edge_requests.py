"""HTTP to an edge by ``requests``, dialled and verified as the gateway's table says."""

from __future__ import annotations

from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from pomagent.credentials.edge_proxy import connections_through
from pomagent.settings import Gateway
from pomagent.transport.tls_context import make_context

# verify_tls = false is warned of where it is set; the library's own warning would go to standard error each time.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

_PORTS = {"https": 443, "http": 80}


def url_of(gateway: Gateway) -> str:
    """The gateway's URL without a default port: the edge signs what it is called (wire contract §4.2)."""
    scheme = "https" if gateway.tls else "http"
    host = f"[{gateway.address.host}]" if ":" in gateway.address.host else gateway.address.host
    return f"{scheme}://{host}" + ("" if gateway.address.port == _PORTS[scheme] else f":{gateway.address.port}")


class Adapter(HTTPAdapter):
    """Dials ``connect_to`` while SNI and the verified name stay the URL's, and trusts what the gateway's table says."""

    def __init__(self, gateway: Gateway, what: str = "a page") -> None:
        self._gateway = gateway
        self._what = what
        self._context = make_context(gateway.trust) if gateway.tls else None
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if self._gateway.proxy is not None:
            pool.ConnectionCls = connections_through(self._gateway, self._context, self._what)
        return pool

    def build_connection_pool_key_attributes(self, *_request: Any, **_options: Any) -> tuple[Any, Any]:
        """Our own: what ``requests`` makes of a request's ``verify`` and ``cert`` is in our context already."""
        dialled = self._gateway.dial_address
        host = {"scheme": "https" if self._context else "http", "host": dialled.host, "port": dialled.port}
        tls = {"ssl_context": self._context, "server_hostname": self._gateway.address.host} if self._context else {}
        return host, tls

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Add nothing: requests would trust its own bundle of CAs beside ours."""


def session_for(gateway: Gateway, what: str = "a page") -> requests.Session:
    """For requests to the gateway only, by way of its forward proxy if it has one; ``what`` they are for."""
    session = requests.Session()
    session.trust_env = False  # no ~/.netrc, which would replace our header, and no proxy that nobody asked for
    session.mount(f"{url_of(gateway)}/", Adapter(gateway, what))
    return session


def cause_of(error: BaseException, kind: type[Any]) -> Any:
    """The innermost error of that kind among an error's causes and arguments."""
    found, seen, rest = None, set[int](), [error]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, kind) and not isinstance(one, requests.exceptions.RequestException):
            found = one
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        rest += [item for item in inner if isinstance(item, BaseException)]
    return found


def words_of(error: requests.exceptions.RequestException) -> str:
    """What the system said, without the library's own wrapping."""
    cause = cause_of(error, OSError)
    if cause is not None and cause.strerror:
        return str(cause.strerror).lower()
    return "no address for the name" if "resol" in str(error).lower() else "connection lost"
