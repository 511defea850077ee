"""The embedded gateway answers like a Pomerium edge, seen with plain ``ssl`` and sockets."""

import json
import socket
import ssl
import struct
import uuid
from collections.abc import Iterator

import pytest

from tests.gateway.certificates import Authority
from tests.gateway.client import Tunnel, connect
from tests.gateway.destinations import BANNER, pseudo_random, sha256_of
from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until

JSON = {"Accept": "application/json"}
LENGTH = 3_000_001  # many records, and no multiple of a block


@pytest.fixture(scope="module")
def mutual_gateway() -> Iterator[tuple[Gateway, Authority]]:
    """A gateway that asks for a client certificate, and the authority that issues them."""
    with Gateway() as running:
        people = Authority(running.directory, "people")
        running.edge.replace_listener(client_ca_file=people.ca_file)
        yield running, people


class TestAnAcceptedConnect:
    def test_is_a_200_with_a_request_id_and_no_body_framing(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo")) as tunnel:
            assert tunnel.reply.status == 200
            assert uuid.UUID(tunnel.reply.headers["x-request-id"])
            assert {"content-length", "transfer-encoding", "connection"}.isdisjoint(tunnel.reply.headers)

    def test_carries_bytes_both_ways(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo")) as tunnel:
            tunnel.send(b"hello")
            assert tunnel.receive(5) == b"hello"

    def test_carries_the_word_of_a_server_that_speaks_first(self, gateway: Gateway) -> None:
        with gateway.connect(destination("banner")) as tunnel:
            assert tunnel.receive(len(BANNER)) == BANNER

    def test_matches_the_host_whatever_its_case(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo").upper().replace("TEST", "test")) as tunnel:
            assert tunnel.reply.status == 200

    def test_means_that_the_destination_has_accepted(self, gateway: Gateway) -> None:
        with socket.create_server((LOOPBACK, 0)) as server:
            with gateway.connect(gateway.add_route("accepts.example.test:7000", server.getsockname()[1])):
                server.setblocking(False)
                server.accept()[0].close()  # is there already

    def test_shows_its_token_and_request_id_to_the_authorizer(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo")) as tunnel:
            (check,) = gateway.authorizer.checks_for(destination("echo"))
        assert check.method == "CONNECT"
        assert check.token == gateway.token
        assert check.request_id == tunnel.reply.headers["x-request-id"]

    def test_is_logged_when_it_is_over(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo")) as tunnel:
            request_id = tunnel.reply.headers["x-request-id"]
            tunnel.send(b"hello")
            tunnel.receive(5)
            assert gateway.edge.access_log(request_id=request_id) == []
        entry = gateway.edge.wait_for_access(request_id=request_id)
        assert (entry.host, entry.status, entry.received, entry.sent) == (destination("echo"), 200, 5, 5)

    def test_is_counted_while_it_is_open(self, gateway: Gateway) -> None:
        wait_until(lambda: gateway.edge.open_tunnels == 0)
        with gateway.connect(destination("echo")):
            wait_until(lambda: gateway.edge.open_tunnels == 1)
        wait_until(lambda: gateway.edge.open_tunnels == 0)

    @pytest.mark.parametrize(
        "header",
        [
            {"Authorization": "Pomerium {}"},
            {"Authorization": "Bearer Pomerium-{}"},
            {"X-Pomerium-Authorization": "{}"},
        ],
    )
    def test_takes_the_token_in_every_header_form(self, gateway: Gateway, header: dict[str, str]) -> None:
        headers = {name: value.format(gateway.token) for name, value in header.items()}
        with gateway.connect(destination("echo"), token="", **headers) as tunnel:
            assert tunnel.reply.status == 200

    def test_needs_no_token_on_a_public_route(self, gateway: Gateway) -> None:
        with gateway.connect(destination("public"), token="") as tunnel:
            assert tunnel.reply.status == 200


class TestARefusal:
    def test_without_a_token_is_a_redirect_to_sign_in(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo"), token="") as tunnel:
            assert tunnel.reply.status == 302
            assert "/.pomerium/sign_in" in tunnel.reply.headers["location"]
            assert tunnel.reply.headers["x-pomerium-intercepted-response"] == "true"

    def test_without_a_token_is_a_401_for_a_client_that_wants_json(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo"), token="", **JSON) as tunnel:
            assert tunnel.reply.status == 401
            assert body(tunnel)["error"] == "Unauthenticated"

    def test_of_an_unknown_token_is_a_401(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo"), token="nonsense", **JSON) as tunnel:
            assert tunnel.reply.status == 401
            assert body(tunnel)["request_id"] == tunnel.reply.headers["x-request-id"]

    def test_of_a_revoked_token_is_a_401(self, gateway: Gateway) -> None:
        token = gateway.new_token()
        gateway.authorizer.revoke(token)
        with gateway.connect(destination("echo"), token) as tunnel:
            assert tunnel.reply.status == 401

    def test_by_policy_is_a_403_page_that_says_who_made_it(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo"), gateway.forbidden_token) as tunnel:
            assert tunnel.reply.status == 403
            assert tunnel.reply.headers["x-pomerium-intercepted-response"] == "true"

    def test_by_policy_is_403_json_without_that_header(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo"), gateway.forbidden_token, **JSON) as tunnel:
            assert tunnel.reply.status == 403
            assert "x-pomerium-intercepted-response" not in tunnel.reply.headers
            assert body(tunnel)["error"] == "Forbidden"

    def test_of_one_destination_leaves_the_others_alone(self, gateway: Gateway) -> None:
        gateway.authorizer.forbid_host(destination("banner"))
        with gateway.connect(destination("banner")) as tunnel:
            assert tunnel.reply.status == 403
        with gateway.connect(destination("echo")) as tunnel:
            assert tunnel.reply.status == 200

    def test_of_connect_itself_is_a_403_with_nothing_else(self, gateway: Gateway) -> None:
        with gateway.connect(destination("noconnect")) as tunnel:
            assert tunnel.reply.status == 403
            assert "x-pomerium-intercepted-response" not in tunnel.reply.headers

    def test_of_an_unknown_destination_is_a_404_that_nobody_authorized(self, gateway: Gateway) -> None:
        with gateway.connect("nowhere.example.test:7000", **JSON) as tunnel:
            assert tunnel.reply.status == 404
            assert body(tunnel)["statusText"] == "route_not_found"
        assert gateway.authorizer.checks == []

    def test_because_the_destination_is_down_is_a_503_that_says_so(self, gateway: Gateway) -> None:
        with gateway.connect(destination("down"), **JSON) as tunnel:
            assert tunnel.reply.status == 503
            assert "remote_connection_failure" in body(tunnel)["statusText"]

    def test_because_the_authorizer_fails_is_an_empty_503(self, gateway: Gateway) -> None:
        gateway.authorizer.fail()
        with gateway.connect(destination("echo")) as tunnel:
            assert tunnel.reply.status == 503
            assert tunnel.reply.headers["content-length"] == "0"

    def test_may_be_any_answer_that_a_test_asks_for(self, gateway: Gateway) -> None:
        gateway.authorizer.refuse(429, {"retry-after": "7"}, "slow down")
        with gateway.connect(destination("echo")) as tunnel:
            assert tunnel.reply.status == 429
            assert tunnel.reply.headers["retry-after"] == "7"
            assert tunnel.receive(9) == b"slow down"

    def test_closes_the_connection(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo"), token="") as tunnel:
            assert tunnel.reply.headers["connection"] == "close"
            tunnel.receive_all()  # returns, so the gateway has closed

    def test_of_a_destination_without_a_port_is_a_400(self, gateway: Gateway) -> None:
        with gateway.connect("echo.example.test") as tunnel:
            assert tunnel.reply.status == 400


class TestADestination:
    def test_hashes_uploads_while_the_tunnel_stays_open(self, gateway: Gateway) -> None:
        with gateway.connect(destination("upload")) as tunnel:
            for seed in (1, 2):
                tunnel.send(struct.pack(">Q", LENGTH) + b"".join(pseudo_random(seed, LENGTH)))
                assert tunnel.receive(65) == f"{sha256_of(seed, LENGTH)}\n".encode()

    def test_sends_a_seeded_download_and_closes(self, gateway: Gateway) -> None:
        with gateway.connect(destination("download")) as tunnel:
            tunnel.send(f"3 {LENGTH}\n".encode())
            assert tunnel.receive_all() == b"".join(pseudo_random(3, LENGTH))

    def test_sends_several_downloads_when_asked_to_stay(self, gateway: Gateway) -> None:
        with gateway.connect(destination("download")) as tunnel:
            for seed in (4, 5):
                tunnel.send(f"{seed} 1000 keep\n".encode())
                assert tunnel.receive(1000) == b"".join(pseudo_random(seed, 1000))

    def test_answers_a_client_that_has_stopped_sending(self, gateway: Gateway) -> None:
        with socket.create_connection(gateway.destinations.address("answer")) as direct:
            direct.sendall(b"20 late but complete\n")
            direct.shutdown(socket.SHUT_WR)
            assert direct.makefile("rb").read() == b"late but complete\n"

    def test_serves_a_page(self, gateway: Gateway) -> None:
        with gateway.connect(destination("page")) as tunnel:
            tunnel.send(b"GET / HTTP/1.1\r\nHost: page\r\n\r\n")
            assert b"It works" in tunnel.receive_all()

    @pytest.mark.parametrize("name", ["hangup", "reset"])
    def test_that_hangs_up_ends_the_tunnel_cleanly(self, gateway: Gateway, name: str) -> None:
        with gateway.connect(destination(name)) as tunnel:
            tunnel.send(b"?")
            assert tunnel.receive_all() == b""

    def test_that_resets_does_so(self, gateway: Gateway) -> None:
        with socket.create_connection(gateway.destinations.address("reset")) as direct:
            direct.sendall(b"?")
            with pytest.raises(ConnectionResetError):
                direct.recv(1)

    def test_on_an_idle_route_is_cut_without_a_reason(self, gateway: Gateway) -> None:
        with gateway.connect(destination("idle")) as tunnel:
            assert tunnel.receive_all() == b""
            assert gateway.edge.wait_for_access(request_id=tunnel.reply.headers["x-request-id"])


class TestTheEdge:
    def test_serves_a_route_as_soon_as_it_is_added(self, gateway: Gateway) -> None:
        with socket.create_server((LOOPBACK, 0)) as server:
            added = gateway.add_route("added.example.test:6379", server.getsockname()[1])
            with gateway.connect(added) as tunnel:
                assert tunnel.reply.status == 200

    def test_keeps_the_tunnels_of_a_removed_route(self, gateway: Gateway) -> None:
        removed = gateway.add_route("removed.example.test:7000", gateway.destinations.address("echo")[1])
        with gateway.connect(removed) as tunnel:
            gateway.remove_route(removed)
            tunnel.send(b"still here")
            assert tunnel.receive(10) == b"still here"
            with gateway.connect(removed) as refused:
                assert refused.reply.status == 404

    def test_ends_tunnels_cleanly_when_it_stops_and_comes_back_on_its_port(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo")) as tunnel:
            gateway.edge.stop()
            assert tunnel.receive_all() == b""
        with pytest.raises(ConnectionRefusedError):
            gateway.secure()
        gateway.edge.start()
        with gateway.connect(destination("echo")) as tunnel:
            assert tunnel.reply.status == 200

    def test_ends_tunnels_raggedly_when_it_is_killed(self, gateway: Gateway) -> None:
        with gateway.connect(destination("echo")) as tunnel:
            gateway.edge.kill()
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                tunnel.receive_all()

    def test_accepts_and_never_answers_while_it_is_paused(self, gateway: Gateway) -> None:
        gateway.edge.pause()
        with socket.create_connection((LOOPBACK, gateway.port)) as connection:
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ssl.create_default_context().wrap_socket(connection, server_hostname=gateway.host)
        gateway.edge.resume()
        with gateway.connect(destination("echo")) as tunnel:
            assert tunnel.reply.status == 200

    def test_hangs_while_its_authorizer_does_and_goes_on_afterwards(self, gateway: Gateway) -> None:
        gateway.authorizer.hang()
        with gateway.secure() as connection:
            connection.sendall(f"CONNECT {destination('public')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: gateway.authorizer.checks_for(destination("public")))
            gateway.authorizer.behave()
            assert connection.recv(15) == b"HTTP/1.1 200 OK"

    def test_serves_its_health_to_everyone(self, gateway: Gateway) -> None:
        with gateway.secure() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: anything\r\n\r\n")
            assert connection.recv(15) == b"HTTP/1.1 200 OK"

    def test_cuts_all_tunnels_at_once_after_its_listener_has_changed(self) -> None:
        with Gateway(drain_time_s=1) as gateway, gateway.connect(destination("echo")) as tunnel:
            gateway.edge.replace_listener()
            tunnel.send(b"alive")
            assert tunnel.receive(5) == b"alive"
            assert tunnel.receive_all() == b""

    def test_is_not_verified_with_a_strangers_certificate(self, own_gateway: Gateway) -> None:
        own_gateway.edge.replace_listener(certificate=own_gateway.untrusted_certificate)
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            own_gateway.secure()

    def test_is_not_verified_with_an_expired_certificate(self, own_gateway: Gateway) -> None:
        own_gateway.edge.replace_listener(certificate=own_gateway.expired_certificate)
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            own_gateway.secure()

    def test_speaks_to_a_client_with_a_certificate(self, mutual_gateway: tuple[Gateway, Authority]) -> None:
        gateway, people = mutual_gateway
        connection = gateway.secure(people.issue_client())
        with connect(connection, destination("public"), {}) as tunnel:
            assert tunnel.reply.status == 200

    def test_refuses_a_client_without_one_after_the_handshake(self, mutual_gateway: tuple[Gateway, Authority]) -> None:
        gateway, _people = mutual_gateway
        with gateway.secure() as connection, pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            connection.recv(1)


def body(tunnel: Tunnel) -> dict[str, str]:
    """The JSON of a refusal."""
    refusal: dict[str, str] = json.loads(tunnel.receive(int(tunnel.reply.headers["content-length"])))
    return refusal
