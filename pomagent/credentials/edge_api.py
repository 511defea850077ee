"""The gateway's own HTTP endpoints: sign-in URL, user and routes portal (wire contract §4, §8).

Every function blocks: for threads and commands, never for the hub. No error contains a token.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3
from pydantic import SecretStr

from pomagent import __version__
from pomagent.credentials.edge_requests import cause_of, describe, session_for, url_of
from pomagent.credentials.header import header
from pomagent.errors import (
    CredentialRejected,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayRefused,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    OutageInFront,
    RequestRefused,
    RouteForbidden,
    RouteUnknown,
    TunnelError,
)
from pomagent.protocol.connect import Answer
from pomagent.protocol.speaker import REDIRECTS, evidence, interference, is_foreign
from pomagent.protocol.tls_alerts import demands_certificate
from pomagent.runtime.printable import printable
from pomagent.settings import Gateway
from pomagent.transport.tls_context import why_untrusted

ANSWER_TIMEOUT_S = 10.0
"""Maximum seconds for the whole answer to one request. No endpoint waits for a person."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Maximum bytes of an answer. A portal with 10,000 routes needs half of it."""
MAX_PORTAL_CHARACTERS = 4096
"""Maximum length of one text of a portal's route, such as its address or description."""
MAX_URL_CHARACTERS = 16 * 1024
"""Maximum length of the sign-in URL, which becomes a command-line argument."""

Proxies = Mapping[str, str]
"""Forward proxies as ``requests`` takes them: the scheme "https" and the proxy's URL."""

NOT_LOGGED_IN = "not logged in; run pomagent login, or replace the token"

_Row = tuple[Container[int], type[GatewayRefused], str]
_REFUSALS: tuple[_Row, ...] = (
    (REDIRECTS, CredentialRejected, NOT_LOGGED_IN),
    ({401}, CredentialRejected, NOT_LOGGED_IN),
    ({400}, RequestRefused, "not allowed; add this host to the gateway's programmatic_redirect_domain_whitelist"),
    ({403}, RouteForbidden, "forbidden; allow this user in the gateway's policy"),
    ({404}, RouteUnknown, "no such page; check the gateway's URL and whether its Pomerium is recent enough"),
    ({408, 429, *range(500, 600)}, GatewayOverloaded, "the gateway is overloaded or broken; try again later"),
    ({495}, RequestRefused, "a client certificate is required; set client_cert_file and client_key_file"),
)
"""The error of every status but 200. The first row with the status decides."""
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class PortalRoute:
    """One route that the portal lists. The gateway does not disclose its destination."""

    name: str
    type: str
    url: str
    """The route's ``from``."""
    description: str = ""


def sign_in_url(gateway: Gateway, redirect_uri: str, proxies: Proxies | None = None) -> str:
    """Return the URL of a login that ends at ``redirect_uri``, valid for five minutes. Blocks. Raises TunnelError."""
    request = _Request(gateway, "the login", proxies)
    answer = request.get(f"/.pomerium/api/v1/login?pomerium_redirect_uri={quote(redirect_uri, safe='')}")
    if answer.status != 200:
        raise request.refusal(answer)
    url = answer.body[: MAX_URL_CHARACTERS + 1].decode(errors="replace").strip()
    schemes = {"https"} if gateway.tls else {"https", "http"}
    if len(url) > MAX_URL_CHARACTERS or _CONTROL.search(url) or not _is_web_address(url, schemes):
        raise request.misbehaved("the answer is no address of a sign-in page")
    return url


def user(
    gateway: Gateway, token: SecretStr, proxies: Proxies | None = None, scheme: str = "pomerium"
) -> dict[str, Any]:
    """Return the claims of the token's user. Blocks. Raises TunnelError: CredentialRejected if the token is dead."""
    request = _Request(gateway, "the user's page", proxies)
    document = request.document("/.pomerium/user", _headers(gateway, token, scheme))
    if not isinstance(document, dict):
        raise request.misbehaved("the answer is no JSON object")
    return document


def portal_routes(
    gateway: Gateway, token: SecretStr, proxies: Proxies | None = None, scheme: str = "pomerium"
) -> list[PortalRoute]:
    """Return the routes that the portal lists for this token. Blocks. Raises TunnelError, as ``user`` does."""
    request = _Request(gateway, "the routes portal", proxies)
    document = request.document("/.pomerium/api/v1/routes", _headers(gateway, token, scheme))
    routes = document.get("routes") if isinstance(document, dict) else None
    if not isinstance(routes, list):
        raise request.misbehaved("the answer has no list of routes")
    return [_portal_route(entry) for entry in routes if isinstance(entry, dict)]


def _meaning(answer: Answer, path: str) -> tuple[type[GatewayRefused], str, str]:
    """Return the error of an answer, its sentence and the raw detail."""
    if is_foreign(answer, path):
        return OutageInFront, "; ".join(interference(answer)), evidence(answer)
    for statuses, kind, remedy in _REFUSALS:
        if answer.status in statuses:
            return kind, remedy, answer.detail
    return RequestRefused, "look for a proxy in front of the gateway; Pomerium does not answer like this", ""


