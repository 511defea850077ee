"""What a session does after its client's last byte: end at once, linger for the answer, or pass the end on."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from pomagent.errors import StreamLost
from pomagent.sessions import half_close
from pomagent.sessions.ends import CLIENT_FINISHED, GATEWAY_FINISHED, GATEWAY_LOST
from pomagent.sessions.half_close import REMOTE_LINGER_S, HalfClosePolicy
from pomagent.settings import HalfClose
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import settle
from tests.fakes.relays import RunningRelay


@pytest.fixture
def relayed() -> Iterator[RunningRelay]:
    running = RunningRelay()
    yield running
    running.kill()


@pytest.mark.parametrize(
    ("mode", "can_carry", "has_closed", "carries", "linger_s"),
    [
        ("auto", True, False, True, 60), ("auto", True, None, True, 60), ("auto", False, None, False, REMOTE_LINGER_S),
        ("linger", True, None, False, REMOTE_LINGER_S), ("linger", True, False, False, 60),
        ("close", True, None, False, REMOTE_LINGER_S),
    ],
)  # fmt: skip
def test_policy_lingers_briefly_only_for_a_remote_client_whose_end_is_not_carried(
    mode: HalfClose, can_carry: bool, has_closed: bool | None, carries: bool, linger_s: float
) -> None:
    policy = HalfClosePolicy(mode, 60, can_carry)
    assert (policy.carries, policy.linger_s(has_closed)) == (carries, linger_s)


class TestClientEnd:
    def test_closed_client_ends_the_session_at_once(self, relayed: RunningRelay) -> None:
        relayed.client.has_closed_answer = True
        relayed.start()
        relayed.application.write(b"last words")
        relayed.application.send_eof()
        assert relayed.end() == CLIENT_FINISHED
        assert relayed.gateway.read(10) == b"last words"

    def test_client_is_checked_again_because_its_fin_precedes_the_release_of_its_socket(
        self, relayed: RunningRelay
    ) -> None:
        relayed.start()
        relayed.application.send_eof()
        settle()
        assert not relayed.has_ended
        relayed.client.has_closed_answer = True
        assert relayed.end() == CLIENT_FINISHED

    def test_client_that_only_shut_down_gets_the_answer(self, relayed: RunningRelay) -> None:
        relayed.start()
        relayed.application.write(b"question")
        relayed.application.send_eof()
        assert relayed.gateway.read(8) == b"question"
        gevent.sleep(0.05)
        relayed.gateway.write(b"answer")
        relayed.gateway.send_eof()
        assert relayed.application.read(6) == b"answer"
        assert relayed.end() == GATEWAY_FINISHED

    def test_linger_without_a_byte_ends_after_its_timeout(self) -> None:
        clock = FakeClock()
        relayed = RunningRelay(clock=clock, half_close_timeout_s=60).start()
        relayed.application.send_eof()
        settle()
        clock.advance(59.9)
        gevent.sleep(0.2)
        assert not relayed.has_ended
        clock.advance(0.2)
        assert relayed.end() == CLIENT_FINISHED

    def test_each_byte_of_the_answer_prolongs_the_linger(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(half_close, "RECHECK_S", (0.001,))
        clock = FakeClock()
        relayed = RunningRelay(clock=clock, half_close_timeout_s=60).start()
        relayed.application.send_eof()
        for _ in range(3):
            settle()
            clock.advance(59)
            relayed.gateway.write(b"x")
            assert relayed.application.read(1) == b"x"
            gevent.sleep(0.02)  # until the client was checked again
        assert not relayed.has_ended
        relayed.kill()

    def test_linger_for_a_remote_client_is_short(self) -> None:
        clock = FakeClock()
        relayed = RunningRelay(clock=clock, half_close_timeout_s=60)
        relayed.client.has_closed_answer = None
        relayed.start()
        relayed.application.send_eof()
        settle()
        assert not relayed.has_ended
        clock.advance(REMOTE_LINGER_S + 0.1)
        assert relayed.end() == CLIENT_FINISHED

    def test_carried_half_close_reaches_the_gateway_and_the_answer_still_arrives(self) -> None:
        relayed = RunningRelay(can_carry=True).start()
        relayed.application.write(b"question")
        relayed.application.send_eof()
        assert relayed.gateway.read_to_end() == b"question"
        relayed.gateway.write(b"answer")
        relayed.gateway.send_eof()
        assert relayed.application.read(6) == b"answer"
        assert relayed.end() == GATEWAY_FINISHED

    @pytest.mark.parametrize("mode", ["linger", "close"])
    def test_half_close_is_not_carried_where_the_route_forbids_it(self, mode: HalfClose) -> None:
        clock = FakeClock()
        relayed = RunningRelay(can_carry=True, half_close=mode, clock=clock, half_close_timeout_s=60).start()
        relayed.application.send_eof()
        settle()
        assert not relayed.gateway.has_ended
        clock.advance(61)
        assert relayed.end() == CLIENT_FINISHED

    def test_carried_half_close_of_a_remote_client_has_the_whole_timeout(self) -> None:
        clock = FakeClock()
        relayed = RunningRelay(clock=clock, half_close_timeout_s=60, can_carry=True)
        relayed.client.has_closed_answer = None
        relayed.start()
        relayed.application.send_eof()
        settle()
        clock.advance(59.9)
        gevent.sleep(0.2)
        assert not relayed.has_ended
        clock.advance(0.2)
        assert relayed.end() == CLIENT_FINISHED

    def test_tunnel_lost_while_the_half_close_is_carried_ends_the_session(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relayed = RunningRelay(can_carry=True)

        def lose() -> None:
            relayed.tunnel.lose("broken pipe")
            raise StreamLost("broken pipe")

        monkeypatch.setattr(relayed.tunnel, "send_eof", lose)
        relayed.start()
        relayed.application.send_eof()
        end = relayed.end()
        assert (end, end.cause) == (GATEWAY_LOST, "broken pipe")

    def test_client_is_not_checked_with_half_close_close(self, monkeypatch: pytest.MonkeyPatch) -> None:
        relayed = RunningRelay(half_close="close")
        checks: list[None] = []
        monkeypatch.setattr(relayed.client, "has_closed", lambda: checks.append(None))
        relayed.start()
        relayed.application.send_eof()
        assert relayed.end() == CLIENT_FINISHED
        assert checks == []

    def test_undelivered_bytes_keep_a_lingering_client_alive(self) -> None:
        clock = FakeClock()
        relayed = RunningRelay(client_capacity=10, clock=clock, half_close_timeout_s=60).start()
        relayed.application.send_eof()
        relayed.gateway.write(bytes(100))
        settle()
        clock.advance(100)
        gevent.sleep(0.1)
        assert not relayed.has_ended
        relayed.kill()
