"""``pomagent probe`` against a real gateway in every condition."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.certificates import Authority
from tests.gateway.facade import Gateway, destination
from tests.support.agent.agent_process import pomagent
from tests.support.agent.bastion import ANY, Bastion

CANNOT_SERVE, USAGE, INVALID = 69, 2, 78
ECHO = destination("echo")
IMPATIENT = {"gateways.demo": {"tls_timeout_s": 1, "response_timeout_s": 1}}


def probe(bastion: Bastion, *arguments: str) -> Any:
    done = pomagent("probe", "--config", str(bastion.path), *arguments)
    assert "Traceback" not in done.stderr
    return done


def sentence(bastion: Bastion, *arguments: str) -> str:
    """Return the only line, about a route that fails."""
    done = probe(bastion, *arguments)
    assert done.returncode == CANNOT_SERVE
    (line,) = done.stdout.splitlines()
    assert done.stderr == ""
    return line


def finding(bastion: Bastion, *arguments: str) -> dict[str, Any]:
    """Return the only finding of the document."""
    (found,) = json.loads(probe(bastion, "--json", *arguments).stdout)["routes"]
    return found


def test_a_route_that_works_has_its_times_and_the_certificates_end(bastion: Bastion) -> None:
    bastion.save({"echo": ANY})
    done = probe(bastion)
    assert done.returncode == 0
    assert done.stderr == ""
    line = done.stdout
    assert line.startswith("echo  ok")
    for phase in ("dns", "tcp", "tls", "connect"):
        assert f"{phase} " in line
    assert "certificate until 20" in line


def test_the_document_of_a_route_that_works(bastion: Bastion) -> None:
    bastion.save({"echo": ANY})
    found = finding(bastion)
    (check,) = bastion.gateway.authorizer.checks_for(ECHO)
    assert (found["route"], found["destination"], found["ok"]) == ("echo", ECHO, True)
    assert found["request_id"] == check.request_id
    assert all(found[f"{phase}_ms"] >= 0 for phase in ("dns", "tcp", "tls", "connect"))
    assert found["certificate_expires"].endswith("Z")
    assert found["error"] == ""


def test_probe_closes_the_tunnel_that_it_opened(bastion: Bastion) -> None:
    bastion.save({"echo": ANY})
    assert probe(bastion).returncode == 0
    bastion.gateway.edge.wait_for_access(host=ECHO, status=200)  # written when the tunnel ends


def test_a_public_route_needs_no_credential(bastion: Bastion) -> None:
    bastion.save({"public": {"listen": ANY, "credential": ""}})
    assert probe(bastion).returncode == 0


Arrange = Callable[[Bastion], None]


def no_token(bastion: Bastion) -> None:
    bastion.save({"echo": {"listen": ANY, "credential": ""}})


def bad_token(bastion: Bastion) -> None:
    bastion.replace_token("nobody-knows-this-token")
    bastion.save({"echo": ANY})


def forbidden(bastion: Bastion) -> None:
    bastion.replace_token(bastion.gateway.forbidden_token)
    bastion.save({"echo": ANY})


def unknown_route(bastion: Bastion) -> None:
    bastion.save({"echo": {"listen": ANY, "from": "tcp+https://nowhere.example.test:7000"}})


def not_a_tcp_route(bastion: Bastion) -> None:
    bastion.save({"noconnect": ANY})


def destination_down(bastion: Bastion) -> None:
    bastion.save({"down": ANY})


def authorize_down(bastion: Bastion) -> None:
    bastion.gateway.authorizer.fail()
    bastion.save({"echo": ANY})


def gateway_down(bastion: Bastion) -> None:
    bastion.gateway.edge.stop()
    bastion.save({"echo": ANY})


def gateway_frozen(bastion: Bastion) -> None:
    bastion.gateway.edge.pause()
    bastion.save({"echo": ANY}, **IMPATIENT)


def no_answer(bastion: Bastion) -> None:
    bastion.gateway.authorizer.hang()
    bastion.save({"echo": ANY}, **IMPATIENT)


def untrusted_authority(bastion: Bastion) -> None:
    stranger = Authority(bastion.directory, "stranger")
    bastion.save({"echo": ANY}, **{"gateways.demo": {"ca_file": str(stranger.ca_file)}})


def wrong_name(bastion: Bastion) -> None:
    bastion.save({"echo": ANY}, **{"gateways.demo": {"url": f"https://elsewhere.test:{bastion.gateway.port}"}})


def no_such_name(bastion: Bastion) -> None:
    bastion.save({"echo": ANY}, **{"gateways.demo": {"connect_to": "nowhere.invalid:443"}})


# What goes wrong; the phase, status and recovery it is reported with; words of what happened and of what to do.
FAILURES: list[tuple[Arrange, str, int | None, str, tuple[str, ...]]] = [
    (no_token, "connect", 401, "reauthenticate", ("401", "no credential was sent; set one", "[credentials.default]")),
    (bad_token, "connect", 401, "reauthenticate", ("401", 'the credential "default"', "replace its token")),
    (forbidden, "connect", 403, "operator", ("403", "the policy denies this credential", "allow its user")),
    (unknown_route, "connect", 404, "operator", ("404", "nowhere.example.test:7000", 'compare "from"')),
    (not_a_tcp_route, "connect", 403, "operator", ("403", "does not take CONNECT", "tcp+https://")),
    (destination_down, "connect", 503, "retry", ("503", "the route's server", "start it, or mend")),
    (authorize_down, "connect", 503, "retry", ("503", "authorize service", "check the gateway's authorize")),
    (gateway_down, "tcp", None, "retry", ("connection refused", "start the gateway")),
    (gateway_frozen, "tls", None, "retry", ("no TLS handshake", "within 1 s", "overloaded")),
    (no_answer, "connect", None, "retry", ("no answer to the CONNECT within 1 s", "check the gateway's load")),
    (untrusted_authority, "tls", None, "operator", ("certificate is not accepted", "set ca_file")),
    (wrong_name, "tls", None, "operator", ("elsewhere.test", "a name that the certificate covers")),
    (no_such_name, "dns", None, "retry", ("nowhere.invalid", "check the name")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arrange", "phase", "status", "recovery", "words"), FAILURES, ids=[row[0].__name__ for row in FAILURES]
)
def test_a_failure_names_its_cause_and_the_remedy_in_one_sentence(
    bastion: Bastion, arrange: Arrange, phase: str, status: int | None, recovery: str, words: tuple[str, ...]
) -> None:
    arrange(bastion)
    line = sentence(bastion)
    for part in words:
        assert part in line
    assert "gateway.example.test" in line or arrange is wrong_name
    found = finding(bastion)
    assert (found["ok"], found["phase"], found["status"], found["recovery"]) == (False, phase, status, recovery)
    assert found["error"] in line
    assert bool(found["request_id"]) is (status is not None)


def test_a_required_client_certificate_is_reported(tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    with Gateway(client_ca_file=clients.ca_file) as gateway:
        bastion = Bastion(gateway, tmp_path)
        bastion.save({"echo": ANY})
        assert "client_cert_file and client_key_file" in sentence(bastion)
        assert finding(bastion)["recovery"] == "operator"
        ours = clients.issue_client()
        certificate = {"client_cert_file": str(ours.cert_file), "client_key_file": str(ours.key_file)}
        bastion.save({"echo": ANY}, **{"gateways.demo": certificate})
        assert probe(bastion).returncode == 0


def test_all_enabled_routes_are_probed_and_one_failure_decides(bastion: Bastion) -> None:
    bastion.save({"echo": ANY, "down": ANY, "banner": ANY, "deaf": {"listen": ANY, "enabled": False}})
    done = probe(bastion)
    assert done.returncode == CANNOT_SERVE
    starts = [line.split()[:2] for line in done.stdout.splitlines()]
    assert starts == [["echo", "ok"], ["down", "failed"], ["banner", "ok"]]


def test_only_the_named_routes_are_probed_in_the_order_asked_for(bastion: Bastion) -> None:
    bastion.save({"echo": ANY, "down": ANY, "banner": ANY})
    done = probe(bastion, "--json", "banner", "echo")
    assert done.returncode == 0
    assert [found["route"] for found in json.loads(done.stdout)["routes"]] == ["banner", "echo"]


def test_more_routes_than_are_probed_at_a_time_all_have_their_line(bastion: Bastion) -> None:
    bastion.save({f"route{number}": {"from": f"tcp+https://{ECHO}", "listen": ANY} for number in range(20)})
    done = probe(bastion)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [f"route{number}" for number in range(20)]


def test_an_unknown_name_is_a_usage_error_that_lists_the_known_ones(bastion: Bastion) -> None:
    bastion.save({"echo": ANY, "banner": ANY})
    done = probe(bastion, "orders")
    assert done.returncode == USAGE
    assert "no route is named orders" in done.stderr
    assert "echo, banner" in done.stderr


def test_an_invalid_file_is_reported_as_by_check(bastion: Bastion) -> None:
    bastion.save({"echo": {"listen": "nowhere"}})
    done = probe(bastion)
    assert done.returncode == INVALID
    assert f"{bastion.path}:" in done.stderr
    assert "routes.echo.listen" in done.stderr