def _headers(gateway: Gateway, token: SecretStr, scheme: str) -> dict[str, str]:
    return header(gateway.credential_header, scheme, token)


def _portal_route(entry: dict[str, Any]) -> PortalRoute:
    name, kind, url, description = (
        printable(str(entry.get(key) or ""), MAX_PORTAL_CHARACTERS) for key in ("name", "type", "from", "description")
    )
    return PortalRoute(name, kind, url, description)


def _is_web_address(url: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


class _Request:
    """One GET request. ``what`` names its purpose and is the subject of its errors."""

    def __init__(self, gateway: Gateway, what: str, proxies: Proxies | None) -> None:
        self._gateway = gateway
        self._proxies = dict(proxies or {})
        self._named = {"gateway": str(gateway.address), "destination": what}
        self._path = ""

    def document(self, path: str, headers: Mapping[str, str]) -> Any:
        answer = self.get(path, headers)
        if answer.status != 200:
            raise self.refusal(answer)
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise self.misbehaved("the answer is no JSON") from error

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        self._path = path
        url = url_of(self._gateway)
        defaults = {
            "Accept": "application/json",  # otherwise the gateway redirects an expired token to a page
            "Accept-Encoding": "identity",
            "User-Agent": f"pomagent/{__version__}",
            "Host": urlsplit(url).netloc,
        }
        with self._session() as session, self._failures():
            response = session.get(
                url + path, headers={**defaults, **(headers or {})}, allow_redirects=False, stream=True,
                timeout=(self._gateway.connect_timeout_s, ANSWER_TIMEOUT_S), proxies=self._proxies,
            )  # fmt: skip
            with response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, headers, self._body(response))

    def _session(self) -> requests.Session:
        try:
            return session_for(self._gateway, self._named["destination"])
        except OSError as error:  # an SSLError is one
            what = (
                f"check ca_file, client_cert_file and client_key_file; a file cannot be used: {error.strerror or error}"
            )
            raise GatewayUntrusted(what, phase="tls", **self._named) from error

    def _body(self, response: requests.Response) -> bytes:
        end = time.monotonic() + ANSWER_TIMEOUT_S
        body = bytearray()
        while chunk := response.raw.read1(64 * 1024):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise self.misbehaved(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > end:
                raise self._timed_out()
        return bytes(body)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn errors of ``requests`` into ours. They quote headers and URLs, so they are not chained."""
        try:
            yield
        except (requests.exceptions.SSLError, ssl.SSLError) as error:
            raise self._untrusted(cause_of(error, ssl.SSLError)) from None
        except requests.exceptions.Timeout:
            raise self._timed_out() from None
        except requests.exceptions.RequestException as error:
            if alert := cause_of(error, ssl.SSLError):  # TLS 1.3 requires a certificate after the handshake
                raise self._untrusted(alert) from None
            raise self._unreachable(describe(error)) from None
        except (OSError, urllib3.exceptions.HTTPError):  # from a body: requests wraps errors of the head only
            raise self._unreachable("connection lost") from None

    # --- errors ---------------------------------------------------------------------------------------------------

    def refusal(self, answer: Answer) -> TunnelError:
        kind, remedy, detail = _meaning(answer, self._path)
        return kind(
            remedy, detail=detail, status=answer.status, request_id=answer.request_id,
            gateway=self._named["gateway"], destination=self._named["destination"],
        )  # fmt: skip

    def misbehaved(self, cause: str) -> GatewayMisbehaved:
        return GatewayMisbehaved(f"{cause}; does the gateway's URL lead to Pomerium?", phase="answer", **self._named)

    def _timed_out(self) -> GatewayTimedOut:
        return GatewayTimedOut("no answer in time; is the gateway up or overloaded?", phase="answer", **self._named)

    def _unreachable(self, cause: str) -> GatewayUnreachable:
        return GatewayUnreachable(f"{cause}; is the gateway up?", phase="connect", **self._named)

    def _untrusted(self, error: ssl.SSLError | None) -> TunnelError:
        if isinstance(error, ssl.SSLCertVerificationError):
            what = f"its certificate is not accepted: {why_untrusted(error, 'the URL', time.time())}"
            return GatewayUntrusted(what, phase="tls", **self._named)
        reason = (error and error.reason) or "TLS failed"
        if demands_certificate(reason):
            what = "the gateway requires a client certificate it trusts; set client_cert_file and client_key_file"
            return GatewayUntrusted(what, phase="tls", **self._named)
        if "EOF" in reason or isinstance(error, ssl.SSLEOFError):  # a write failed before the alert was read
            return self._unreachable("closed by the gateway, which may require a client certificate")
        words = reason.lower().replace("_", " ")
        return GatewayMisbehaved(f"no TLS there ({words}); check the gateway's URL", phase="tls", **self._named)
