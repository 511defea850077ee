"""The authorize service of a Pomerium-like gateway: Envoy asks it over gRPC about every request.

It speaks ``envoy.service.auth.v3.Authorization/Check`` and answers like Pomerium's own: allowed, sent to sign-in,
401, 403 — or, at a test's request, with any other answer, with a failure, or never. It runs on grpc's own threads.
"""

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from tests.gateway import protobuf
from tests.gateway.ports import LOOPBACK

SERVICE = "envoy.service.auth.v3.Authorization"
SIGN_IN_URL = "https://authenticate.example.test/.pomerium/sign_in?pomerium_redirect_uri=…"
MAX_WORKERS = 32  # as many checks may hang at a time before further ones queue
OK, PERMISSION_DENIED, OVERWRITE = 0, 7, 2  # google.rpc.Code twice, HeaderValueOption.append_action
TITLES = {302: "Found", 401: "Unauthenticated", 403: "Forbidden", 404: "Not Found", 495: "SSL Certificate Required"}


@dataclass(frozen=True)
class Check:
    """One request that the gateway asked about."""

    method: str
    host: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    context: Mapping[str, str] = field(repr=False)
    certificate: str = field(default="", repr=False)
    """The client's, as PEM. "" if it showed none."""

    @property
    def token(self) -> str:
        """The session token in any of the header forms that Pomerium reads, or ""."""
        authorization = self.headers.get("authorization", "")
        for prefix in ("Pomerium ", "Bearer Pomerium-", "Bearer "):
            if authorization.startswith(prefix):
                return authorization.removeprefix(prefix)
        return self.headers.get("x-pomerium-authorization", "")

    @property
    def request_id(self) -> str:
        """The id that the client sees as ``x-request-id`` in the answer."""
        return self.headers.get("x-request-id", "")

    @property
    def wants_json(self) -> bool:
        return "application/json" in self.headers.get("accept", "")

    @property
    def is_internal(self) -> bool:
        """A path of the gateway itself, such as /healthz, which needs no login."""
        return self.context.get("internal") == "true"

    @property
    def is_public(self) -> bool:
        return self.context.get("public") == "true"


@dataclass(frozen=True)
class Denial:
    """An answer that Envoy passes to the client instead of opening a tunnel."""

    status: int
    headers: Mapping[str, str]
    body: str


