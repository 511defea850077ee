"""The identity service behind ``/.pomerium/``: programmatic login, the routes portal, the user (wire §4, §8).

A browser that comes to sign in is signed in at once, unless the test asks for a form with a button. Every URL on the
way carries an HMAC over all of itself, its expiry included, and ends after five minutes. The tokens are HS256 JWTs with
a random ``jti``. Whether one is alive is the authorizer's decision, so that revoking it there ends it everywhere.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.gateway import minted
from tests.gateway.authorizer import Authorizer
from tests.gateway.ports import LOOPBACK

URL_LIFE_S = 300
LEEWAY_S = 60
IDP_ID = "6c1f0b7f0d4b5f0c"
FORM = """<!doctype html><title>Sign in</title>
<form method="post"><button id="sign-in">Sign in as {user}</button></form>
"""
OWN_WORDS = {401: "Unauthenticated", 403: "Forbidden"}
Query = dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What a request is answered with."""

    status: int
    body: str = ""
    kind: str = "text/plain; charset=utf-8"
    location: str = ""


class Identity:
    """Serves on a free loopback port, ``port``. Safe to use from any thread."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As if freshly started. Tokens live on."""
        with self._lock:
            self.user = "alice@example.test"
            self.authenticate_host = ""
            """Host of the sign-in page ("host:port"). "" is the host by which the gateway was asked."""
            self.asks = False
            """Whether the sign-in page has a button to press."""
            self.has_portal = True
            self.clock: Callable[[], float] = time.time
            self.portal: list[dict[str, str]] = []
            self._requests: list[str] = []
            self._minted: list[str] = []
            self._refusal: Reply | None = None

    def start(self) -> None:
        self._server = _Server((LOOPBACK, 0), _Handler)
        self._server.identity = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Blocks until its thread is done."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What a test asks for.

    def list_route(self, name: str, url: str, kind: str = "tcp", description: str = "") -> None:
        """Show a route in the portal."""
        entry = {"id": secrets.token_hex(4), "name": name, "type": kind, "from": url, "description": description}
        if kind in {"tcp", "udp"}:
            entry["connect_command"] = f"pomerium-cli {kind} {url.partition('://')[2]}"
        with self._lock:
            self.portal.append(entry | {"logo_url": ""})

    def refuse(self, status: int, body: str = "", location: str = "") -> None:
        """Answer everything with this until ``reset``. A 401 or 403 without a body is in Pomerium's own words."""
        if status in OWN_WORDS and not body:
            body = json.dumps({"error": OWN_WORDS[status], "request_id": "r-1"})
        with self._lock:
            self._refusal = Reply(status, body, location=location)

    def mint(self, user: str = "", **claims: object) -> str:
        """A session's token, alive from now on."""
        standard = {"jti": secrets.token_hex(8), "sub": user or self.user, "iat": int(self.clock()), "idp_id": IDP_ID}
        signed = f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(standard | claims)}"
        token = f"{signed}.{_base64(hmac.digest(self._key, signed.encode(), hashlib.sha256))}"
        self._authorizer.trust(token)
        with self._lock:
            self._minted.append(minted.remember(token))
        return token

    # What it saw.

    @property
    def requests(self) -> list[str]:
        """Every request so far as "METHOD PATH", oldest first."""
        with self._lock:
            return list(self._requests)

    @property
    def minted(self) -> list[str]:
        """Every token so far, oldest first: one for each completed login."""
        with self._lock:
            return list(self._minted)

    @property
    def sign_ins(self) -> int:
        """How often a browser came to the sign-in page."""
        return sum(line.endswith("/.pomerium/sign_in") for line in self.requests)

    # How it answers.

    def answer(self, method: str, target: str, host: str, headers: dict[str, str]) -> Reply:
        """``host`` is the request's Host header, ``headers`` have lower-case names."""
        parts = urlsplit(target)
        reply = self._refusal or self._answer(method, target, host, headers)
        with self._lock:  # not before: a test that has seen the request may change the next answer
            self._requests.append(f"{method} {parts.path}")
        return reply

    def _answer(self, method: str, target: str, host: str, headers: dict[str, str]) -> Reply:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        match parts.path.removeprefix("/.pomerium/"):
            case "api/v1/login":
                return self._login(method, host, query)
            case "sign_in":
                return self._sign_in(method, f"https://{host}{target}", query)
            case "callback/":
                return self._callback(f"https://{host}{target}", query)
            case "api/v1/routes" if self.has_portal:
                return self._for_users(headers, lambda _: {"routes": self.portal})
            case "user":
                return self._for_users(headers, lambda claims: {"sub": claims["sub"], "email": claims["sub"]})
        return Reply(404, "not found\n")

    def _login(self, method: str, host: str, query: Query) -> Reply:
        if method != "GET":
            return Reply(405)
        if "pomerium_redirect_uri" not in query:
            return Reply(404, "missing pomerium_redirect_uri\n")
        if not _is_loopback(query["pomerium_redirect_uri"]):
            return Reply(400, "invalid redirect uri\n")
        asked = {
            "pomerium_callback_uri": f"https://{host}/.pomerium/callback/",
            "pomerium_idp_id": IDP_ID,
            "pomerium_programmatic": "true",
            "pomerium_redirect_uri": query["pomerium_redirect_uri"],
        }
        return Reply(200, self._signed(f"https://{self.authenticate_host or host}/.pomerium/sign_in", asked))

    def _sign_in(self, method: str, url: str, query: Query) -> Reply:
        if problem := self._problem(url, query):
            return problem
        if self.asks and method != "POST":
            return Reply(200, FORM.format(user=self.user), "text/html; charset=utf-8")
        issuer = urlsplit(url).hostname
        session = {"pomerium_session_encrypted": self.mint(iss=issuer, aud=[issuer])}
        passed = {name: query[name] for name in ("pomerium_programmatic", "pomerium_redirect_uri")}
        return Reply(302, location=self._signed(query["pomerium_callback_uri"], passed | session))

    def _callback(self, url: str, query: Query) -> Reply:
        if problem := self._problem(url, query):
            return problem
        target = urlsplit(query["pomerium_redirect_uri"])
        more = urlencode({"pomerium_jwt": query["pomerium_session_encrypted"]})
        return Reply(302, location=target._replace(query=f"{target.query}&{more}".lstrip("&")).geturl())

    def _for_users(self, headers: dict[str, str], describe: Callable[[dict[str, str]], object]) -> Reply:
        token = headers.get("authorization", "").removeprefix("Bearer Pomerium-").removeprefix("Pomerium ")
        token = token or headers.get("x-pomerium-authorization", "")
        if not self._authorizer.trusts(token):
            return Reply(401, json.dumps({"error": "Unauthenticated", "request_id": "r-1"}), "application/json")
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return Reply(200, json.dumps(describe(claims)), "application/json")

    # Its URLs.

    def _signed(self, url: str, query: Query) -> str:
        now = int(self.clock())
        full = f"{url}?{urlencode({**query, 'pomerium_issued': now, 'pomerium_expiry': now + URL_LIFE_S})}"
        return f"{full}&{urlencode({'pomerium_signature': self._hmac(full)})}"

    def _problem(self, url: str, query: Query) -> Reply | None:
        """What is wrong with a URL that a browser brings: forged, changed on the way (a default port!), or late."""
        full, _, _ = url.partition("&pomerium_signature=")
        if not hmac.compare_digest(self._hmac(full), query.get("pomerium_signature", "")):
            return Reply(400, "internal/urlutil: hmac failed\n")
        if self.clock() > int(query["pomerium_expiry"]) + LEEWAY_S:
            return Reply(400, "internal/urlutil: expired\n")
        return None

    def _hmac(self, text: str) -> str:
        return _base64(hmac.digest(self._key, text.encode(), hashlib.sha256))


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    try:
        is_loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
    return is_loopback and parts.scheme in {"http", "https"}


def _segment(value: dict[str, object]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    identity: Identity


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        assert isinstance(self.server, _Server)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.identity.answer(self.command, self.path, headers.get("host", ""), headers)
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(body)))
        if reply.location:
            self.send_header("Location", reply.location)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815 - http.server looks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing on standard error."""
