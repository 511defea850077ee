"""Client certificates in Pomerium's three enforcement modes, through a real Envoy, and their rotation."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateway.certificates import Authority, Certificate
from tests.gateway.facade import Gateway, destination
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say

ROUTES = {"echo": {"listen": ANY, "warm": "tunnel"}}


@pytest.fixture
def clients_ca(tmp_path: Path) -> Authority:
    """The authority of client certificates, which is not the gateway's."""
    return Authority(tmp_path, "people")


@pytest.fixture
def other_ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "strangers")


@pytest.fixture
def here(own_gateway: Gateway, tmp_path: Path) -> Iterator[Bastion]:
    with Bastion(own_gateway, tmp_path) as bastion:
        yield bastion


def start(bastion: Bastion, certificate: Certificate | None = None) -> AgentProcess:
    if certificate is not None:
        install(bastion, certificate)
    files = {"client_cert_file": "client-cert.pem", "client_key_file": "client-key.pem"} if certificate else {}
    return bastion.start(ROUTES, **{"gateways.demo": files})


def install(bastion: Bastion, certificate: Certificate) -> None:
    """Rename certificate and key into place, one after the other, as certbot does."""
    for source, name in ((certificate.cert_file, "client-cert.pem"), (certificate.key_file, "client-key.pem")):
        draft = bastion.directory / f"{name}.draft"
        draft.touch(mode=0o600)
        draft.write_bytes(source.read_bytes())
        draft.replace(bastion.directory / name)


def serves(agent: AgentProcess) -> bool:
    with connect(agent.port("echo")) as client:
        return say(client) == b"hello\n"


class TestRejectConnection:
    """TLS itself requires a certificate."""

    @pytest.fixture(autouse=True)
    def enforced(self, own_gateway: Gateway, clients_ca: Authority) -> None:
        own_gateway.edge.replace_listener(client_ca_file=clients_ca.ca_file, enforcement="reject_connection")

    def test_a_valid_certificate_is_accepted(self, here: Bastion, clients_ca: Authority) -> None:
        assert serves(start(here, clients_ca.issue_client()))

    def test_a_missing_certificate_is_reported_after_the_handshake(self, here: Bastion) -> None:
        failed = start(here).wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("connect", "operator")
        assert "the gateway requires a client certificate that it trusts; set client_cert_file" in failed["error"]
        assert failed["error"].endswith(": tlsv13 alert certificate required)")

    def test_a_certificate_of_another_authority_is_reported(self, here: Bastion, other_ca: Authority) -> None:
        failed = start(here, other_ca.issue_client("stranger")).wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("connect", "operator")
        assert "the gateway requires a client certificate that it trusts" in failed["error"]
        assert failed["error"].endswith(": tlsv1 alert unknown ca)")


class TestPolicyWithDefaultDeny:
    """Every certificate passes TLS, and the authorizer answers 495 without a good one."""

    @pytest.fixture(autouse=True)
    def enforced(self, own_gateway: Gateway, clients_ca: Authority) -> None:
        own_gateway.edge.replace_listener(client_ca_file=clients_ca.ca_file, enforcement="policy")
        own_gateway.authorizer.require_certificate(clients_ca.ca_file)

    def test_a_valid_certificate_is_accepted(self, here: Bastion, clients_ca: Authority) -> None:
        assert serves(start(here, clients_ca.issue_client()))

    @pytest.mark.parametrize("is_foreign", [True, False])
    def test_a_missing_or_foreign_certificate_is_a_495_with_its_remedy(
        self, here: Bastion, other_ca: Authority, is_foreign: bool
    ) -> None:
        agent = start(here, other_ca.issue_client("stranger") if is_foreign else None)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["status"], failed["recovery"]) == (495, "operator")
        assert "the gateway requires a client certificate; set client_cert_file and client_key_file" in failed["error"]
        (route,) = agent.status()["routes"]
        assert route["state"] == "down"
        assert not agent.events("credential.rejected")


class TestPolicy:
    """Only routes with a rule for a certificate need one."""

    @pytest.fixture(autouse=True)
    def enforced(self, own_gateway: Gateway, clients_ca: Authority) -> None:
        own_gateway.edge.replace_listener(client_ca_file=clients_ca.ca_file, enforcement="policy")
        own_gateway.authorizer.require_certificate(clients_ca.ca_file, destination("page"))

    def test_a_route_without_the_rule_needs_no_certificate(self, here: Bastion) -> None:
        agent = here.start({"echo": ANY, "page": ANY}, defaults={"warm": "tunnel"})
        assert serves(agent)
        assert agent.wait_for("tunnel.failed", route="page")["status"] == 495

    def test_a_route_with_the_rule_is_served_with_a_certificate(self, here: Bastion, clients_ca: Authority) -> None:
        install(here, clients_ca.issue_client())
        files = {"client_cert_file": "client-cert.pem", "client_key_file": "client-key.pem"}
        agent = here.start({"page": {"listen": ANY, "warm": "tunnel"}}, **{"gateways.demo": files})
        agent.wait_for("pool.filled", route="page")


@pytest.mark.parametrize("mode", ["reject_connection", "policy_with_default_deny", "policy"])
def test_a_certificate_is_rotated_while_sessions_run(here: Bastion, clients_ca: Authority, mode: str) -> None:
    gateway = here.gateway
    enforced_by_tls = mode == "reject_connection"
    gateway.edge.replace_listener(client_ca_file=clients_ca.ca_file, enforcement=mode if enforced_by_tls else "policy")
    if not enforced_by_tls:
        gateway.authorizer.require_certificate(clients_ca.ca_file, *([destination("echo")] if mode == "policy" else []))
    first, second = clients_ca.issue_client("first"), clients_ca.issue_client("second")
    agent = start(here, first)
    with ExitStack() as sessions:
        clients = [sessions.enter_context(connect(agent.port("echo"))) for _ in range(20)]
        for client in clients:
            assert say(client) == b"hello\n"
        assert presented(gateway) == {first.cert_file.read_text()}
        install(here, second)
        agent.wait_for("config.applied", replaced=1)
        agent.wait_for("tunnel.closed", reason="stale")
        gateway.authorizer.forget()  # only now: until then pools are refilled with the first certificate
        later = [sessions.enter_context(connect(agent.port("echo"))) for _ in range(5)]
        for client in clients + later:
            assert say(client, b"and on\n") == b"and on\n"
        wait_until(
            lambda: presented(gateway) == {second.cert_file.read_text()}, what="the second certificate is presented"
        )
    assert not agent.events("session.refused")
    agent.wait_for("session.closed", count=25, reason="finished")


def test_half_a_rotation_is_rejected_and_changes_nothing(here: Bastion, clients_ca: Authority) -> None:
    agent = start(here, clients_ca.issue_client("first"))
    second = clients_ca.issue_client("second")
    draft = here.directory / "draft.pem"
    draft.write_bytes(second.cert_file.read_bytes())
    draft.replace(here.directory / "client-cert.pem")  # atomically: a partial file could be read on a busy machine
    rejected = agent.wait_for("config.rejected")
    assert "is not the key of the certificate" in str(rejected["problems"])
    assert serves(agent)
    (here.directory / "client-key.pem").write_bytes(second.key_file.read_bytes())
    agent.wait_for("config.applied", replaced=1)
    assert serves(agent)


def presented(gateway: Gateway) -> set[str]:
    """Return the client certificates of the CONNECT requests."""
    return {check.certificate for check in gateway.authorizer.checks_for(destination("echo"))}