class Authorizer:
    """Decides by token, records every check, and misbehaves when a test asks for it.

    Safe to use from any thread. What a method changes holds for the next check.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checks: list[Check] = []
        self._good_tokens: set[str] = set()
        self._forbidden_tokens: set[str] = set()
        self._forbidden_hosts: set[str] = set()
        self._misbehave: Callable[[grpc.ServicerContext], None] | None = None
        self._refusal: Denial | None = None
        self._client_ca: x509.Certificate | None = None
        self._certificate_hosts: frozenset[str] | None = None
        self._released = threading.Event()

    def start(self) -> None:
        """Serve on a free loopback port, ``port``."""
        self._server = grpc.server(ThreadPoolExecutor(MAX_WORKERS, "authorizer"))
        check = grpc.unary_unary_rpc_method_handler(self._answer, bytes, bytes)
        service = grpc.method_handlers_generic_handler(SERVICE, {"Check": check})
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:0")
        self._server.start()

    def stop(self) -> None:
        """Stop serving. Checks that hang end now. Blocks until the threads are done."""
        self.behave()
        self._server.stop(grace=None).wait()

    # What the tokens are good for.

    def trust(self, token: str) -> None:
        """Accept this token from now on, for every route that is not forbidden."""
        with self._lock:
            self._good_tokens.add(token)

    def revoke(self, token: str) -> None:
        """Reject this token from now on with 401. Open tunnels live on, as they do with Pomerium."""
        with self._lock:
            self._good_tokens.discard(token)

    def trusts(self, token: str) -> bool:
        """Whether this token is alive, whatever it opens."""
        with self._lock:
            return token in self._good_tokens | self._forbidden_tokens

    def forbid_token(self, token: str) -> None:
        """Deny this token every route from now on with 403."""
        with self._lock:
            self._forbidden_tokens.add(token)

    def forbid_host(self, host: str) -> None:
        """Deny every token this destination ("host:port") from now on with 403."""
        with self._lock:
            self._forbidden_hosts.add(host)

    def permit_host(self, host: str) -> None:
        """Takes ``forbid_host`` back."""
        with self._lock:
            self._forbidden_hosts.discard(host)

    def require_certificate(self, ca_file: Path, *hosts: str) -> None:
        """Answer 495 without a client certificate of this CA, for these destinations or for all.

        All is Pomerium's ``policy_with_default_deny``, some is its ``policy`` with a rule that asks for one.
        """
        with self._lock:
            self._client_ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
            self._certificate_hosts = frozenset(hosts) if hosts else None

    # How it behaves.

    def behave(self) -> None:
        """Answer normally again, for every destination. Checks that hang are answered now."""
        with self._lock:
            self._misbehave, self._refusal = None, None
            self._forbidden_hosts.clear()
            self._released.set()

    def hang(self) -> None:
        """Answer no check until ``behave``. The gateway gives up after its own timeout with a 503."""
        with self._lock:
            self._released = threading.Event()
            self._misbehave = _wait_for(self._released)

    def fail(self) -> None:
        """Fail every check, so that the gateway answers 503 with an empty body."""
        with self._lock:
            self._misbehave = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "told to fail")

    def refuse(self, status: int, headers: Mapping[str, str] | None = None, body: str = "") -> None:
        """Answer every check for a route with this, whatever its token.

        A status of Pomerium's own without ``headers`` and ``body`` is answered in Pomerium's own words.
        """
        with self._lock:
            self._refusal = Denial(status, headers or {}, body)

    # What it saw.

    @property
    def checks(self) -> list[Check]:
        """Every check so far, oldest first, answered or not."""
        with self._lock:
            return list(self._checks)

    def checks_for(self, host: str) -> list[Check]:
        """The checks for one destination, "host:port"."""
        return [check for check in self.checks if check.host == host]

    def forget(self) -> None:
        """Start the record anew."""
        with self._lock:
            self._checks.clear()

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        check = parse_check(request)
        with self._lock:
            self._checks.append(check)
            misbehave = self._misbehave
        if misbehave:
            misbehave(context)
        with self._lock:
            denial = self._decide(check)
        return encode_denial(denial) if denial else encode_permission()

    def _decide(self, check: Check) -> Denial | None:
        if check.is_internal:
            return None
        if refusal := self._refusal:
            is_own = refusal.status in TITLES and not refusal.headers and not refusal.body
            return denial(check, refusal.status) if is_own else refusal
        if self._wants_certificate(check):
            return denial(check, 495)
        if check.host in self._forbidden_hosts or check.token in self._forbidden_tokens:
            return denial(check, 403)
        if check.is_public or check.token in self._good_tokens:
            return None
        return denial(check, 401 if check.token or check.wants_json else 302)

    def _wants_certificate(self, check: Check) -> bool:
        if self._client_ca is None or (self._certificate_hosts and check.host not in self._certificate_hosts):
            return False
        return not _is_issued_by(check.certificate, self._client_ca)


def _is_issued_by(pem: str, authority: x509.Certificate) -> bool:
    try:
        x509.load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):  # none at all. Of another name. Of another key
        return False
    return True


def _wait_for(released: threading.Event) -> Callable[[grpc.ServicerContext], None]:
    def wait(_context: grpc.ServicerContext) -> None:
        released.wait()

    return wait


def denial(check: Check, status: int) -> Denial:
    """Pomerium's own page or JSON for a status. Only the page carries the "intercepted" header."""
    title = TITLES[status]
    if check.wants_json:
        body = json.dumps({"error": title, "request_id": check.request_id})
        return Denial(status, {"content-type": "application/json"}, body)
    headers = {"content-type": "text/html; charset=UTF-8", "x-pomerium-intercepted-response": "true"}
    if status == 302:
        headers["location"] = SIGN_IN_URL
    return Denial(status, headers, f"<!doctype html><title>{status} {title}</title><p>{check.request_id}</p>\n")


def parse_check(request: bytes) -> Check:
    """A CheckRequest: attributes(1), in it source(1), request(4).http(2) and context_extensions(10)."""
    attributes = protobuf.inner(protobuf.decode(request), 1)
    http = protobuf.inner(protobuf.inner(attributes, 4), 2)
    return Check(
        method=protobuf.text(http, 2),
        host=protobuf.text(http, 5),
        path=protobuf.text(http, 4),
        headers=protobuf.string_map(http, 3),
        context=protobuf.string_map(attributes, 10),
        certificate=unquote(protobuf.text(protobuf.inner(attributes, 1), 5)),
    )


def encode_permission() -> bytes:
    """A CheckResponse with status(1) OK and an empty ok_response(3)."""
    return protobuf.encode_bytes(1, protobuf.encode_int(1, OK)) + protobuf.encode_bytes(3, b"")


def encode_denial(denial: Denial) -> bytes:
    """A CheckResponse with denied_response(2): status(1).code(1), headers(2), body(3)."""
    response = protobuf.encode_bytes(1, protobuf.encode_int(1, denial.status))
    response += b"".join(_encode_header(name, value) for name, value in denial.headers.items())
    response += protobuf.encode_bytes(3, denial.body)
    status = protobuf.encode_int(1, PERMISSION_DENIED)
    return protobuf.encode_bytes(1, status) + protobuf.encode_bytes(2, response)


def _encode_header(name: str, value: str) -> bytes:
    """A HeaderValueOption: header(1) with key(1) and value(2), append_action(3)."""
    header = protobuf.encode_bytes(1, name) + protobuf.encode_bytes(2, value)
    return protobuf.encode_bytes(2, protobuf.encode_bytes(1, header) + protobuf.encode_int(3, OVERWRITE))
