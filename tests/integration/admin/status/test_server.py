"""The status server over real connections: accepted, rejected, slow and hostile clients."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as cooperative

from pomagent.admin.status import server as server_module
from pomagent.admin.status.http import MAX_HEAD_BYTES, HttpResponse, text_response
from pomagent.admin.status.resources import Resource
from pomagent.admin.status.server import MAX_CONNECTIONS, StatusServer
from pomagent.errors import ConfigError
from pomagent.listeners import rebinding
from pomagent.sessions.user_names import Users
from pomagent.settings import HostPort, Settings, StatusSettings
from pomagent.transport.sock_diag import SockDiag
from tests.fakes.log import FakeLog
from tests.gateway.ports import LOOPBACK, ReservedPort
from tests.gateway.waiting import scaled, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


class FakeResources:
    """Three resources: a public one, a private one, and one with a bug."""

    paths = ("/livez", "/metrics", "/bug")

    def find(self, path: str) -> Resource | None:
        def bug(_: object) -> HttpResponse:
            raise RuntimeError("a bug")

        pages: dict[str, Resource] = {
            "/livez": Resource(lambda request: text_response(HTTPStatus.OK, f"ok {sorted(request.query.items())}\n")),
            "/metrics": Resource(lambda _: text_response(HTTPStatus.OK, "numbers\n"), is_private=True),
            "/bug": Resource(bug),
        }
        return pages.get(path)


class Running:
    def __init__(self, log: FakeLog, diag: SockDiag) -> None:
        self.log = log
        self.users = Users()
        self.server = StatusServer(FakeResources(), diag, self.users, log.log)  # type: ignore[arg-type]

    def move(self, listen: HostPort | None, users: tuple[str, ...] = (), *, is_start: bool = False) -> None:
        with self.server.moving_to(settings(listen, users), is_start=is_start):
            pass

    @property
    def port(self) -> int:
        assert isinstance(self.server.address, HostPort)
        return self.server.address.port

    def connect(self) -> Any:
        return cooperative.create_connection((LOOPBACK, self.port), scaled(10))

    def ask(self, request: str | bytes) -> str:
        """Send a request and return the whole response."""
        with self.connect() as client:
            client.sendall(request.encode() if isinstance(request, str) else request)
            return read_to_end(client)


def settings(listen: HostPort | None, users: tuple[str, ...] = ()) -> Settings:
    return Settings(Path("/etc/pomagent/agent.toml"), status=StatusSettings(listen, users))


def read_to_end(client: Any) -> str:
    return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def get(path: str, method: str = "GET", host: str = "localhost") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"


@pytest.fixture
def running(no_leaks: None) -> Iterator[Running]:
    diag = SockDiag()
    made = Running(FakeLog(), diag)
    made.move(HostPort(LOOPBACK, 0), is_start=True)
    yield made
    made.server.close()
    diag.close()


# Which requests are answered.


def test_a_get_is_answered_and_the_connection_closed(running: Running) -> None:
    head, _, body = running.ask(get("/livez?require=any")).partition("\r\n\r\n")
    assert head.splitlines()[0] == "HTTP/1.1 200 OK"
    assert {"Connection: close", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"} <= set(head.splitlines())
    assert body == "ok [('require', 'any')]\n"


def test_a_head_gets_the_same_without_the_body(running: Running) -> None:
    head, _, body = running.ask(get("/livez", "HEAD")).partition("\r\n\r\n")
    assert ("Content-Length: 6" in head, body) == (True, "")


def test_http_1_0_without_a_host_is_answered(running: Running) -> None:
    assert running.ask("GET /livez HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 200 ")


def test_a_request_may_come_byte_by_byte(running: Running) -> None:
    with running.connect() as client:
        for byte in get("/livez").encode():
            client.sendall(bytes([byte]))
        assert read_to_end(client).endswith("ok []\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_methods_that_change_something_are_rejected(running: Running, method: str) -> None:
    answer = running.ask(get("/livez", method))
    assert answer.startswith("HTTP/1.1 405 ")
    assert "Allow: GET, HEAD" in answer


def test_a_request_for_another_host_is_rejected_and_logged_once(running: Running) -> None:
    for _ in range(3):
        answer = running.ask(get("/livez", host="evil.example.com"))
        assert answer.startswith("HTTP/1.1 421 ")
        assert "evil" not in answer
    (line,) = running.log.named("status.refused")
    assert (line["why"], line["level"]) == ("the request names another host", "warning")


@pytest.mark.parametrize("headers", ["Origin: https://evil.example.com", "Sec-Fetch-Site: cross-site"])
def test_a_cross_site_request_for_any_path_is_rejected_and_logged_once(running: Running, headers: str) -> None:
    for path in ("/livez", "/metrics", "/nothing"):
        answer = running.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n")
        assert answer.startswith("HTTP/1.1 403 ")
        assert "Cross-Origin-Resource-Policy: same-origin" in answer
        assert "Access-Control-" not in answer
    (line,) = running.log.named("status.refused")
    assert line["why"] == "another website sent the request through a browser"


def test_an_unknown_path_is_a_404_that_does_not_repeat_it(running: Running) -> None:
    assert running.ask(get("/nothing<script>")).startswith("HTTP/1.1 404 ")
    assert "<script>" not in running.ask(get("/nothing<script>"))


@pytest.mark.parametrize(("users", "status"), [((), 200), (("root",), 200), (("4711",), 200)])
def test_root_may_see_private_resources(running: Running, users: tuple[str, ...], status: int) -> None:
    running.move(running.server._requested, users)
    assert running.ask(get("/metrics")).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(("uid", "status"), [(4711, 200), (4712, 403), (None, 403)])
def test_only_named_users_may_see_private_resources(
    running: Running, uid: int | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "user_of", lambda sock, diag: uid)
    running.move(running.server._requested, ("4711", "no-such-user-here"))
    assert running.ask(get("/metrics")).startswith(f"HTTP/1.1 {status} ")
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")
    assert len(running.log.named("status.refused")) == (status == 403)


# Requests that are malformed, too slow or too large.


HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405),
    ],
)
def test_a_malformed_request_gets_a_response_and_causes_no_traceback(
    running: Running, request_: bytes, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with running.connect() as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).startswith(f"HTTP/1.1 {status} ")
    assert capfd.readouterr() == ("", "")
    assert running.log.lines == running.log.named("listener.bound")


@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD_BYTES, 200), (MAX_HEAD_BYTES + 1, 431)])
def test_a_request_head_has_a_limit(running: Running, size: int, status: int) -> None:
    head = b"GET /livez HTTP/1.1\r\n" + HOST + b"X-Long: "
    with running.connect() as client:
        client.sendall(head + b"x" * (size - len(head)))
        if status == 200:
            client.sendall(b"\r\n\r\n")
        assert read_to_end(client).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD_BYTES - 100, 200), (MAX_HEAD_BYTES + 1, 414)])
def test_a_request_line_has_a_limit(running: Running, size: int, status: int) -> None:
    line = b"GET /livez?x="
    with running.connect() as client:
        client.sendall(line + b"x" * (size - len(line)))
        if status == 200:
            client.sendall(b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert read_to_end(client).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(
    ("header", "status"),
    [("Content-Length: 0", 200), ("Content-Length: 1", 413), (f"Content-Length: {10**12}", 413),
     ("Transfer-Encoding: chunked", 413)],
)  # fmt: skip
def test_a_request_with_a_body_is_rejected(running: Running, header: str, status: int) -> None:
    answer = running.ask(f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} ")


def test_a_client_that_sends_a_body_still_gets_the_response(running: Running) -> None:
    sent = b"GET /livez HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + bytes(32 * 1024)
    assert running.ask(sent).startswith("HTTP/1.1 413 ")


def test_a_silent_client_is_disconnected(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.1)
    with running.connect() as client:
        assert read_to_end(client) == ""
    assert not running.server._connections


def test_a_trickling_client_has_the_same_time_limit(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.2)
    with running.connect() as client, pytest.raises(OSError):  # noqa: PT012 - either call may fail
        while True:
            client.sendall(b"G")
            gevent.sleep(0.01)


def test_a_stalled_client_delays_no_other_client(running: Running) -> None:
    silent = [running.connect() for _ in range(3)]
    for client in silent:
        client.sendall(get("/livez").encode()[:-2])
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")
    for client in silent:
        client.close()


@pytest.mark.parametrize("count", [MAX_CONNECTIONS - 1, MAX_CONNECTIONS + 3])
def test_connections_have_a_limit_beyond_which_the_oldest_is_closed(running: Running, count: int) -> None:
    silent = [running.connect() for _ in range(count)]
    wait_until(lambda: len(running.server._connections) == min(count, MAX_CONNECTIONS))
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")
    ended = 0
    for client in silent:
        client.settimeout(0.01)
        with suppress(TimeoutError):
            ended += client.recv(1) == b""
        client.close()
    assert ended == max(0, count + 1 - MAX_CONNECTIONS)


def test_a_bug_is_a_500_and_is_reported(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed: list[type[BaseException]] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda context, kind, value, trace: crashed.append(kind))
    assert running.ask(get("/bug")).startswith("HTTP/1.1 500 ")
    assert crashed == [RuntimeError]
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")


# The listen address.


def test_the_server_moves_with_the_settings(running: Running) -> None:
    old = running.port
    running.move(HostPort("127.0.0.2", 0))
    assert isinstance(running.server.address, HostPort)
    with cooperative.create_connection(("127.0.0.2", running.port)) as client:
        client.sendall(get("/livez", host="127.0.0.2").encode())
        assert "200 OK" in read_to_end(client)
    assert refused(old)


def test_the_server_can_be_turned_off_and_on(running: Running) -> None:
    old = running.port
    running.move(None)
    assert (running.server.address, refused(old)) == (None, True)
    running.move(HostPort(LOOPBACK, 0))
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")


def test_a_reload_with_the_same_address_keeps_the_socket(running: Running) -> None:
    listener = running.server._listener
    running.move(running.server._requested, ("root",))
    assert running.server._listener is listener


def test_a_reload_to_an_address_in_use_is_rejected_and_changes_nothing(running: Running, taken: HostPort) -> None:
    port = running.port
    with pytest.raises(ConfigError) as rejected:
        running.move(taken)
    (problem,) = rejected.value.problems
    assert problem.key == "status.listen"
    assert problem.message.startswith(f"cannot listen on {taken}: address already in use by ")
    assert running.port == port
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")


def test_a_reload_that_fails_elsewhere_changes_nothing(running: Running) -> None:
    port = running.port
    with pytest.raises(RuntimeError), running.server.moving_to(settings(HostPort(LOOPBACK, 0)), is_start=False):
        raise RuntimeError
    assert running.port == port
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")


def test_an_address_in_use_at_start_is_logged_and_bound_once_it_is_free(
    no_leaks: None, reserved: ReservedPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebinding, "REBIND_FIRST_S", 0.02)
    made = Running(FakeLog(), SockDiag())
    made.move(HostPort(LOOPBACK, reserved.port), is_start=True)
    assert made.server.address is None
    (failed,) = made.log.named("listener.bind_failed")
    assert (failed["level"], failed["listen"]) == ("error", f"{LOOPBACK}:{reserved.port}")
    reserved.release()
    wait_until(lambda: made.server.address is not None)
    assert made.ask(get("/livez")).startswith("HTTP/1.1 200 ")
    made.server.close()
    made.server._diag.close()  # type: ignore[union-attr]


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) != 0


@pytest.fixture
def reserved() -> Iterator[ReservedPort]:
    made = ReservedPort()
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield made


@pytest.fixture
def taken() -> Iterator[HostPort]:
    with socket.create_server((LOOPBACK, 0)) as holder:
        yield HostPort(LOOPBACK, holder.getsockname()[1])


def test_the_server_moves_to_an_address_that_overlaps_with_the_old_one(running: Running) -> None:
    port = running.port
    running.move(HostPort("0.0.0.0", port))
    assert running.server.address == HostPort("0.0.0.0", port)
    assert running.ask(get("/livez")).startswith("HTTP/1.1 200 ")
