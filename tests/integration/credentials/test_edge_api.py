"""The gateway's HTTP endpoints, requested through a real Envoy."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from pomagent.credentials import edge_api, edge_requests
from pomagent.errors import (
    CredentialRejected,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    RequestRefused,
    RouteForbidden,
    RouteUnknown,
    TunnelError,
)
from pomagent.settings import Gateway as Settings
from pomagent.settings import HostPort, Trust
from tests.gateway.certificates import Authority
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK

REDIRECT = "http://127.0.0.1:41234/cb/nonce"


def settings_of(gateway: Gateway) -> Settings:
    return Settings(
        "demo", HostPort(gateway.host, gateway.port), connect_to=HostPort(LOOPBACK, gateway.port),
        trust=Trust(ca_file=gateway.ca_file),
    )  # fmt: skip


@pytest.fixture
def settings(gateway: Gateway) -> Settings:
    return settings_of(gateway)


@pytest.fixture
def token(gateway: Gateway) -> SecretStr:
    return SecretStr(gateway.identity.mint())


def test_the_sign_in_url_has_the_gateways_name_and_our_redirect(settings, gateway):
    parts = urlsplit(edge_api.sign_in_url(settings, REDIRECT))
    query = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc) == ("https", f"{gateway.host}:{gateway.port}")
    assert query["pomerium_redirect_uri"] == [REDIRECT]


@pytest.mark.parametrize(
    ("address", "tls", "expected"),
    [
        (HostPort("edge.example.com", 443), True, "https://edge.example.com"),
        (HostPort("edge.example.com", 8443), True, "https://edge.example.com:8443"),
        (HostPort("edge.example.com", 80), False, "http://edge.example.com"),
        (HostPort("edge.example.com", 443), False, "http://edge.example.com:443"),
        (HostPort("2001:db8::1", 443), True, "https://[2001:db8::1]"),
    ],
)
def test_a_default_port_is_omitted_from_the_url(address, tls, expected):
    assert edge_requests.url_of(Settings("x", address, tls=tls)) == expected


def test_user_and_portal_routes_are_returned(settings, gateway, token):
    gateway.identity.list_route("db\x1b[2J", "tcp+https://db.example.test:5432", description="Orders")
    assert edge_api.user(settings, token)["email"] == "alice@example.test"
    (route,) = edge_api.portal_routes(settings, token)
    assert route == edge_api.PortalRoute("db[2J", "tcp", "tcp+https://db.example.test:5432", "Orders")


def test_the_token_is_sent_in_the_configured_header(settings, token):
    assert edge_api.user(replace(settings, credential_header="x-pomerium-authorization"), token)["email"]


def test_a_dead_token_is_rejected(settings, gateway, token):
    gateway.authorizer.revoke(token.get_secret_value())
    with pytest.raises(CredentialRejected, match=r"not logged in; .* \(401 from"):
        edge_api.user(settings, token)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (302, CredentialRejected), (307, CredentialRejected), (401, CredentialRejected), (400, RequestRefused),
        (403, RouteForbidden), (404, RouteUnknown), (408, GatewayOverloaded), (418, RequestRefused),
        (429, GatewayOverloaded), (495, RequestRefused), (500, GatewayOverloaded), (503, GatewayOverloaded),
    ],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", ["sign_in_url", "user", "portal_routes"])
def test_every_status_has_its_error_and_no_redirect_is_followed(settings, gateway, token, status, error, endpoint):
    gateway.identity.refuse(status, location="/.pomerium/elsewhere")
    argument = REDIRECT if endpoint == "sign_in_url" else token
    with pytest.raises(error) as refused:
        getattr(edge_api, endpoint)(settings, argument)
    assert (type(refused.value), refused.value.status) == (error, status)
    assert str(status) in str(refused.value)
    assert gateway.identity.requests[1:] == []


@pytest.mark.parametrize("body", ["", "javascript:alert(1)", "file:///etc/passwd", "http://x.example.com/", "/relative",
                                  "https://x.example.com/a b", "https://x.example.com/\nhttps://y", "https://",
                                  "https://x.example.com/" + "a" * 20_000, "<html>"])  # fmt: skip
def test_an_answer_that_is_no_web_address_is_rejected(settings, gateway, body):
    gateway.identity.refuse(200, body)
    with pytest.raises(GatewayMisbehaved, match="no address of a sign-in page"):
        edge_api.sign_in_url(settings, REDIRECT)


@pytest.mark.parametrize("body", ["", "[]", "null", "{", "[" * 100_000, '{"routes": 1}', "<html>"])
def test_a_malformed_portal_answer_is_rejected(settings, gateway, token, body):
    gateway.identity.refuse(200, body)
    with pytest.raises(GatewayMisbehaved):
        edge_api.portal_routes(settings, token)


@pytest.mark.parametrize(("more", "is_read"), [(-1, True), (0, True), (1, False)])
def test_a_long_answer_is_rejected(settings, gateway, token, monkeypatch, more, is_read):
    monkeypatch.setattr(edge_api, "MAX_ANSWER_BYTES", 5000)
    start = '{"routes": [], "x": "'
    gateway.identity.refuse(200, start + "y" * (5000 + more - len(start) - 2) + '"}')
    if is_read:
        assert edge_api.portal_routes(settings, token) == []
    else:
        with pytest.raises(GatewayMisbehaved, match="larger than 5000"):
            edge_api.portal_routes(settings, token)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Authority]]:
    directory: Path = tmp_path_factory.mktemp("clients")
    clients = Authority(directory, "clients")
    with Gateway(client_ca_file=clients.ca_file) as gateway:
        yield gateway, clients


class TestTrust:
    def test_only_the_configured_authority_is_trusted(self, settings):
        with pytest.raises(GatewayUntrusted, match="unable to get local issuer"):
            edge_api.sign_in_url(replace(settings, trust=Trust()), REDIRECT)

    def test_an_authority_given_as_text_is_trusted(self, settings, gateway):
        assert edge_api.sign_in_url(replace(settings, trust=Trust(ca_pem=gateway.ca_file.read_text())), REDIRECT)

    def test_the_name_of_the_url_is_verified_with_connect_to(self, settings, gateway):
        other = replace(settings, address=HostPort("gateway.example.com", gateway.port))
        with pytest.raises(GatewayUntrusted, match="certificate is not valid for"):
            edge_api.sign_in_url(other, REDIRECT)

    @pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
    def test_verification_can_be_disabled(self, settings, gateway):
        anything = replace(settings, address=HostPort("x.example.com", 443), trust=Trust(verify=False))
        assert edge_api.sign_in_url(anything, REDIRECT).startswith("https://x.example.com/")

    def test_a_missing_file_is_reported(self, settings, tmp_path):
        with pytest.raises(GatewayUntrusted, match="cannot be used: No such file"):
            edge_api.sign_in_url(replace(settings, trust=Trust(ca_file=tmp_path / "gone.pem")), REDIRECT)

    def test_a_client_certificate_is_presented(self, mutual):
        gateway, clients = mutual
        settings, ours = settings_of(gateway), clients.issue_client()
        trust = replace(settings.trust, client_cert_file=ours.cert_file, client_key_file=ours.key_file)
        assert edge_api.sign_in_url(replace(settings, trust=trust), REDIRECT)

    def test_a_missing_client_certificate_is_reported_after_a_late_alert(self, mutual):
        gateway, _ = mutual
        with pytest.raises((GatewayUntrusted, GatewayUnreachable)) as refused:
            edge_api.sign_in_url(settings_of(gateway), REDIRECT)
        assert "client certificate" in str(refused.value)


class TestNetwork:
    def test_a_stopped_gateway_is_unreachable(self, settings, gateway):
        gateway.edge.stop()
        with pytest.raises(GatewayUnreachable, match="connection refused"):
            edge_api.sign_in_url(settings, REDIRECT)

    def test_a_name_without_an_address_is_unreachable(self, settings):
        with pytest.raises(GatewayUnreachable, match="not known"):
            edge_api.sign_in_url(replace(settings, connect_to=None), REDIRECT)

    def test_a_silent_gateway_times_out(self, settings, gateway, token, monkeypatch):
        monkeypatch.setattr(edge_api, "ANSWER_TIMEOUT_S", 0.3)
        gateway.edge.pause()
        with pytest.raises(GatewayTimedOut):
            edge_api.user(replace(settings, connect_timeout_s=0.3), token)

    def test_a_server_without_tls_is_reported(self, settings, gateway):
        plain = replace(settings, connect_to=HostPort(LOOPBACK, gateway.identity.port))
        with pytest.raises(GatewayMisbehaved, match="no TLS there"):
            edge_api.sign_in_url(plain, REDIRECT)

    def test_environment_and_netrc_are_ignored(self, settings, gateway, token, monkeypatch, tmp_path):
        (tmp_path / ".netrc").write_text(f"machine {gateway.host} login a password b\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
        assert edge_api.user(settings, token)["email"]

    def test_a_given_forward_proxy_is_used(self, settings):
        with pytest.raises(GatewayUnreachable):
            edge_api.sign_in_url(settings, REDIRECT, {"https": f"http://{LOOPBACK}:1"})


def test_no_error_shows_a_token(settings, gateway, token):
    gateway.authorizer.revoke(token.get_secret_value())
    for broken in (settings, replace(settings, trust=Trust()), replace(settings, connect_to=HostPort(LOOPBACK, 1))):
        with pytest.raises(TunnelError) as failed:
            edge_api.user(broken, token)
        assert failed.value.__cause__ is None
        assert token.get_secret_value() not in f"{failed.value!r} {failed.value}"


def test_python_verifies_the_name_itself(settings):
    adapter = edge_requests.Adapter(settings)
    assert adapter._context is not None
    assert (adapter._context.check_hostname, adapter._context.verify_mode) == (True, ssl.CERT_REQUIRED)
