"""Sessions of one route over real sockets and TLS: each client gets its bytes, its end and one log line."""

import os
import pwd
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import gevent
import pytest
from gevent import Timeout
from gevent import socket as cooperative
from gevent.event import Event

from pomagent import forwarder as forwarder_module
from pomagent.credentials.token import Token
from pomagent.forwarder import Forwarder
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.tunnel_opener import TunnelOpener
from pomagent.log.logger import Logger
from pomagent.pool import Pool, PoolContext, RouteHistory
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.sessions import session as session_module
from pomagent.sessions import session_log
from pomagent.sessions.context import SessionContext
from pomagent.sessions.ends import DRAINED, REMOVED
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.session_limit import SessionLimit
from pomagent.sessions.user_names import Users
from pomagent.settings import Credential, Route
from pomagent.transport.resolver import Resolver
from pomagent.transport.sock_diag import SockDiag
from pomagent.transport.tls_context import make_context
from tests.fakes import gateway as play
from tests.fakes.gateway import Connection, FakeGateway, accepts, rejects, then
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.log import FakeLog
from tests.gateway.destinations import pseudo_random
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 1024 * 1024
Connect = Callable[[], Any]


class Bench:
    """A forwarder in front of the fake gateway, and applications that connect to it."""

    def __init__(self, fake: FakeGateway, **changes: Any) -> None:
        self.fake = fake
        self.log = FakeLog()
        self.wished = "all"
        self.session_limit = SessionLimit(changes.pop("agent_sessions", 100))
        self.users = Users()
        self.context = SessionContext(self.session_limit, FairShare(), lambda: self.wished, self.users, GreenletReuse())
        self.diag = SockDiag()
        self.listener = socket.create_server((LOOPBACK, 0))
        self.route = fake.route(**{"warm": "off", "pool_min": 1, "pool_max": 1, **changes})
        self.forwarder = Forwarder(
            self.route, self.make_pool, self.context, self.diag, self.log.log, count(1), generation=1
        )
        self.applications: list[Any] = []
        self.forwarder.start()

    def make_pool(self, route: Route, history: RouteHistory, log: Logger) -> Pool:
        gateway = route.gateway
        dialer = Dialer(gateway, make_context(gateway.tunnel_trust), Resolver())
        token = Token(Credential("default", "service_account_file"), lambda _: None, log)
        context = PoolContext(route, history, GatewayHealth("fake", log), log, self.context.greenlets)
        return Pool(context, TunnelOpener(route, dialer, token, log))

    def connect(self) -> Any:
        """Connect another application."""
        application = cooperative.create_connection(self.listener.getsockname(), timeout=scaled(10))
        accepted, peer = self.listener.accept()
        self.forwarder.accept(accepted, f"{peer[0]}:{peer[1]}")
        self.applications.append(application)
        return application

    def close(self) -> None:
        for application in self.applications:
            application.close()
        self.forwarder.finish(0, DRAINED)
        self.context.greenlets.close()
        self.listener.close()
        self.diag.close()
        assert self.session_limit.admitted_count == 0, "a session was not released"
        assert self.forwarder._session_limit.admitted_count == 0, "a session of the route was not released"

    def lines(self) -> list[dict[str, Any]]:
        return [line for line in self.log.lines if line["event"] in ("session.closed", "session.refused")]

    def line(self, number: int = 1) -> dict[str, Any]:
        """Wait until this many sessions have ended, and return the line of the last. There must be no more."""
        wait_until(lambda: len(self.lines()) >= number)
        for connection in self.fake.connections:
            connection.finish()  # as a gateway does once the client has closed
        wait_until(lambda: self.forwarder.session_count == 0)
        assert len(self.lines()) == number
        return self.lines()[-1]


