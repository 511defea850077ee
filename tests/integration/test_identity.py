"""The embedded gateway's identity service behaves like Pomerium's (wire contract §4, §8)."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import LOOPBACK

REDIRECT = "http://127.0.0.1:41234/cb/nonce?x=1"
LOGIN = f"/.pomerium/api/v1/login?pomerium_redirect_uri={quote(REDIRECT, safe='')}"


class Requester:
    """Sends requests to the gateway with any Host header."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.host = f"{gateway.host}:{gateway.port}"

    def __call__(
        self, target: str, host: str = "", method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Return status, body and location."""
        context = ssl.create_default_context(cafile=str(self._gateway.ca_file))
        context.check_hostname = False
        connection = http.client.HTTPSConnection(LOOPBACK, self._gateway.port, timeout=10, context=context)
        try:
            connection.request(method, target, headers={"Host": host or self.host, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read().decode(), response.getheader("location", "")
        finally:
            connection.close()

    def open(self, url: str, **options: str) -> tuple[int, str, str]:
        parts = urlsplit(url)
        return self(f"{parts.path}?{parts.query}", options.pop("host", parts.netloc), **options)


@pytest.fixture
def request_(gateway: Gateway) -> Iterator[Requester]:
    return Requester(gateway)


def test_a_login_ends_with_a_token_that_opens_tunnels(request_: Requester, gateway: Gateway) -> None:
    status, url, _ = request_(LOGIN)
    assert (status, urlsplit(url).path) == (200, "/.pomerium/sign_in")
    status, _, url = request_.open(url)
    assert (status, urlsplit(url).path) == (302, "/.pomerium/callback/")
    status, _, url = request_.open(url)
    assert (status, url.startswith(f"{REDIRECT}&pomerium_jwt=")) == (302, True)
    (token,) = parse_qs(urlsplit(url).query)["pomerium_jwt"]
    with gateway.connect(destination("echo"), token) as tunnel:
        assert tunnel.reply.status == 200


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        ("/.pomerium/api/v1/login", "GET", 404),
        (LOGIN, "POST", 405),
        ("/.pomerium/api/v1/login?pomerium_redirect_uri=https%3A%2F%2Fevil.example.com%2F", "GET", 400),
        ("/.pomerium/api/v1/login?pomerium_redirect_uri=ftp%3A%2F%2F127.0.0.1%2F", "GET", 400),
        ("/.pomerium/api/v1/login?pomerium_redirect_uri=http%3A%2F%2Flocalhost%3A1%2F", "GET", 200),
        ("/.pomerium/api/v1/login?pomerium_redirect_uri=http%3A%2F%2F%5B%3A%3A1%5D%3A1%2F", "GET", 200),
        ("/.pomerium/other", "GET", 404),
    ],
)
def test_only_a_redirect_to_loopback_is_allowed(request_: Requester, target: str, method: str, expected: int) -> None:
    assert request_(target, method=method)[0] == expected


def test_a_default_port_breaks_the_signature_of_a_url(request_: Requester) -> None:
    """A browser drops ":443", which the signature covers."""
    _, url, _ = request_(LOGIN, host="gateway.example.test:443")
    status, body, _ = request_.open(url, host="gateway.example.test")
    assert (status, "hmac failed" in body) == (400, True)
    _, url, _ = request_(LOGIN, host="gateway.example.test")
    assert request_.open(url)[0] == 302


@pytest.mark.parametrize(("later_s", "expected"), [(0, 302), (300, 302), (359, 302), (362, 400)])
def test_a_sign_in_url_is_valid_for_five_minutes(
    request_: Requester, gateway: Gateway, later_s: float, expected: int
) -> None:
    now = time.time()
    gateway.identity.clock = lambda: now
    _, url, _ = request_(LOGIN)
    gateway.identity.clock = lambda: now + later_s
    assert request_.open(url)[0] == expected


def test_a_changed_url_is_refused(request_: Requester) -> None:
    _, url, _ = request_(LOGIN)
    assert request_.open(url.replace("41234", "41235"))[0] == 400


def test_a_form_waits_for_its_button(request_: Requester, gateway: Gateway) -> None:
    gateway.identity.asks = True
    _, url, _ = request_(LOGIN)
    assert (request_.open(url)[0], gateway.identity.minted) == (200, [])
    assert request_.open(url, method="POST")[0] == 302


def test_user_and_portal_require_a_living_token(request_: Requester, gateway: Gateway) -> None:
    gateway.identity.list_route("db", "tcp+https://db.example.test:5432")
    token = gateway.identity.mint()
    for form in (f"Pomerium {token}", f"Bearer Pomerium-{token}"):
        status, body, _ = request_("/.pomerium/user", headers={"Authorization": form})
        assert (status, json.loads(body)["email"]) == (200, "alice@example.test")
        status, body, _ = request_("/.pomerium/api/v1/routes", headers={"Authorization": form})
        assert (status, json.loads(body)["routes"][0]["name"]) == (200, "db")
    gateway.authorizer.revoke(token)
    for path in ("/.pomerium/user", "/.pomerium/api/v1/routes"):
        assert request_(path, headers={"Authorization": f"Pomerium {token}"})[0] == 401
        assert request_(path)[0] == 401