def ending(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["event"], line.get("side", ""), line.get("reason", "")


def reset_soon(application: Any) -> bool:
    """Return whether the application sees a reset after the bytes that it is sent."""
    try:
        while application.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def read(application: Any, length: int = 1 << 40) -> bytes:
    data = b""
    while len(data) < length and (more := application.recv(min(65536, length - len(data)))):
        data += more
    return data


@pytest.fixture
def bench(fake: FakeGateway) -> Iterator[Callable[..., Bench]]:
    """Start a forwarder with changes to its route."""
    running: list[Bench] = []

    def start(**changes: Any) -> Bench:
        running.append(Bench(fake, **changes))
        return running[-1]

    yield start
    for started in running:
        started.close()


class TestRecordsOfTheServer:
    @pytest.fixture
    def recorded(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """What the route's history is notified of, in order."""
        recorded: list[tuple[Any, ...]] = []
        monkeypatch.setattr(RouteHistory, "note_greeting", lambda _, first, __: recorded.append(("greeting", first)))
        monkeypatch.setattr(
            RouteHistory, "note_close", lambda _, idle_s, age_s: recorded.append(("close", 0 <= idle_s <= age_s))
        )
        return recorded

    def test_server_that_speaks_first_and_closes_is_recorded(
        self, recorded: list[tuple[Any, ...]], bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        tunnel.send(b"220 hello")
        assert read(application, 9) == b"220 hello"
        tunnel.finish()
        assert read(application) == b""
        here.line()
        assert {recorded[0], recorded[-1]} == {("greeting", b"220 hello"), ("close", True)}

    def test_answer_to_the_client_and_close_by_the_client_are_not_recorded(
        self, recorded: list[tuple[Any, ...]], bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        application = here.connect()
        application.sendall(b"question")
        tunnel = fake.tunnel()
        assert tunnel.receive(8) == b"question"
        tunnel.send(b"answer!")
        assert read(application, 7) == b"answer!"
        application.close()
        here.line()
        assert recorded == []


class TestOneSession:
    def test_session_logs_one_line_with_all_facts(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        application = here.connect()
        application.sendall(b"question")
        tunnel = fake.tunnel()
        assert tunnel.receive(8) == b"question"
        tunnel.send(b"answer!")
        assert read(application, 7) == b"answer!"
        application.close()
        line = here.line()
        assert ending(line) == ("session.closed", "client", "finished")
        assert (line["bytes_up"], line["bytes_down"], line["request_id"], line["warm"], line["generation"]) == (
            8, 7, "fake-1", False, 1,
        )  # fmt: skip
        assert {"waited_ms", "first_byte_ms", "duration_ms", "tcp_ms", "tls_ms", "connect_ms", "peer"} <= set(line)
        assert tunnel.receive_all() == b""

    @pytest.mark.parametrize(
        ("end", "expected", "is_reset"),
        [
            (Connection.finish, ("gateway", "finished"), False),
            (Connection.fin, ("gateway", "lost"), True),
            (Connection.reset, ("gateway", "lost"), True),
        ],
    )
    def test_end_of_the_gateway_reaches_the_client_after_the_last_byte(
        self, bench: Callable[..., Bench], fake: FakeGateway, end: play.Script, expected: tuple[str, str],
        is_reset: bool,
    ) -> None:  # fmt: skip
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        tunnel.send(b"last words")
        assert read(application, 5) == b"last "
        end(tunnel)
        assert read(application, 5) == b"words"
        assert reset_soon(application) is is_reset
        assert ending(here.line())[1:] == expected

    def test_reset_by_the_client_aborts_the_tunnel(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        application.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        application.close()
        assert ending(here.line()) == ("session.closed", "client", "aborted")
        with pytest.raises(Exception):  # noqa: B017 - any end but an orderly one
            assert tunnel.receive_all() is None

    def test_bytes_of_a_closed_client_reach_a_destination_that_answers_late(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        """The late answer meets a closed socket and is reset. What the client sent before must arrive all the same."""
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        body = b"".join(pseudo_random(1, 4 * MIB))
        application.sendall(body)
        application.close()
        received = tunnel.receive(1000)
        while data := tunnel.receive(200_000):
            received += data
            tunnel.send(b"thank you " * 100)
        line = here.line()
        assert len(received) == line["bytes_up"] > MIB
        assert received == body[: len(received)]
        assert line["side"] == "client"

    def test_client_that_shut_down_gets_a_slow_answer(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        application = here.connect()
        application.sendall(b"question")
        application.shutdown(socket.SHUT_WR)
        tunnel = fake.tunnel()
        assert tunnel.receive(8) == b"question"
        gevent.sleep(0.7)
        tunnel.send(b"answer")
        tunnel.finish()
        assert read(application) == b"answer"
        assert ending(here.line()) == ("session.closed", "gateway", "finished")

    def test_session_of_a_closed_client_ends_at_once_although_the_destination_is_silent(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        here.connect().close()
        fake.tunnel()
        assert here.line()["duration_ms"] < 1000 * scaled(5)

    def test_half_close_setting_close_passes_the_end_on_at_once(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench(half_close="close")
        application = here.connect()
        tunnel = fake.tunnel()
        application.shutdown(socket.SHUT_WR)
        assert tunnel.receive_all() == b""
        tunnel.finish()
        assert read(application) == b""
        assert ending(here.line()) == ("session.closed", "client", "finished")

    def test_unread_input_of_the_client_does_not_turn_the_gateways_end_into_a_reset(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        tunnel.send(b"x" * 100_000)
        tunnel.finish()
        application.sendall(b"y" * 100_000)
        assert read(application) == b"x" * 100_000
        assert ending(here.line())[1:] == ("gateway", "finished")

    def test_crashed_session_logs_one_line_and_releases_its_places(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> int:
            raise ZeroDivisionError

        monkeypatch.setattr(session_module.Relay, "_copy_down", broken)
        here = bench()
        with caught_crashes() as crashes:
            application = here.connect()
            assert reset_soon(application)
            assert ending(here.line()) == ("session.closed", "agent", "aborted")
        assert [type(crash) for crash in crashes] == [ZeroDivisionError]

    def test_killed_session_logs_one_line(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        application = here.connect()
        fake.tunnel()
        wait_until(lambda: here.log.named("tunnel.opened"))
        next(iter(here.forwarder._sessions)).kill()
        assert reset_soon(application)
        assert ending(here.line()) == ("session.closed", "agent", "aborted")


class TestRefusal:
    def test_refusal_is_one_line_and_a_reset(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        fake.plays(rejects(403))
        here = bench()
        assert reset_soon(here.connect())
        line = here.line()
        assert (line["event"], line["recovery"]) == ("session.refused", "operator")
        assert "(403 from" in line["error"]

    def test_refusal_by_a_limit_of_the_route_names_the_limit(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "ADMISSION_TIMEOUT_S", 0.05)
        here = bench(max_sessions=1)
        first = here.connect()
        fake.tunnel()
        assert reset_soon(here.connect())
        assert ending(here.lines()[0]) == ("session.refused", "", "limit")
        first.close()
        here.line(2)

    def test_client_waits_for_a_place_before_it_is_refused(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench(max_sessions=1)
        first = here.connect()
        tunnel = fake.tunnel()
        here.connect()
        settle()
        first.close()
        assert tunnel.receive_all() == b""
        tunnel.finish()
        fake.tunnel()

    def test_clients_that_wait_for_their_route_take_no_place_of_the_agent(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench(max_sessions=1)
        here.connect()
        fake.tunnel()
        for _ in range(5):
            here.connect()
        settle()
        assert here.session_limit.admitted_count == 1

    def test_refusal_by_the_agents_limit_releases_the_routes_place(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "ADMISSION_TIMEOUT_S", 0.05)
        here = bench(agent_sessions=1)
        here.connect()
        fake.tunnel()
        assert reset_soon(here.connect())
        assert here.forwarder._session_limit.admitted_count == 1

    def test_client_is_refused_when_the_wait_for_a_tunnel_is_over(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        fake.plays(play.says_nothing)
        here = bench(wait_timeout_s=0.2)
        assert reset_soon(here.connect())
        assert "within 0.2 s" in here.line()["error"]


class TestDeadWarmTunnel:
    @pytest.mark.parametrize("end", [Connection.finish, Connection.fin, Connection.reset])
    def test_dead_tunnel_is_replaced_unnoticed(
        self, bench: Callable[..., Bench], fake: FakeGateway, end: play.Script
    ) -> None:
        here = bench(warm="tunnel")
        first = fake.tunnel()
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.warm_count == 0)
        end(first)
        second = fake.tunnel()
        application.sendall(b"hello")
        candidates = [second]
        wait_until(lambda: self._received(candidates, fake) == b"hello")
        application.close()
        assert ending(here.line()) == ("session.closed", "client", "finished")

    @staticmethod
    def _received(candidates: list[Connection], fake: FakeGateway) -> bytes:
        """Return what any live tunnel received: the refill and the replacement come in any order."""
        for connection in fake.connections[1:]:
            with Timeout(0.05, False):
                if connection.request and connection not in candidates[1:]:
                    data = connection.receive_some()
                    if data:
                        return data
        return b""

    def test_second_dead_tunnel_ends_the_session(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        fake.plays(accepts(), then(accepts(), Connection.finish))
        here = bench(warm="tunnel")
        first = fake.tunnel()
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.warm_count == 0)
        first.finish()
        assert read(application) == b""
        assert ending(here.line()) == ("session.closed", "gateway", "finished")

    def test_tunnel_is_not_replaced_after_a_byte_of_the_client(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench(warm="tunnel")
        first = fake.tunnel()
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        application = here.connect()
        application.sendall(b"x")
        assert first.receive(1) == b"x"
        first.fin()
        assert reset_soon(application)
        assert ending(here.line()) == ("session.closed", "gateway", "lost")

    def test_tunnel_is_not_replaced_after_a_byte_of_the_destination(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        fake.plays(accepts(early=b"421 too many connections\r\n"))
        here = bench(warm="tunnel")
        first = fake.tunnel()
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        application = here.connect()
        assert read(application, 5) == b"421 t"
        first.finish()
        assert read(application) == b"oo many connections\r\n"
        assert ending(here.line()) == ("session.closed", "gateway", "finished")

    def test_tunnel_that_was_not_warm_is_not_replaced(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        fake.plays(then(accepts(), Connection.finish))
        here = bench()
        assert read(here.connect()) == b""
        assert ending(here.line()) == ("session.closed", "gateway", "finished")
        assert len(fake.connections) == 1

    def test_destination_that_hangs_up_is_not_dialled_twice_at_level_tls(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        fake.plays(then(accepts(), Connection.finish))
        here = bench(warm="tls")
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        assert read(here.connect()) == b""
        assert ending(here.line()) == ("session.closed", "gateway", "finished")
        assert len([c for c in fake.connections if c.request]) == 1

    def test_session_that_waits_for_the_replacement_can_be_stopped(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        fake.plays(accepts(), play.says_nothing)
        here = bench(warm="tunnel")
        first = fake.tunnel()
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.warm_count == 0)
        first.finish()
        wait_until(lambda: here.forwarder.pool.waiting_count == 1)
        here.forwarder.stop_sessions(DRAINED)
        assert reset_soon(application)
        assert ending(here.line()) == ("session.refused", "", "drained")


class TestLimits:
    def test_session_without_a_byte_ends_as_idle(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench(idle_timeout_s=0.5)
        application = here.connect()
        fake.tunnel()
        assert reset_soon(application)
        assert ending(here.line()) == ("session.closed", "agent", "idle")

    def test_each_byte_prolongs_the_session(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.02)
        here = bench(idle_timeout_s=0.5)
        application = here.connect()
        tunnel = fake.tunnel()
        for _ in range(10):
            application.sendall(b"x")
            assert tunnel.receive(1) == b"x"
            gevent.sleep(0.1)
        assert here.lines() == []

    def test_busy_session_ends_at_its_lifetime(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.02)
        here = bench(max_lifetime_s=0.3)
        application = here.connect()
        tunnel = fake.tunnel()

        def talk() -> None:
            while True:
                tunnel.send(b"x")
                gevent.sleep(0.01)

        talking = gevent.Greenlet.spawn(talk)
        assert reset_soon(application)
        talking.kill()
        assert ending(here.line()) == ("session.closed", "agent", "lifetime")

    def test_long_session_logs_its_progress(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.02)
        monkeypatch.setattr(session_log, "PROGRESS_EVERY_S", 0.1)
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        application.sendall(b"hello")
        assert tunnel.receive(5) == b"hello"
        progress = wait_until(lambda: [line for line in here.log.named("session.progress") if line["bytes_up"]])[-1]
        application.close()
        closed = here.line()
        same = ("route", "session", "peer", "request_id", "uid", "generation", "bytes_up")
        assert [progress[name] for name in same] == [closed[name] for name in same]
        assert 0 <= progress["idle_ms"] <= progress["duration_ms"] <= closed["duration_ms"]

    def test_check_during_the_close_changes_nothing(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client is closed already while the gateway takes the last bytes."""
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.01)
        here = bench(idle_timeout_s=60)
        with caught_crashes() as crashes:
            here.connect().close()
            tunnel = fake.tunnel()
            wait_until(here.lines)
            gevent.sleep(0.1)
            tunnel.finish()
            here.line()
        assert crashes == []

    def test_crashed_check_does_not_affect_the_limits_of_other_sessions(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.02)
        here = bench(idle_timeout_s=0.3)
        broken, application = here.connect(), here.connect()
        fake.tunnel()
        fake.tunnel()
        first = next(iter(here.forwarder._sessions.values()))
        with caught_crashes() as crashes:
            first.check = lambda now: 1 / 0  # type: ignore[method-assign,assignment,return-value]
            assert reset_soon(application)
        assert crashes
        broken.close()


class TestWaitingClient:
    def test_waiting_client_that_leaves_is_noticed(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.02)
        fake.plays(play.says_nothing)
        here = bench()
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.waiting_count == 1)
        application.close()
        assert ending(here.line()) == ("session.refused", "", "aborted")
        assert here.forwarder.pool.waiting_count == 0

    def test_waiting_client_that_only_shut_down_is_served(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarder_module, "CHECK_EVERY_S", 0.01)
        release = gevent.event.Event()
        fake.plays(then(lambda _: release.wait(), accepts()))
        here = bench()
        application = here.connect()
        application.shutdown(socket.SHUT_WR)
        gevent.sleep(0.1)
        release.set()
        tunnel = fake.tunnel()
        tunnel.send(b"answer")
        tunnel.finish()
        assert read(application) == b"answer"

    def test_waiting_client_is_served_by_the_new_pool(
        self, bench: Callable[..., Bench], fake: FakeGateway, authority: Any
    ) -> None:
        fake.plays(play.says_nothing)
        here = bench()
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.waiting_count == 1)
        with FakeGateway(authority) as other:
            here.forwarder.follow(replace(here.route, gateway=other.settings), 2)
            other.tunnel().send(b"from the other")
            assert read(application, 14) == b"from the other"
            application.close()
            here.line()

    def test_waiting_client_gets_its_tunnel_in_a_drain(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        release = gevent.event.Event()
        fake.plays(then(lambda _: release.wait(), accepts(early=b"hello")))
        here = bench()
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.waiting_count == 1)
        here.forwarder.drain()
        release.set()
        assert read(application, 5) == b"hello"

    def test_client_accepted_just_before_a_drain_gets_its_tunnel(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        fake.plays(accepts(early=b"hello"))
        here = bench()
        application = here.connect()
        here.forwarder.drain()  # before its greenlet has run for the first time
        assert read(application, 5) == b"hello"

    def test_new_token_in_a_drain_makes_nothing_warm(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench(warm="tunnel")
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        here.forwarder.drain()
        here.forwarder.renew()
        settle()
        assert (here.forwarder.pool.warm_count, here.forwarder.state) == (0, "draining")
        assert len(fake.connections) == 1


class TestFinish:
    def test_finish_waits_for_sessions(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        finishing = gevent.Greenlet.spawn(here.forwarder.finish, 10, DRAINED)
        settle()
        tunnel.send(b"last words")
        tunnel.finish()
        assert read(application) == b"last words"
        assert finishing.get(timeout=5) == 0
        assert ending(here.line()) == ("session.closed", "gateway", "finished")

    def test_finish_ends_the_other_sessions_each_with_its_line(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        applications = [here.connect() for _ in range(3)]
        for _ in applications:
            fake.tunnel()
        wait_until(lambda: len(here.log.named("tunnel.opened")) == 3)
        settle()
        assert here.forwarder.finish(0, REMOVED) == 3
        assert [ending(line) for line in here.lines()] == [("session.closed", "agent", "removed")] * 3
        assert all(reset_soon(application) for application in applications)

    def test_finish_ends_sessions_that_wait_for_a_tunnel(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        fake.plays(play.says_nothing)
        here = bench()
        application = here.connect()
        wait_until(lambda: here.forwarder.pool.waiting_count == 1)
        assert here.forwarder.finish(0, DRAINED) == 1
        assert ending(here.line()) == ("session.refused", "", "drained")
        assert reset_soon(application)

    def test_finish_ends_sessions_that_wait_for_a_place(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench(max_sessions=1)
        here.connect()
        fake.tunnel()
        second = here.connect()
        wait_until(lambda: here.log.named("tunnel.opened"))
        settle()
        assert here.forwarder.finish(0, DRAINED) == 2
        assert sorted(ending(line) for line in here.lines()) == [
            ("session.closed", "agent", "drained"), ("session.refused", "", "drained"),
        ]  # fmt: skip
        assert reset_soon(second)

    def test_finish_ends_sessions_that_have_just_begun(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        here.connect()
        here.forwarder.stop_sessions(DRAINED)  # before its greenlet has run at all
        assert ending(here.line()) == ("session.refused", "", "drained")

    @pytest.mark.parametrize("rounds", range(12))
    def test_stop_at_any_moment_of_a_start_logs_one_line(
        self, bench: Callable[..., Bench], fake: FakeGateway, rounds: int
    ) -> None:
        here = bench(warm="tunnel")
        wait_until(lambda: here.forwarder.pool.warm_count == 1)
        application = here.connect()
        for _ in range(rounds):
            gevent.sleep(0)
        here.forwarder.stop_sessions(DRAINED)
        assert here.line()["reason"] == "drained"
        assert reset_soon(application)

    @pytest.mark.parametrize("rounds", range(0, 60, 5))
    def test_stop_at_any_moment_of_a_dial_logs_one_line(
        self, bench: Callable[..., Bench], fake: FakeGateway, rounds: int
    ) -> None:
        here = bench()
        application = here.connect()
        for _ in range(rounds):
            gevent.sleep(0.0002)
        here.forwarder.stop_sessions(DRAINED)
        assert here.line()["reason"] == "drained"
        assert reset_soon(application)

    def test_finish_does_not_wait_for_a_client_that_does_not_read_its_last_bytes(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        sending = gevent.Greenlet.spawn(lambda: (tunnel.send(bytes(3 * MIB)), tunnel.finish()))
        wait_until(lambda: here.forwarder.session_count == 1 and (sending.ready() or sending.started))
        gevent.sleep(0.1)
        with Timeout(scaled(2.5)):  # before any session has to be killed
            here.forwarder.finish(0, DRAINED)
        assert len(here.lines()) == 1
        sending.kill()
        application.close()


class TestAllowUsers:
    @pytest.mark.parametrize("named", [str(os.getuid()), pwd.getpwuid(os.getuid()).pw_name])
    def test_listed_user_is_served(self, bench: Callable[..., Bench], fake: FakeGateway, named: str) -> None:
        here = bench(allow_users=("no-such-user-here", named))
        application = here.connect()
        fake.tunnel().send(b"come in")
        assert read(application, 7) == b"come in"
        wait_until(lambda: here.users.name_if_known(os.getuid()) is not None)  # no session waits for the look-up
        application.close()
        line = here.line()
        assert (line["event"], line["uid"]) == ("session.closed", os.getuid())
        assert line["user"] == pwd.getpwuid(os.getuid()).pw_name

    def test_user_is_logged_although_the_client_left_first(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench()
        application = here.connect()
        fake.tunnel().send(b"come in")
        assert read(application, 7) == b"come in"
        application.close()
        assert here.line()["uid"] == os.getuid()

    def test_unlisted_user_is_reset_and_named_and_leases_nothing(
        self, bench: Callable[..., Bench], fake: FakeGateway
    ) -> None:
        here = bench(allow_users=("4711",), max_sessions=1)
        assert reset_soon(here.connect())
        line = here.line()
        assert ending(line) == ("session.refused", "", "user")
        assert (line["uid"], line["user"]) == (os.getuid(), pwd.getpwuid(os.getuid()).pw_name)
        assert here.forwarder.counts.refused == {"user": 1}
        assert not fake.connections

    def test_client_without_a_known_user_is_reset(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench(allow_users=(str(os.getuid()),))
        here.forwarder._diag = None
        assert reset_soon(here.connect())
        line = here.line()
        assert (line["reason"], line["uid"]) == ("user", None)
        assert "the kernel reports no user for this client" in line["error"]
        assert not fake.connections

    def test_reloaded_list_applies_to_new_sessions(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        old = here.connect()
        tunnel = fake.tunnel()
        tunnel.send(b"early")
        assert read(old, 5) == b"early"
        here.forwarder.follow(replace(here.route, allow_users=("4711",)), 2)
        assert reset_soon(here.connect())
        tunnel.send(b"still here")
        assert read(old, 10) == b"still here"
        old.close()
        here.line(2)

    def test_user_that_cannot_be_looked_up_is_refused_and_a_stop_does_not_wait_for_it(
        self, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = bench(allow_users=("app-user",))
        monkeypatch.setattr(here.users, "allows", lambda allowed, uid: Event().wait())
        application = here.connect()
        settle()
        here.forwarder.stop_sessions(DRAINED)
        assert reset_soon(application)
        assert ending(here.line()) == ("session.refused", "", "drained")

    def test_empty_list_costs_one_query_of_the_kernel(
        self, bench: Callable[..., Bench], fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        find = SockDiag.find
        monkeypatch.setattr(SockDiag, "find", lambda *args: asked.append(args) or find(*args))
        here = bench()
        application = here.connect()
        tunnel = fake.tunnel()
        application.sendall(b"question")
        assert tunnel.receive(8) == b"question"
        tunnel.finish()
        assert read(application) == b""
        application.close()
        here.line()
        assert len(asked) == 1


class TestLogSessions:
    @pytest.mark.parametrize(("wish", "expected"), [("all", 3), ("errors", 2), ("none", 0)])
    def test_setting_decides_which_sessions_are_logged(
        self, bench: Callable[..., Bench], fake: FakeGateway, wish: str, expected: int
    ) -> None:
        fake.plays(then(accepts(), Connection.finish), then(accepts(), Connection.fin), rejects(403))
        here = bench()
        here.wished = wish
        for _ in range(3):
            reset_soon(here.connect())
            wait_until(lambda: here.forwarder.session_count == 0)
        assert len(here.lines()) == expected


class TestSlowReader:
    @pytest.mark.parametrize("end", [Connection.finish, Connection.fin])
    def test_slow_reader_gets_everything_sent_before_the_end(
        self, bench: Callable[..., Bench], fake: FakeGateway, end: play.Script
    ) -> None:
        here = bench()
        application = here.connect()
        body = b"".join(pseudo_random(2, 2 * MIB))
        tunnel = fake.tunnel()
        sending = gevent.Greenlet.spawn(lambda: (tunnel.send(body), end(tunnel)))
        gevent.sleep(1)
        data = b""
        while len(data) < len(body):
            data += application.recv(200_000)
            gevent.sleep(0.01)
        assert data == body
        sending.get(timeout=5)

    def test_slow_reader_stalls_the_gateway_and_resumes(self, bench: Callable[..., Bench], fake: FakeGateway) -> None:
        here = bench()
        application = here.connect()
        body = b"".join(pseudo_random(3, 24 * MIB))
        tunnel = fake.tunnel()
        sending = gevent.Greenlet.spawn(lambda: (tunnel.send(body), tunnel.finish()))
        gevent.sleep(0.5)
        assert not sending.ready()
        assert read(application) == body
        sending.get(timeout=5)
